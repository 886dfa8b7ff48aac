//! What a call is made under: its deadline, and where it comes from.

use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;
use tonic::Extensions;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::domain::{DeviceLabel, EndUser, FieldViolation, SpiffeId, Violations};

/// Where a service states the address of the user that it calls for.
const END_USER_ADDRESS: &str = "x-identity-end-user-address";
/// Where it states the device: as ASCII, or as any UTF-8.
const END_USER_DEVICE: &str = "x-identity-end-user-device";
const END_USER_DEVICE_BIN: &str = "x-identity-end-user-device-bin";

const TWICE: &str = "must not be given twice";

/// When a call has to be answered, in its request's extensions. A call that may go on for ever has
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// The caller stops waiting then.
    OfCaller(Instant),
    /// The caller named none: the service cuts the call off then.
    OfService(Instant),
}

impl Deadline {
    /// The moment, whoever chose it.
    pub fn at(self) -> Instant {
        match self {
            Self::OfCaller(at) | Self::OfService(at) => at,
        }
    }

    /// When the caller stops waiting, if they said so.
    pub(super) fn of_caller(self) -> Option<std::time::Instant> {
        match self {
            Self::OfCaller(at) => Some(at.into_std()),
            Self::OfService(_) => None,
        }
    }
}

/// Where a call comes from, in its request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Which service holds the certificate that the connection was opened with, in the extensions of each of
/// its requests. There is none without a verified certificate, nor with one that names no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedPeer(pub SpiffeId);

/// The address of the other end of the connection.
pub(super) fn peer_address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<PeerAddress>().map(|peer| peer.0.ip())
}

/// On whose behalf a service says that it calls.
///
/// # Errors
/// Each metadata in which it states what is no address or no device.
pub(super) fn end_user(metadata: &MetadataMap) -> Result<EndUser, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let text = |name| Ok::<_, &str>(single(metadata, name)?.map(|value| value.to_str().unwrap_or_default()));
    let address = text(END_USER_ADDRESS).and_then(|text| {
        text.map(|text| text.parse::<IpAddr>().map_err(|_| "must be an IPv4 or IPv6 address")).transpose()
    });
    let address = violations.check(END_USER_ADDRESS, address);
    let device = if metadata.contains_key(END_USER_DEVICE_BIN) {
        violations.check(END_USER_DEVICE_BIN, device_in_any_script(metadata))
    } else {
        let label = text(END_USER_DEVICE).map_err(str::to_owned);
        let label = label.and_then(|text| {
            text.map(|text| DeviceLabel::parse(text).map_err(|problem| problem.to_string())).transpose()
        });
        violations.check(END_USER_DEVICE, label)
    };
    match (address, device) {
        (Some(address), Some(device)) => Ok(EndUser { device, address }),
        _ => Err(violations.into_vec()),
    }
}

/// The one value of `name`, if there is any. Of two, one may be what somebody else was let add.
fn single<'a>(metadata: &'a MetadataMap, name: &str) -> Result<Option<&'a AsciiMetadataValue>, &'static str> {
    let mut values = metadata.get_all(name).iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() { Err(TWICE) } else { Ok(value) }
}

fn device_in_any_script(metadata: &MetadataMap) -> Result<Option<DeviceLabel>, String> {
    let mut values = metadata.get_all_bin(END_USER_DEVICE_BIN).iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(TWICE.to_owned());
    }
    let bytes = value.and_then(|value| value.to_bytes().ok()).unwrap_or_default();
    // What is no UTF-8 becomes empty, and is refused for that.
    let label = DeviceLabel::parse(std::str::from_utf8(&bytes).unwrap_or_default());
    label.map(Some).map_err(|problem| problem.to_string())
}
