//! One call and what became of it: here the calls that check passwords and look users up, and what all calls
//! share.

pub(crate) mod lists;
pub(crate) mod newcomers;
pub(crate) mod writes;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::proto::v1::{GetUserRequest, LoginRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::target::{Connections, pick};
use crate::users::{PASSWORD, User};

/// After this a look-up is given up: far beyond what anybody waits for, near enough for a run to end.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);

/// What became of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// The code of its status; DEADLINE_EXCEEDED as well when the client gave up by itself.
    pub(crate) code: Code,
    /// When it should have begun.
    pub(crate) due: Instant,
    pub(crate) ended: Instant,
    /// It was given up at its deadline, or succeeded after it.
    pub(crate) late: bool,
    /// The delay of the google.rpc.RetryInfo that its status carried.
    pub(crate) retry_after: Option<Duration>,
}

/// A kind of call that can be made again and again.
pub(crate) trait Call: Send + Sync + 'static {
    /// Makes the call with this number, which should begin at `due`. That moment counts for latency and
    /// deadline, however much later the call is really sent.
    fn call(&self, index: u64, due: Instant) -> impl Future<Output = Outcome> + Send;
}

/// Logs one user after the other in. A clone uses the same connections.
#[derive(Clone)]
pub(crate) struct Logins {
    pub(crate) connections: Connections,
    pub(crate) users: Arc<[User]>,
    pub(crate) deadline: Duration,
}

impl Call for Logins {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + self.deadline;
        let email = pick(&self.users, index).email.clone();
        let login = request(LoginRequest { email, password: PASSWORD.to_owned() }, deadline);
        let answer = self.connections.client(index).login(login).await;
        outcome(answer, due, deadline)
    }
}

/// Logs nobody in: the service answers at once that the e-mail is missing. What remains of a login then is the
/// call itself, on both sides.
#[derive(Clone)]
pub(crate) struct EmptyLogins {
    pub(crate) connections: Connections,
    pub(crate) deadline: Duration,
}

impl Call for EmptyLogins {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + self.deadline;
        let login = request(LoginRequest { email: String::new(), password: PASSWORD.to_owned() }, deadline);
        let answer = self.connections.client(index).login(login).await;
        outcome(answer, due, deadline)
    }
}

/// Lets one user after the other look itself up. A clone uses the same connections.
#[derive(Clone)]
pub(crate) struct Lookups {
    pub(crate) connections: Connections,
    pub(crate) users: Arc<[User]>,
}

impl Call for Lookups {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + LOOKUP_DEADLINE;
        let lookup = request_by(&pick(&self.users, index).bearer, GetUserRequest::default(), deadline);
        let answer = self.connections.client(index).get_user(lookup).await;
        outcome(answer, due, deadline)
    }
}

pub(crate) fn request<M>(message: M, deadline: Instant) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}

/// As [`request`], by the user of that access token.
pub(crate) fn request_by<M>(bearer: &MetadataValue<Ascii>, message: M, deadline: Instant) -> Request<M> {
    let mut request = request(message, deadline);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

pub(crate) fn outcome<R>(answer: Result<Response<R>, Status>, due: Instant, deadline: Instant) -> Outcome {
    let ended = Instant::now();
    let code = match &answer {
        Ok(_) => Code::Ok,
        Err(status) if gave_up(status) => Code::DeadlineExceeded,
        Err(status) => status.code(),
    };
    let late = code == Code::DeadlineExceeded || (code == Code::Ok && ended > deadline);
    let retry_after = answer.err().and_then(|status| retry_delay(&status));
    Outcome { code, due, ended, late, retry_after }
}

/// When the service wants the call to be tried again, if it does.
pub(crate) fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Whether tonic's client ended the call at its deadline, which it calls CANCELLED.
fn gave_up(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_as(answer: Result<(), Status>, deadline: Duration) -> Outcome {
        let due = Instant::now() - Duration::from_secs(1);
        outcome(answer.map(Response::new), due, due + deadline)
    }

    #[test]
    fn a_success_is_late_only_after_its_deadline() {
        assert!(!ended_as(Ok(()), Duration::from_secs(60)).late);
        assert!(ended_as(Ok(()), Duration::from_millis(500)).late);
    }

    #[test]
    fn a_call_that_the_client_gave_up_exceeded_its_deadline_and_is_late() {
        let status = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!(status.code(), Code::Cancelled);
        let outcome = ended_as(Err(status), Duration::from_secs(60));
        assert_eq!((outcome.code, outcome.late), (Code::DeadlineExceeded, true));
    }

    #[test]
    fn a_refusal_is_never_late_and_tells_whether_it_invites_a_retry() {
        let told = identity::rpc::status::overloaded(Duration::from_secs(1));
        let untold = Status::resource_exhausted("no more");
        for (status, retry_after) in [(told, Some(Duration::from_secs(1))), (untold, None)] {
            let outcome = ended_as(Err(status), Duration::from_millis(500));
            assert_eq!((outcome.late, outcome.retry_after), (false, retry_after));
        }
    }
}
