//! What every call passes on its way to a gRPC service and back, from the outside in:
//!
//! 1. `call_id`: the call gets an id, which its log lines and its reply carry;
//! 2. `call_log`: one line when it has ended, and one more in the counts;
//! 3. `only_grpc`: what is not gRPC is refused in HTTP's terms;
//! 4. `limits`: headers, streams that stay open and unread replies have budgets;
//! 5. `deadline`: an answer in time, or DEADLINE_EXCEEDED;
//! 6. `replies`: tonic's own refusals become those of the contract;
//! 7. `panics`: a handler that panics fails its own call only;
//! 8. `repeat`: a call whose prepared statement was stale is tried once more;
//! 9. `trailers`: those of requests are ignored.
//!
//! Who is calling is decided further in, by `rpc`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tonic::Status;
use tonic::service::Routes;
use tower::Service;

use crate::domain::Clock;

mod call_id;
mod call_log;
mod counts;
mod deadline;
mod limits;
mod method;
mod only_grpc;
mod panics;
mod repeat;
mod replies;
mod reply_body;
mod trailers;

pub use super::call::ReplyBytes;
pub use crate::rpc::call_id::CallId;
pub use counts::CallCounts;

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct EdgeSettings {
    /// The deadline of a call that names none. Health's Watch, which ends only when its
    /// client wants, has none then.
    pub default_deadline: Duration,
    /// The longest deadline that a call may ask for; a longer one is shortened to this. Does not
    /// apply to Watch.
    pub max_deadline: Duration,
    /// Whether a call is repeated when a prepared statement was stale, which happens on PostgreSQL only.
    pub repeats_stale: bool,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_secs(300),
            repeats_stale: true,
        }
    }
}

/// `routes` behind the edge, to be handed to [`serve`](super::listener::serve). Calls that have ended are
/// added to `counts`.
///
/// Handlers find [`CallId`] and [`Deadline`](crate::rpc::call::Deadline) in the extensions of their requests. A handler's
/// future is dropped when its deadline passes or its client goes.
pub fn layer(
    routes: Routes,
    settings: EdgeSettings,
    clock: Arc<dyn Clock>,
    counts: Arc<CallCounts>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<impl Body<Data = ReplyBytes, Error = Status> + Send + 'static>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    let service = trailers::IgnoreTrailers::new(routes.prepare());
    let service = repeat::RepeatStale::new(service, settings.repeats_stale);
    let service = panics::CatchPanics::new(service);
    let service = replies::Replies::new(service);
    let service = deadline::Deadlines::new(service, settings);
    let service = limits::Limits::new(service);
    let service = only_grpc::OnlyGrpc::new(service);
    let service = call_log::CallLog::new(service, counts);
    call_id::CallIds::new(service, clock)
}
