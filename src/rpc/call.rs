//! What a call is made under: its deadline, and where it comes from.

use std::net::SocketAddr;

use tokio::time::Instant;
use tonic::Request;

use crate::service::CallContext;

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

    fn of_caller(self) -> Option<Instant> {
        match self {
            Self::OfCaller(at) => Some(at),
            Self::OfService(_) => None,
        }
    }
}

/// Where a call comes from, in its request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// What the use case is told about the call.
pub(super) fn context<T>(request: &Request<T>) -> CallContext {
    let extensions = request.extensions();
    CallContext {
        deadline: extensions
            .get::<Deadline>()
            .and_then(|deadline| deadline.of_caller())
            .map(Instant::into_std),
        source: extensions.get::<PeerAddress>().map(|peer| peer.0.ip()),
    }
}
