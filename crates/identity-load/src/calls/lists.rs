//! Calls that list: as many rows as a caller may ask the service to read.

use std::time::{Duration, Instant};

use identity::proto::v1 as proto;
use tokio::time::sleep;
use tonic::Code;

use super::{Call, Outcome, outcome, request_by};
use crate::target::Connections;
use crate::users::User;

/// After this a list is given up.
const LIST_DEADLINE: Duration = Duration::from_secs(20);

/// What a caller lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Query {
    /// The users whose e-mail begins so, with their number.
    Users(&'static str),
    /// The events of an action that nobody took.
    Events,
}

/// Lists the same again and again.
pub(crate) struct Lists {
    pub(crate) connections: Connections,
    pub(crate) caller: User,
    pub(crate) query: Query,
    /// How long to wait after a refusal before the next call.
    pub(crate) pause: Duration,
}

impl Call for Lists {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + LIST_DEADLINE;
        let outcome = match self.query {
            Query::Users(prefix) => {
                let list = proto::ListUsersRequest {
                    email_prefix: prefix.to_owned(),
                    count_total: true,
                    ..proto::ListUsersRequest::default()
                };
                let list = request_by(&self.caller.bearer, list, deadline);
                outcome(self.connections.directory(index).list_users(list).await, due, deadline)
            }
            Query::Events => {
                let list = proto::ListAuditEventsRequest {
                    actions: vec!["user.disabled".to_owned()],
                    ..proto::ListAuditEventsRequest::default()
                };
                let list = request_by(&self.caller.bearer, list, deadline);
                outcome(self.connections.audit(index).list_audit_events(list).await, due, deadline)
            }
        };
        if outcome.code != Code::Ok {
            sleep(self.pause).await;
        }
        outcome
    }
}
