//! The messages of `identity.v1.DirectoryService`.

use prost_types::FieldMask;

use super::{optional, page_size, tenant, user};
use crate::domain::{
    Email, EmailPrefix, Etag, ExternalId, FieldViolation, Order, Page, Password, PasswordPolicy, PersonName,
    Profile, Role, Tenant, TenantId, TenantName, Timestamp, User, UserId, UserState, Violations,
};
use crate::proto::v1;
use crate::service::directory::{Counted, NewUser, PageQuery, TenantChanges, Total, UserChanges, UserQuery};

/// A user by his id, and by his tenant where that is named.
type Whose = (UserId, Option<TenantId>);

/// The most users that are found at once.
const MAX_BATCH: usize = 1_000;

/// The tenant, the user that is to be, and his password.
///
/// # Errors
/// Every violation of every field.
pub(in crate::rpc) fn new_user(
    message: v1::CreateUserRequest,
    policy: PasswordPolicy,
) -> Result<(Option<TenantId>, NewUser, Password), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    let email = violations.check("email", Email::parse(&message.email));
    let password = violations.check("password", Password::new(message.password));
    let allowed = password.as_ref().map(|password| policy.check(password, email.as_ref()));
    violations.check("password", allowed.unwrap_or(Ok(())));
    let first_name = violations.check("first_name", PersonName::parse(&message.first_name));
    let last_name = violations.check("last_name", PersonName::parse(&message.last_name));
    let role = violations.check("role", role(message.role));
    let external_id = violations.check("external_id", optional(&message.external_id, ExternalId::parse));
    match (tenant, email, password, first_name, last_name, role, external_id) {
        (
            Some(tenant),
            Some(email),
            Some(password),
            Some(first_name),
            Some(last_name),
            Some(role),
            Some(external_id),
        ) if violations.is_empty() => {
            let profile = Profile { email, first_name, last_name, external_id };
            Ok((tenant, NewUser { profile, role: role.unwrap_or(Role::Member) }, password))
        }
        _ => Err(violations.into_vec()),
    }
}

/// Who is to change under which etag, how, and the caller's password.
type UserUpdate = (Whose, Option<Etag>, UserChanges, Option<Password>);

/// The fields of a user that a mask may name.
const USER_FIELDS: &str = "email, first_name, last_name, role and external_id";

/// Whose fields are to change under which etag, and how.
///
/// # Errors
/// Every violation of every field that counts.
pub(in crate::rpc) fn user_update(message: v1::UpdateUserRequest) -> Result<UserUpdate, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let current_password = optional(&message.current_password, |text| Password::new(text.to_owned()));
    let current_password = violations.check("current_password", current_password);
    let user = message.user.unwrap_or_default();
    let id = violations.check("user.id", UserId::parse(&user.id));
    let tenant = violations.check("user.tenant_id", optional(&user.tenant_id, TenantId::parse));
    let mut changes = UserChanges::default();
    let mut is_known = true;
    for path in mask(&mut violations, message.update_mask, USER_FIELDS) {
        match path.as_str() {
            "email" => changes.email = violations.check("user.email", Email::parse(&user.email)),
            "first_name" => {
                changes.first_name = violations.check("user.first_name", PersonName::parse(&user.first_name));
            }
            "last_name" => {
                changes.last_name = violations.check("user.last_name", PersonName::parse(&user.last_name));
            }
            "external_id" => {
                let id = optional(&user.external_id, ExternalId::parse);
                changes.external_id = violations.check("user.external_id", id);
            }
            "role" => {
                let role = role(user.role).and_then(|role| role.ok_or(NO_ROLE));
                changes.role = violations.check("user.role", role);
            }
            _ => is_known = false,
        }
    }
    if !is_known {
        violations.push("update_mask", format!("must name nothing but {USER_FIELDS}"));
    }
    match (id, tenant, current_password) {
        (Some(id), Some(tenant), Some(current_password)) if violations.is_empty() => {
            Ok(((id, tenant), Etag::given(user.etag), changes, current_password))
        }
        _ => Err(violations.into_vec()),
    }
}

/// Which tenant is to change under which etag, and how.
///
/// # Errors
/// Every violation of every field that counts.
pub(in crate::rpc) fn tenant_update(
    message: v1::UpdateTenantRequest,
) -> Result<(Option<TenantId>, Option<Etag>, TenantChanges), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant = message.tenant.unwrap_or_default();
    let id = violations.check("tenant.id", optional(&tenant.id, TenantId::parse));
    let mut changes = TenantChanges::default();
    let mut is_known = true;
    for path in mask(&mut violations, message.update_mask, "name") {
        match path.as_str() {
            "name" => changes.name = violations.check("tenant.name", TenantName::parse(&tenant.name)),
            _ => is_known = false,
        }
    }
    if !is_known {
        violations.push("update_mask", "must name nothing but name");
    }
    match id {
        Some(id) if violations.is_empty() => Ok((id, Etag::given(tenant.etag), changes)),
        _ => Err(violations.into_vec()),
    }
}

