//! Between the wire and the domain: messages in, parsed whole, and messages out.

pub(super) mod audit;
pub(super) mod directory;

use secrecy::ExposeSecret as _;

use crate::domain::{
    Email, Etag, FieldViolation, Page, PageSize, Password, PasswordPolicy, PersonName, Profile, RequestId,
    Role, SessionId, Tenant, TenantId, TenantName, Timestamp, User, UserId, UserState, Violations,
};
use crate::proto::v1;
use crate::service::accounts::Registration;
use crate::service::{OpenedSession, OwnSession, VerifiedToken};

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
            let profile = Profile { email, first_name, last_name, external_id: None };
            Ok(Registration { profile, password, tenant_name, request_id })
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
    let email = violations.check("email", Email::parse_existing(&message.email));
    let password = violations.check("password", Password::new(message.password));
    match (email, password) {
        (Some(email), Some(password)) => Ok((email, password)),
        _ => Err(violations.into_vec()),
    }
}

/// The user that is asked for, and of which tenant; without a user, the caller is.
///
/// # Errors
/// Every violation of either field.
pub(super) fn wanted_user(
    message: v1::GetUserRequest,
) -> Result<(Option<UserId>, Option<TenantId>), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let user = violations.check("user_id", optional(&message.user_id, UserId::parse));
    let tenant = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    user.zip(tenant).ok_or_else(|| violations.into_vec())
}

/// The size of the page that is asked for, and the token of the page, unless it is the first.
///
/// # Errors
/// The violation of `page_size`. What the token is good for, the service knows.
pub(super) fn page(
    message: v1::ListSessionsRequest,
) -> Result<(PageSize, Option<String>), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let size = page_size(&mut violations, message.page_size);
    let token = Some(message.page_token).filter(|token| !token.is_empty());
    size.map(|size| (size, token)).ok_or_else(|| violations.into_vec())
}

fn page_size(violations: &mut Violations, requested: i32) -> Option<PageSize> {
    violations.check("page_size", PageSize::requested(requested))
}

/// The session that is to end.
///
/// # Errors
/// The violation of `session_id`.
pub(super) fn session_id(message: v1::RevokeSessionRequest) -> Result<SessionId, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let id = violations.check("session_id", SessionId::parse(&message.session_id));
    id.ok_or_else(|| violations.into_vec())
}

/// The current password, which may break today's policy, and the new one, which may not.
///
/// # Errors
/// Every violation of either field; but that the new one must not be the user's e-mail, the service finds.
pub(super) fn passwords(
    message: v1::ChangePasswordRequest,
    policy: PasswordPolicy,
) -> Result<(Password, Password), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let current = violations.check("current_password", Password::new(message.current_password));
    let new = violations.check("new_password", Password::new(message.new_password));
    let allowed = new.as_ref().map_or(Ok(()), |new| policy.check(new, None));
    let allowed = violations.check("new_password", allowed);
    match (current, new, allowed) {
        (Some(current), Some(new), Some(())) => Ok((current, new)),
        _ => Err(violations.into_vec()),
    }
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

pub(super) fn refreshed(opened: OpenedSession) -> v1::RefreshSessionResponse {
    let v1::RegisterResponse { user: _, access_token, access_token_expires_at, refresh_token } =
        registered(opened);
    v1::RefreshSessionResponse { access_token, access_token_expires_at, refresh_token }
}

pub(super) fn sessions(page: Page<OwnSession>) -> v1::ListSessionsResponse {
    let session = |own: OwnSession| v1::Session {
        id: own.session.id.to_string(),
        device: own.session.opened_by.device.map(|device| device.as_str().to_owned()).unwrap_or_default(),
        address: own.session.opened_by.address.map(|address| address.to_string()).unwrap_or_default(),
        created_at: Some(timestamp(own.session.created_at)),
        last_used_at: Some(timestamp(own.session.last_used_at)),
        expires_at: Some(timestamp(own.ends_at)),
        current: own.is_current,
    };
    v1::ListSessionsResponse {
        sessions: page.entries.into_iter().map(session).collect(),
        next_page_token: page.next.unwrap_or_default(),
    }
}

pub(super) fn verified(token: VerifiedToken) -> v1::VerifyTokenResponse {
    let claims = token.claims;
    v1::VerifyTokenResponse {
        active: true,
        user_id: claims.user_id.to_string(),
        tenant_id: claims.tenant_id.to_string(),
        session_id: claims.session_id.to_string(),
        role: role(token.role).into(),
        issued_at: Some(timestamp(claims.issued_at)),
        expires_at: Some(timestamp(claims.expires_at)),
        issuer: token.issuer,
        audience: token.audience,
        token_id: claims.token_id.to_string(),
    }
}

pub(super) fn user(user: User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        tenant_id: user.tenant.id.to_string(),
        email: user.profile.email.as_given().to_owned(),
        first_name: user.profile.first_name.as_str().to_owned(),
        last_name: user.profile.last_name.as_str().to_owned(),
        role: role(user.role).into(),
        state: state(user.state).into(),
        created_at: Some(timestamp(user.created_at)),
        updated_at: Some(timestamp(user.updated_at)),
        etag: Etag::of(user.version).into_string(),
        tenant: Some(tenant(&user.tenant)),
        external_id: user.profile.external_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
    }
}

pub(super) fn tenant(tenant: &Tenant) -> v1::Tenant {
    v1::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name.as_str().to_owned(),
        created_at: Some(timestamp(tenant.created_at)),
        updated_at: Some(timestamp(tenant.updated_at)),
        etag: Etag::of(tenant.version).into_string(),
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

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_unix_seconds(),
        // Below 1,000,000,000, which fits.
        nanos: at.subsecond_nanos().cast_signed(),
    }
}
