//! Calls that write: sessions that go on, users who change, users who come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use identity::proto::v1 as proto;
use prost_types::FieldMask;

use super::{Call, Outcome, outcome, request, request_by};
use crate::target::{Connections, pick};
use crate::users::{Names, PASSWORD, User};

/// After this a write is given up.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Lets one user's session after the other go on.
pub(crate) struct Refreshes {
    connections: Connections,
    /// The refresh token of each user that was handed out last.
    tokens: Vec<Mutex<String>>,
}

impl Refreshes {
    pub(crate) fn new(connections: Connections, users: &[User]) -> Self {
        let tokens = users.iter().map(|user| Mutex::new(user.refresh_token.clone())).collect();
        Self { connections, tokens }
    }
}

impl Call for Refreshes {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + WRITE_DEADLINE;
        let token = pick(&self.tokens, index);
        let refresh_token = token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refresh = request(proto::RefreshSessionRequest { refresh_token }, deadline);
        let answer = self.connections.client(index).refresh_session(refresh).await;
        if let Ok(answer) = &answer {
            // One who asks twice at once gets the same successor twice.
            *token.lock().unwrap_or_else(PoisonError::into_inner) = answer.get_ref().refresh_token.clone();
        }
        outcome(answer, due, deadline)
    }
}

/// Lets one user after the other change their own first name.
pub(crate) struct Renames {
    pub(crate) connections: Connections,
    pub(crate) users: Arc<[User]>,
    /// What the name begins with; the number of the call follows.
    pub(crate) name: String,
}

impl Call for Renames {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + WRITE_DEADLINE;
        let user = pick(&self.users, index);
        let first_name = format!("{}{index}", self.name);
        let update = proto::UpdateUserRequest {
            user: Some(proto::User { id: user.id.clone(), first_name, ..proto::User::default() }),
            update_mask: Some(FieldMask { paths: vec!["first_name".to_owned()] }),
            ..proto::UpdateUserRequest::default()
        };
        let update = request_by(&user.bearer, update, deadline);
        outcome(self.connections.directory(index).update_user(update).await, due, deadline)
    }
}

/// Registers one new user after the other.
pub(crate) struct Registrations {
    pub(crate) connections: Connections,
    pub(crate) names: Names,
}

impl Call for Registrations {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + WRITE_DEADLINE;
        let registration = proto::RegisterRequest {
            email: self.names.email(index),
            password: PASSWORD.to_owned(),
            first_name: "Load".to_owned(),
            last_name: index.to_string(),
            tenant_name: format!("Newcomer {index}"),
            request_id: String::new(),
        };
        let answer = self.connections.client(index).register(request(registration, deadline)).await;
        outcome(answer, due, deadline)
    }
}
