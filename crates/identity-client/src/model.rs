//! What the service tells, in Rust's types.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use prost_types::Timestamp;
use uuid::Uuid;

use crate::error::Error;
use crate::proto;

/// A person who can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Never changes.
    pub id: Uuid,
    /// The e-mail address as its owner wrote it.
    pub email: String,
    /// The given name.
    pub first_name: String,
    /// The family name.
    pub last_name: String,
    /// The user's id in another system of the company, as a service gave it. Unique within the tenant.
    pub external_id: Option<String>,
    /// What the user may do within the tenant.
    pub role: Role,
    /// Whether the user may log in and call.
    pub is_active: bool,
    /// When the user was created.
    pub created_at: SystemTime,
    /// When the user last changed.
    pub updated_at: SystemTime,
    /// Changes whenever the user does.
    pub etag: String,
    /// Whom the user belongs to.
    pub tenant: Tenant,
}

/// A customer of the company, whose users see only each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tenant {
    /// Never changes.
    pub id: Uuid,
    /// What people call the tenant. Not unique.
    pub name: String,
    /// When the tenant registered.
    pub created_at: SystemTime,
    /// When the tenant last changed.
    pub updated_at: SystemTime,
    /// Changes whenever the tenant does.
    pub etag: String,
}

/// What a user may do within the tenant; a higher one may do all that a lower one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// One that this version of the crate does not know. No token is accepted with it.
    Unknown,
    /// Sees the tenant and its members.
    Member,
    /// Manages members and other admins.
    Admin,
    /// Manages everybody and the tenant itself.
    Owner,
}

/// A tenant with its first user, to be registered. `Debug` does not show the password.
///
/// The rules of each field are in the contract, `proto/identity/v1/identity.proto`.
#[derive(Clone, Default)]
pub struct Registration {
    /// The user's e-mail address.
    pub email: String,
    /// The user's password, taken exactly as it is.
    pub password: String,
    /// The user's given name.
    pub first_name: String,
    /// The user's family name.
    pub last_name: String,
    /// What the tenant is called.
    pub tenant_name: String,
    /// Names this attempt, so that it can be repeated without registering twice. `None`: the client makes
    /// one for each call.
    pub request_id: Option<Uuid>,
}

/// A user with a new session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Login {
    /// Who logged in.
    pub user: User,
    /// What the session is used with.
    pub tokens: Tokens,
}

/// What a session is used with. `Debug` shows nothing of either token.
#[derive(Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// Says who calls: for [`Client::with_user`](crate::Client::with_user), and for any service that
    /// verifies it.
    pub access_token: String,
    /// When the access token expires.
    pub access_token_expires_at: SystemTime,
    /// Gets the next tokens: for [`Client::refresh_session`](crate::Client::refresh_session).
    pub refresh_token: String,
}

/// An open session of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Stands in the session's access tokens, too.
    pub id: Uuid,
    /// The device that the user logged in on, as a service stated it.
    pub device: Option<String>,
    /// The address that the user logged in from, as a service stated it.
    pub address: Option<IpAddr>,
    /// When the user logged in.
    pub created_at: SystemTime,
    /// When the session was last refreshed.
    pub last_used_at: SystemTime,
    /// When the session ends unless it is refreshed before.
    pub expires_at: SystemTime,
    /// Whether it is the one that the call was made in.
    pub is_current: bool,
}

/// Some of a user's sessions, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionPage {
    /// The sessions. May be none on any page.
    pub sessions: Vec<Session>,
    /// Gets the page after this one; `None` when this is the last. It alone tells that.
    pub next_page_token: Option<String>,
}

/// What a valid access token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The user who calls: the claim `sub`.
    pub user_id: Uuid,
    /// The user's tenant: the claim `tid`.
    pub tenant_id: Uuid,
    /// The session that the token belongs to: the claim `sid`.
    pub session_id: Uuid,
    /// The user's role: when the token was issued, if it was verified without asking the service.
    pub role: Role,
    /// When the token was issued.
    pub issued_at: SystemTime,
    /// When the token expires.
    pub expires_at: SystemTime,
    /// Identifies the token: the claim `jti`.
    pub token_id: Uuid,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("email", &self.email)
            .field("tenant_name", &self.tenant_name)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("access_token_expires_at", &self.access_token_expires_at)
            .finish_non_exhaustive()
    }
}

impl From<proto::Role> for Role {
    fn from(role: proto::Role) -> Self {
        match role {
            proto::Role::Unspecified => Self::Unknown,
            proto::Role::Owner => Self::Owner,
            proto::Role::Admin => Self::Admin,
            proto::Role::Member => Self::Member,
        }
    }
}

pub(crate) fn user(user: Option<proto::User>) -> Result<User, Error> {
    let user = user.ok_or_else(|| strange("a user"))?;
    Ok(User {
        role: user.role().into(),
        is_active: user.state() == proto::UserState::Active,
        id: uuid(&user.id)?,
        email: user.email,
        first_name: user.first_name,
        last_name: user.last_name,
        external_id: text(user.external_id),
        created_at: time(user.created_at)?,
        updated_at: time(user.updated_at)?,
        etag: user.etag,
        tenant: tenant(user.tenant)?,
    })
}

fn tenant(tenant: Option<proto::Tenant>) -> Result<Tenant, Error> {
    let tenant = tenant.ok_or_else(|| strange("a tenant"))?;
    Ok(Tenant {
        id: uuid(&tenant.id)?,
        name: tenant.name,
        created_at: time(tenant.created_at)?,
        updated_at: time(tenant.updated_at)?,
        etag: tenant.etag,
    })
}

pub(crate) fn tokens(
    access_token: String,
    expires_at: Option<Timestamp>,
    refresh_token: String,
) -> Result<Tokens, Error> {
    Ok(Tokens { access_token, access_token_expires_at: time(expires_at)?, refresh_token })
}

pub(crate) fn session_page(page: proto::ListSessionsResponse) -> Result<SessionPage, Error> {
    let sessions = page.sessions.into_iter().map(session).collect::<Result<_, _>>()?;
    Ok(SessionPage { sessions, next_page_token: text(page.next_page_token) })
}

fn session(session: proto::Session) -> Result<Session, Error> {
    Ok(Session {
        id: uuid(&session.id)?,
        device: text(session.device),
        address: session.address.parse().ok(),
        created_at: time(session.created_at)?,
        last_used_at: time(session.last_used_at)?,
        expires_at: time(session.expires_at)?,
        is_current: session.current,
    })
}

/// `None` for a token that is not in force.
pub(crate) fn claims(answer: &proto::VerifyTokenResponse) -> Result<Option<Claims>, Error> {
    if !answer.active {
        return Ok(None);
    }
    Ok(Some(Claims {
        user_id: uuid(&answer.user_id)?,
        tenant_id: uuid(&answer.tenant_id)?,
        session_id: uuid(&answer.session_id)?,
        role: answer.role().into(),
        issued_at: time(answer.issued_at)?,
        expires_at: time(answer.expires_at)?,
        token_id: uuid(&answer.token_id)?,
    }))
}

fn uuid(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| strange("an id"))
}

fn time(timestamp: Option<Timestamp>) -> Result<SystemTime, Error> {
    timestamp.and_then(|timestamp| timestamp.try_into().ok()).ok_or_else(|| strange("a time"))
}

/// In the contract, empty means absent.
fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn strange(what: &str) -> Error {
    Error::strange_answer(&format!("the service answered without {what} where one belongs"))
}
