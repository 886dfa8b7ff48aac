//! Between the wire and the domain: messages in, parsed whole, and messages out.

use secrecy::ExposeSecret as _;

use crate::domain::{
    Email, FieldViolation, Password, PasswordPolicy, PersonName, RequestId, Role, Tenant, TenantName,
    Timestamp, User, UserId, UserState, Violations,
};
use crate::proto::v1;
use crate::service::OpenedSession;
use crate::service::accounts::Registration;

/// A registration whose fields keep all rules.
///
/// # Errors
/// Every violation of every field.
pub(super) fn registration(
    message: v1::RegisterRequest,
    policy: PasswordPolicy,
) -> Result<Registration, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let email = violations.check("email", Email::parse(&message.email));
    let password = violations.check("password", Password::new(message.password));
    let allowed = password.as_ref().map(|password| policy.check(password, email.as_ref()));
    violations.check("password", allowed.unwrap_or(Ok(())));
    let first_name = violations.check("first_name", PersonName::parse(&message.first_name));
    let last_name = violations.check("last_name", PersonName::parse(&message.last_name));
    let tenant_name = violations.check("tenant_name", TenantName::parse(&message.tenant_name));
    let request_id = violations.check("request_id", optional(&message.request_id, RequestId::parse));
    match (email, password, first_name, last_name, tenant_name, request_id) {
        (
            Some(email),
            Some(password),
            Some(first_name),
            Some(last_name),
            Some(tenant_name),
            Some(request_id),
        ) if violations.is_empty() => {
            Ok(Registration { email, password, first_name, last_name, tenant_name, request_id })
        }
        _ => Err(violations.into_vec()),
    }
}

/// The e-mail and the password of a login. The policy is no matter here: it may have been laxer when
/// the password was set.
///
/// # Errors
/// Every violation of every field.
pub(super) fn credentials(message: v1::LoginRequest) -> Result<(Email, Password), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let email = violations.check("email", Email::parse(&message.email));
    let password = violations.check("password", Password::new(message.password));
    match (email, password) {
        (Some(email), Some(password)) => Ok((email, password)),
        _ => Err(violations.into_vec()),
    }
}

/// The user that is asked for; `None` is the caller.
///
/// # Errors
/// The violation of `user_id`.
pub(super) fn wanted_user(message: &v1::GetUserRequest) -> Result<Option<UserId>, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let wanted = violations.check("user_id", optional(&message.user_id, UserId::parse));
    wanted.ok_or_else(|| violations.into_vec())
}

/// `None` for a text that was not given.
fn optional<T, E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn registered(opened: OpenedSession) -> v1::RegisterResponse {
    v1::RegisterResponse {
        access_token: opened.access_token.text.expose_secret().to_owned(),
        access_token_expires_at: Some(timestamp(opened.access_token.expires_at)),
        refresh_token: opened.refresh_token.as_str().to_owned(),
        user: Some(user(opened.user)),
    }
}

pub(super) fn logged_in(opened: OpenedSession) -> v1::LoginResponse {
    let v1::RegisterResponse { user, access_token, access_token_expires_at, refresh_token } =
        registered(opened);
    v1::LoginResponse { user, access_token, access_token_expires_at, refresh_token }
}

pub(super) fn user(user: User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        tenant_id: user.tenant.id.to_string(),
        email: user.email.as_given().to_owned(),
        first_name: user.first_name.as_str().to_owned(),
        last_name: user.last_name.as_str().to_owned(),
        role: role(user.role).into(),
        state: state(user.state).into(),
        created_at: Some(timestamp(user.created_at)),
        updated_at: Some(timestamp(user.updated_at)),
        etag: etag(user.version),
        tenant: Some(tenant(&user.tenant)),
    }
}

fn tenant(tenant: &Tenant) -> v1::Tenant {
    v1::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name.as_str().to_owned(),
        created_at: Some(timestamp(tenant.created_at)),
        updated_at: Some(timestamp(tenant.updated_at)),
        etag: etag(tenant.version),
    }
}

fn role(role: Role) -> v1::Role {
    match role {
        Role::Owner => v1::Role::Owner,
        Role::Admin => v1::Role::Admin,
        Role::Member => v1::Role::Member,
    }
}

fn state(state: UserState) -> v1::UserState {
    match state {
        UserState::Active => v1::UserState::Active,
        UserState::Disabled => v1::UserState::Disabled,
    }
}

/// The version in the form of an entity tag (RFC 9110, 8.8.3): clients compare it and nothing else.
fn etag(version: i64) -> String {
    format!("\"{version:x}\"")
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_unix_seconds(),
        // Below 1,000,000,000, which fits.
        nanos: at.subsecond_nanos().cast_signed(),
    }
}
