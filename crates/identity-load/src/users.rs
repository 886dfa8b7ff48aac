//! The users that the load comes from, each the owner of a tenant of its own but for those of a large one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use identity::proto::v1::{LoginRequest, LoginResponse, RegisterRequest, RegisterResponse};
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

/// The name of the tenant of many users that [`crate::import_file`] makes.
pub(crate) const LARGE: &str = "large";

/// A user with a session.
#[derive(Clone)]
pub(crate) struct User {
    /// The id; empty of a user without a session.
    pub(crate) id: String,
    /// That of the user's tenant.
    pub(crate) tenant_id: String,
    pub(crate) email: String,
    pub(crate) refresh_token: String,
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
    let emails = (0..number).map(|index| format!("load-{index}@tenant-{index}.example"));
    enrol_all(connections, emails.collect()).await
}

/// Registers those users, or logs those in who are there already.
pub(crate) async fn enrol_all(connections: &Connections, emails: Vec<String>) -> Result<Arc<[User]>, NoUser> {
    let users: Vec<_> = stream::iter((0..).zip(emails))
        .map(|(index, email)| user(connections.client(index.into()), email, index))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(users.into())
}

async fn user(mut client: Client, email: String, index: u32) -> Result<User, NoUser> {
    let mut answer = session(&mut client, &email, index).await;
    for _ in 1..TRIES {
        let Some(delay) = answer.as_ref().err().and_then(retry_delay) else { break };
        sleep(delay).await;
        answer = session(&mut client, &email, index).await;
    }
    opened(email, answer)
}

/// The user whose session was opened.
fn opened(email: String, answer: Result<Session, Status>) -> Result<User, NoUser> {
    match answer {
        Ok(Session { user, access_token, refresh_token }) => {
            let Ok(bearer) = format!("Bearer {access_token}").parse() else {
                return Err(NoUser::Token { email });
            };
            let user = user.unwrap_or_default();
            let tenant_id = user.tenant_id;
            Ok(User { id: user.id, tenant_id, email, refresh_token, bearer })
        }
        Err(status) => Err(NoUser::Refused { email, status: Box::new(status) }),
    }
}

/// Logs the user of a part in the large tenant in: `owner` or `member`.
pub(crate) async fn of_large_tenant(connections: &Connections, part: &str) -> Result<User, NoUser> {
    let email = format!("{part}@{LARGE}.example");
    let login = LoginRequest { email: email.clone(), password: PASSWORD.to_owned() };
    let answer = connections.client(0).login(patient(login)).await;
    opened(email, answer.map(|answer| answer.into_inner().into()))
}

/// What opens a session.
struct Session {
    user: Option<identity::proto::v1::User>,
    access_token: String,
    refresh_token: String,
}

impl From<LoginResponse> for Session {
    fn from(answer: LoginResponse) -> Self {
        let LoginResponse { user, access_token, refresh_token, .. } = answer;
        Self { user, access_token, refresh_token }
    }
}

impl From<RegisterResponse> for Session {
    fn from(answer: RegisterResponse) -> Self {
        let RegisterResponse { user, access_token, refresh_token, .. } = answer;
        Self { user, access_token, refresh_token }
    }
}

/// E-mails that nobody has, other ones in each run.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    domain: String,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { domain: format!("d{:x}.example", RandomState::new().hash_one(0)) }
    }

    /// The e-mail with that number.
    pub(crate) fn email(&self, index: u64) -> String {
        format!("somebody-{index}@{}", self.domain)
    }

    /// As [`Names::email`], all of one domain that is the same in each run.
    pub(crate) fn of_domain(domain: &str) -> Self {
        Self { domain: domain.to_owned() }
    }
}

/// A session for the user. The login comes first: a service tells one source of few e-mails that are
/// taken.
async fn session(client: &mut Client, email: &str, index: u32) -> Result<Session, Status> {
    let login = LoginRequest { email: email.to_owned(), password: PASSWORD.to_owned() };
    match client.login(patient(login)).await {
        Err(status) if status.code() == Code::Unauthenticated => {}
        outcome => return Ok(outcome?.into_inner().into()),
    }
    let registration = RegisterRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        first_name: "Load".to_owned(),
        last_name: index.to_string(),
        tenant_name: format!("Tenant {index}"),
        request_id: String::new(),
    };
    Ok(client.register(patient(registration)).await?.into_inner().into())
}

fn patient<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}