/// The paths of a mask, each once; one that names nothing is a violation.
fn mask(violations: &mut Violations, mask: Option<FieldMask>, known: &str) -> Vec<String> {
    let mut paths = mask.unwrap_or_default().paths;
    paths.sort_unstable();
    paths.dedup();
    if paths.is_empty() {
        violations.push("update_mask", format!("must name one or more of {known}"));
    }
    paths
}

/// Whose state is to become which, under which etag.
///
/// # Errors
/// Every violation of every field.
pub(in crate::rpc) fn user_state(
    message: v1::SetUserStateRequest,
) -> Result<(Whose, Option<Etag>, UserState), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let whose = whose(&mut violations, &message.user_id, &message.tenant_id);
    let state = match v1::UserState::try_from(message.state) {
        Ok(v1::UserState::Active) => Ok(UserState::Active),
        Ok(v1::UserState::Disabled) => Ok(UserState::Disabled),
        Ok(v1::UserState::Unspecified) | Err(_) => Err("must be USER_STATE_ACTIVE or USER_STATE_DISABLED"),
    };
    let state = violations.check("state", state);
    match (whose, state) {
        (Some(whose), Some(state)) => Ok((whose, Etag::given(message.etag), state)),
        _ => Err(violations.into_vec()),
    }
}

/// Whose password is to become which.
///
/// # Errors
/// Every violation of every field; but that it must not be the user's e-mail, the service finds.
pub(in crate::rpc) fn new_password(
    message: v1::SetPasswordRequest,
    policy: PasswordPolicy,
) -> Result<(Whose, Password), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let whose = whose(&mut violations, &message.user_id, &message.tenant_id);
    let password = violations.check("new_password", Password::new(message.new_password));
    let allowed = password.as_ref().map_or(Ok(()), |password| policy.check(password, None));
    let allowed = violations.check("new_password", allowed);
    match (whose, password, allowed) {
        (Some(whose), Some(password), Some(())) => Ok((whose, password)),
        _ => Err(violations.into_vec()),
    }
}

/// The user that a request is about.
///
/// # Errors
/// Every violation of either field.
pub(in crate::rpc) fn named_user(user_id: &str, tenant_id: &str) -> Result<Whose, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    whose(&mut violations, user_id, tenant_id).ok_or_else(|| violations.into_vec())
}

/// The user that is to be deleted, under which etag.
///
/// # Errors
/// Every violation of either id.
pub(in crate::rpc) fn user_deletion(
    message: v1::DeleteUserRequest,
) -> Result<(Whose, Option<Etag>), Vec<FieldViolation>> {
    let whose = named_user(&message.user_id, &message.tenant_id)?;
    Ok((whose, Etag::given(message.etag)))
}

fn whose(violations: &mut Violations, user_id: &str, tenant_id: &str) -> Option<Whose> {
    let user = violations.check("user_id", UserId::parse(user_id));
    let tenant = violations.check("tenant_id", optional(tenant_id, TenantId::parse));
    user.zip(tenant)
}

/// The tenant that a request is about, if it says so.
///
/// # Errors
/// The violation of `tenant_id`.
pub(in crate::rpc) fn named_tenant(tenant_id: &str) -> Result<Option<TenantId>, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant = violations.check("tenant_id", optional(tenant_id, TenantId::parse));
    tenant.ok_or_else(|| violations.into_vec())
}

/// The tenant that is to be deleted, under which etag.
///
/// # Errors
/// The violation of `tenant_id`.
pub(in crate::rpc) fn tenant_deletion(
    message: v1::DeleteTenantRequest,
) -> Result<(TenantId, Option<Etag>), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant = violations.check("tenant_id", TenantId::parse(&message.tenant_id));
    let etag = Etag::given(message.etag);
    tenant.map(|tenant| (tenant, etag)).ok_or_else(|| violations.into_vec())
}

/// The tenant and the ids of the users that are asked for.
///
/// # Errors
/// Every violation of either field, one for all ids.
pub(in crate::rpc) fn user_ids(
    message: v1::BatchGetUsersRequest,
) -> Result<(Option<TenantId>, Vec<UserId>), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let ids = match message.user_ids.len() {
        1..=MAX_BATCH => {
            let ids = message.user_ids.iter().map(|id| UserId::parse(id)).collect::<Result<Vec<_>, _>>();
            ids.map_err(|problem| format!("each {problem}"))
        }
        _ => Err(format!("must be 1 to {MAX_BATCH} ids")),
    };
    let ids = violations.check("user_ids", ids);
    let tenant = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    tenant.zip(ids).ok_or_else(|| violations.into_vec())
}

/// The e-mail that is asked for.
///
/// # Errors
/// The violation of `email`.
pub(in crate::rpc) fn email(message: v1::GetUserByEmailRequest) -> Result<Email, Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let email = violations.check("email", Email::parse_existing(&message.email));
    email.ok_or_else(|| violations.into_vec())
}

