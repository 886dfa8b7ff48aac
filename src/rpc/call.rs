//! What a call is made under: its deadline.

use tokio::time::Instant;
use tonic::Request;

use crate::service::CallContext;

/// When a call has to be answered, in its request's extensions. A call that may go on for ever has
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// What the use case is told about the call.
pub(super) fn context<T>(request: &Request<T>) -> CallContext {
    CallContext { deadline: request.extensions().get::<Deadline>().map(|deadline| deadline.0.into_std()) }
}
