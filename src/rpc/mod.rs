//! The gRPC edge: decode a message, call one method of `service`, encode what it returns.
//!
//! One file per gRPC service; `convert` turns messages into domain types and back, [`status`]
//! errors into statuses, `auth` finds what shows who is calling.

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

use tonic::{Request, Response, Status};

use crate::domain::FieldViolation;
use crate::service::access::Rpc;
use crate::service::{Call, PublishedKeys, Service, ServiceError};

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

/// Answers a call of `rpc`: admits it, takes the fields out of its message by `decode`, runs `use_case` with
/// them, and makes the reply of what that returns by `encode`.
///
/// # Errors
/// The status of whatever is refused or fails, in that order. Refusals are counted for the audit log, outages
/// for the service's log.
async fn answer<M, I, O, R>(
    backend: &Backend,
    rpc: Rpc,
    request: Request<M>,
    decode: impl FnOnce(M) -> Result<I, Vec<FieldViolation>>,
    use_case: impl AsyncFnOnce(Service, Call, I) -> Result<O, ServiceError>,
    encode: impl FnOnce(O) -> R,
) -> Result<Response<R>, Status> {
    let service = backend.service()?;
    let failed = |error| {
        service.note_outage(&error);
        status::from_service(error)
    };
    let (metadata, extensions, message) = request.into_parts();
    let call = service.admit(rpc, auth::presented(&metadata, &extensions)).await.map_err(failed)?;
    let source = call.source;
    let result = match decode(message) {
        Ok(fields) => use_case(service.clone(), call, fields).await,
        Err(violations) => Err(service.fields_invalid(&call, violations).await),
    };
    match result {
        Ok(done) => Ok(Response::new(encode(done))),
        Err(error) => {
            service.note_refusal(&error, source);
            Err(failed(error))
        }
    }
}