/// The external id that is asked for, and the tenant where that is named.
///
/// # Errors
/// Every violation of either field.
pub(in crate::rpc) fn external_id(
    message: v1::GetUserByExternalIdRequest,
) -> Result<(Option<TenantId>, ExternalId), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    let id = violations.check("external_id", ExternalId::parse(&message.external_id));
    tenant.zip(id).ok_or_else(|| violations.into_vec())
}

/// Which users are to be listed, and which page of them.
///
/// # Errors
/// Every violation of every field. What the page token is good for, the service knows.
pub(in crate::rpc) fn user_query(
    message: v1::ListUsersRequest,
) -> Result<(UserQuery, PageQuery, Total), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant_id = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    let size = page_size(&mut violations, message.page_size);
    let prefix = violations.check("email_prefix", optional(&message.email_prefix, EmailPrefix::parse));
    let role = violations.check("role", role(message.role));
    let from = time(&mut violations, "created_from", message.created_from);
    let until = time(&mut violations, "created_until", message.created_until);
    let order = match v1::UserOrder::try_from(message.order) {
        Ok(v1::UserOrder::Unspecified | v1::UserOrder::NewestFirst) => Ok(Order::NewestFirst),
        Ok(v1::UserOrder::OldestFirst) => Ok(Order::OldestFirst),
        Err(_) => Err("must be USER_ORDER_NEWEST_FIRST or USER_ORDER_OLDEST_FIRST"),
    };
    let order = violations.check("order", order);
    match (tenant_id, size, prefix, role, from, until, order) {
        (
            Some(tenant_id),
            Some(size),
            Some(email_prefix),
            Some(role),
            Some(created_from),
            Some(created_until),
            Some(order),
        ) => {
            let query = UserQuery { tenant_id, email_prefix, role, created_from, created_until, order };
            Ok((query, page(size, message.page_token), total(message.count_total)))
        }
        _ => Err(violations.into_vec()),
    }
}

/// Which page of the tenants is to be listed.
///
/// # Errors
/// The violation of `page_size`.
pub(in crate::rpc) fn tenant_page(
    message: v1::ListTenantsRequest,
) -> Result<(PageQuery, Total), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let size = page_size(&mut violations, message.page_size).ok_or_else(|| violations.into_vec())?;
    Ok((page(size, message.page_token), total(message.count_total)))
}

pub(super) fn page(size: crate::domain::PageSize, token: String) -> PageQuery {
    PageQuery { size, token: Some(token).filter(|token| !token.is_empty()) }
}

fn total(is_wanted: bool) -> Total {
    if is_wanted { Total::Counted } else { Total::Unasked }
}

const NO_ROLE: &str = "must be ROLE_OWNER, ROLE_ADMIN or ROLE_MEMBER";

/// The role of that number; `None` when none was given.
fn role(number: i32) -> Result<Option<Role>, &'static str> {
    match v1::Role::try_from(number) {
        Ok(v1::Role::Unspecified) => Ok(None),
        Ok(v1::Role::Owner) => Ok(Some(Role::Owner)),
        Ok(v1::Role::Admin) => Ok(Some(Role::Admin)),
        Ok(v1::Role::Member) => Ok(Some(Role::Member)),
        Err(_) => Err(NO_ROLE),
    }
}

/// The years 1 to 9999, which is what a google.protobuf.Timestamp may be, in seconds since the Unix epoch.
const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time, rounded down to the microsecond; `Some(None)` when none was given.
pub(super) fn time(
    violations: &mut Violations,
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Option<Option<Timestamp>> {
    let Some(prost_types::Timestamp { seconds, nanos }) = time else { return Some(None) };
    if !YEARS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        violations.push(field, "must be a time of the years 1 to 9999, with 0 to 999,999,999 nanoseconds");
        return None;
    }
    Some(Some(Timestamp::from_unix_micros(seconds * 1_000_000 + i64::from(nanos / 1_000))))
}

pub(in crate::rpc) fn users(users: Vec<User>) -> Vec<v1::User> {
    users.into_iter().map(user).collect()
}

pub(in crate::rpc) fn user_page((page, total): (Page<User>, Option<Counted>)) -> v1::ListUsersResponse {
    v1::ListUsersResponse {
        users: users(page.entries),
        next_page_token: page.next.unwrap_or_default(),
        total_size: total_size(total),
        total_size_is_estimate: total.is_some_and(|total| total.is_estimate),
    }
}

pub(in crate::rpc) fn tenant_list((page, total): (Page<Tenant>, Option<Counted>)) -> v1::ListTenantsResponse {
    v1::ListTenantsResponse {
        tenants: page.entries.iter().map(tenant).collect(),
        next_page_token: page.next.unwrap_or_default(),
        total_size: total_size(total),
        total_size_is_estimate: total.is_some_and(|total| total.is_estimate),
    }
}

fn total_size(total: Option<Counted>) -> i32 {
    total.map_or(0, |total| i32::try_from(total.number).unwrap_or(i32::MAX))
}
