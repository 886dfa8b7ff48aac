//! Calls by those who are not connected yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::proto::v1::GetUserRequest;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use tonic::transport::{Channel, Error};
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Call, Outcome, outcome, request, request_by};
use crate::target::{Target, pick};
use crate::users::User;

/// After this newcomers give up, the time to connect included.
const NEWCOMER_DEADLINE: Duration = Duration::from_secs(5);

/// Connects for each call, and makes it.
pub(crate) struct Newcomers {
    pub(crate) target: Target,
    pub(crate) users: Arc<[User]>,
    pub(crate) errand: Errand,
}

/// What newcomers come for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    /// A user who looks themselves up.
    Lookup,
    /// A probe that asks whether the service serves.
    Health,
}

impl Newcomers {
    async fn connect(&self) -> Result<Channel, Error> {
        self.target.endpoint(None)?.connect().await
    }
}

impl Call for Newcomers {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + NEWCOMER_DEADLINE;
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => {
                let away: Result<Response<()>, _> = Err(Status::unavailable(error.to_string()));
                return outcome(away, due, deadline);
            }
        };
        match self.errand {
            Errand::Lookup => {
                let lookup =
                    request_by(&pick(&self.users, index).bearer, GetUserRequest::default(), deadline);
                outcome(IdentityServiceClient::new(channel).get_user(lookup).await, due, deadline)
            }
            Errand::Health => {
                let check = request(HealthCheckRequest::default(), deadline);
                outcome(HealthClient::new(channel).check(check).await, due, deadline)
            }
        }
    }
}
