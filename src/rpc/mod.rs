//! The gRPC edge: decode a message, call one method of `service`, encode what it returns.
//!
//! One file per gRPC service; `convert` turns messages into domain types and back, [`status`]
//! errors into statuses, `auth` finds out who is calling.

mod audit;
mod auth;
pub mod call;
pub mod call_id;
pub mod codec;
mod convert;
mod directory;
mod identity;
pub mod status;

use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::service::{PublishedKeys, Service};

pub use audit::AuditRpc;
pub use directory::DirectoryRpc;
pub use identity::IdentityRpc;

/// The largest message that is read, in bytes: a few times what the longest valid request needs.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The use cases, once they are there. Until then every call is answered UNAVAILABLE, so that a
/// process can listen, and say how it is, before its database has been reached. Cheap to clone.
#[derive(Clone, Default)]
pub struct Backend(Arc<OnceLock<Service>>);

impl Backend {
    /// Nothing there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on calls are served. Only the first `service` counts.
    pub fn open(&self, service: Service) {
        // A second start would find the same database; there is nothing to tell apart.
        let _ = self.0.set(service);
    }

    /// What others verify access tokens with, once the use cases are there.
    pub fn published_keys(&self) -> Option<Arc<PublishedKeys>> {
        self.0.get().map(Service::published_keys)
    }

    /// The use cases, once they are there.
    pub fn opened(&self) -> Option<&Service> {
        self.0.get()
    }

    fn service(&self) -> Result<&Service, Status> {
        self.0.get().ok_or_else(|| status::unavailable(status::RETRY_SOON))
    }
}
