//! The service under load: where it is, and the connections to it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::try_join_all;
use identity::proto::v1::audit_service_client::AuditServiceClient;
use identity::proto::v1::directory_service_client::DirectoryServiceClient;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use tonic::transport::{Channel, Endpoint};

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the service on one HTTP/2 connection, which its clones share.
pub(crate) type Client = IdentityServiceClient<Channel>;

/// The address of a service on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) SocketAddr);

/// An address of this machine that connections come from: each is a source of its own to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) IpAddr);

/// The text is no address that load may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTarget {
    #[error("must be an address and a port, such as 127.0.0.1:50051")]
    Malformed,
    /// A load generator that can be aimed elsewhere is a weapon.
    #[error("is not on this machine: only loopback addresses are taken")]
    NotLoopback,
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let address: SocketAddr = text.parse().map_err(|_| NoTarget::Malformed)?;
        if address.ip().is_loopback() { Ok(Self(address)) } else { Err(NoTarget::NotLoopback) }
    }
}

impl FromStr for Origin {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let address: IpAddr = text.parse().map_err(|_| NoTarget::Malformed)?;
        if address.is_loopback() { Ok(Self(address)) } else { Err(NoTarget::NotLoopback) }
    }
}

impl Target {
    /// How tonic connects to it, from `origin` or from where the system chooses.
    ///
    /// # Errors
    /// Never for an address.
    pub(crate) fn endpoint(self, origin: Option<Origin>) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.0))?.connect_timeout(CONNECT_TIMEOUT);
        Ok(endpoint.local_address(origin.map(|origin| origin.0)))
    }
}

/// Several connections, among which callers are spread.
#[derive(Clone)]
pub(crate) struct Connections(Vec<Channel>);

impl Connections {
    /// Opens `number` connections from `origin`. One that breaks later is opened anew by the call that finds
    /// it so.
    ///
    /// # Errors
    /// Nobody listens, or not for HTTP/2.
    pub(crate) async fn open(
        target: Target,
        origin: Option<Origin>,
        number: usize,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = target.endpoint(origin)?;
        Ok(Self(try_join_all((0..number).map(|_| endpoint.connect())).await?))
    }

    /// The connection of the call or caller with this number: they take the connections in turn.
    fn channel(&self, index: u64) -> Channel {
        pick(&self.0, index).clone()
    }

    /// The client for the call or caller with this number.
    pub(crate) fn client(&self, index: u64) -> Client {
        IdentityServiceClient::new(self.channel(index))
    }

    /// As [`Connections::client`], for the directory.
    pub(crate) fn directory(&self, index: u64) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel(index))
    }

    /// As [`Connections::client`], for the audit log.
    pub(crate) fn audit(&self, index: u64) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel(index))
    }
}

/// The element of `all` whose turn it is. Wants one at least.
pub(crate) fn pick<T>(all: &[T], index: u64) -> &T {
    let turn = index % all.len() as u64;
    // Less than the length, so that it fits.
    &all[turn as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_taken() {
        for text in ["127.0.0.1:50051", "127.1.2.3:1", "[::1]:50051"] {
            assert!(text.parse::<Target>().is_ok(), "{text}");
        }
        for text in ["127.0.0.2", "127.1.2.3", "::1"] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
    }

    #[test]
    fn every_other_address_is_refused() {
        for text in ["0.0.0.0:1", "10.0.0.1:1", "192.0.2.1:443", "[::]:1", "[::ffff:192.0.2.1]:1"] {
            assert_eq!(text.parse::<Target>(), Err(NoTarget::NotLoopback), "{text}");
        }
        assert_eq!("192.0.2.1".parse::<Origin>(), Err(NoTarget::NotLoopback));
    }

    #[test]
    fn names_are_no_addresses_since_they_can_lead_anywhere() {
        for text in ["localhost:50051", "127.0.0.1", "http://127.0.0.1:1", ""] {
            assert_eq!(text.parse::<Target>(), Err(NoTarget::Malformed), "{text}");
        }
    }
}
