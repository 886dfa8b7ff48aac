//! The users that the load comes from, each the owner of a tenant of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use identity::proto::v1::{LoginRequest, RegisterRequest};
use identity::rpc::status::code_name;
use tokio::time::sleep;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use crate::calls::retry_delay;
use crate::target::{Client, Connections};

/// The password of all of them.
pub(crate) const PASSWORD: &str = "nine green bottles of load";

/// How many are registered at once: enough to keep every core hashing, and far from a full queue.
const AT_ONCE: usize = 8;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How often a user is tried while the service asks for another try, as it does while it starts.
const TRIES: usize = 10;

/// A user with a session.
pub(crate) struct User {
    pub(crate) email: String,
    /// The access token as the metadata `authorization` wants it.
    pub(crate) bearer: MetadataValue<Ascii>,
}

/// A user could neither be registered nor logged in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoUser {
    #[error("{email} was answered {}: {}", code_name(.status.code()), .status.message())]
    Refused { email: String, status: Box<Status> },
    #[error("{email} got an access token that cannot be sent")]
    Token { email: String },
}

/// Registers `load-0@tenant-0.example` and so on, or logs those in who are there already.
pub(crate) async fn enrol(connections: &Connections, number: u32) -> Result<Arc<[User]>, NoUser> {
    let users: Vec<_> = stream::iter(0..number)
        .map(|index| user(connections.client(index.into()), index))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(users.into())
}

async fn user(mut client: Client, index: u32) -> Result<User, NoUser> {
    let email = format!("load-{index}@tenant-{index}.example");
    let mut answer = session(&mut client, &email, index).await;
    for _ in 1..TRIES {
        let Some(delay) = answer.as_ref().err().and_then(retry_delay) else { break };
        sleep(delay).await;
        answer = session(&mut client, &email, index).await;
    }
    match answer.map(|token| format!("Bearer {token}").parse()) {
        Ok(Ok(bearer)) => Ok(User { email, bearer }),
        Ok(Err(_)) => Err(NoUser::Token { email }),
        Err(status) => Err(NoUser::Refused { email, status: Box::new(status) }),
    }
}

/// An access token for the user. The login comes first: a service tells one source of few e-mails that are
/// taken.
async fn session(client: &mut Client, email: &str, index: u32) -> Result<String, Status> {
    let login = LoginRequest { email: email.to_owned(), password: PASSWORD.to_owned() };
    match client.login(patient(login)).await {
        Err(status) if status.code() == Code::Unauthenticated => {}
        outcome => return Ok(outcome?.into_inner().access_token),
    }
    let registration = RegisterRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        first_name: "Load".to_owned(),
        last_name: index.to_string(),
        tenant_name: format!("Tenant {index}"),
        request_id: String::new(),
    };
    Ok(client.register(patient(registration)).await?.into_inner().access_token)
}

fn patient<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}
