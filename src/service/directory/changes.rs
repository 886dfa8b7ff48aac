//! Each change of a user or a tenant, in a unit of work: what it demands, what it writes, and the audit event
//! that tells of it.

use std::time::Duration;

use super::super::ServiceError;
use super::super::authority::Authority;
use crate::domain::{
    Action, AuditEvent, Email, Etag, ExternalId, FieldChange, FieldViolation, PasswordHash, PersonName,
    Profile, Role, Target, Tenant, TenantId, TenantName, Timestamp, User, UserId, UserState,
};
use crate::storage;
use crate::storage::tenants::TenantLock;
use crate::storage::users::UserLock;
use crate::storage::{Conn, Inserted, Tx};

/// A user who is to be.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// What is said of the user.
    pub profile: Profile,
    /// What the user may do.
    pub role: Role,
}

/// What is to become different about a user; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChanges {
    /// The login name.
    pub email: Option<Email>,
    /// The given name.
    pub first_name: Option<PersonName>,
    /// The family name.
    pub last_name: Option<PersonName>,
    /// The id in another system; `Some(None)` takes it away.
    pub external_id: Option<Option<ExternalId>>,
    /// What the user may do.
    pub role: Option<Role>,
}

impl UserChanges {
    /// What they lock the tenant for: who owns it is a matter of the tenant.
    pub(super) fn tenant_lock(&self) -> TenantLock {
        let loses_role = self.role.is_some_and(|role| role != Role::Owner);
        if loses_role { TenantLock::Change } else { TenantLock::Keep }
    }

    /// The profile that a user has afterwards.
    fn applied_to(self, old: &Profile) -> Profile {
        Profile {
            email: self.email.unwrap_or_else(|| old.email.clone()),
            first_name: self.first_name.unwrap_or_else(|| old.first_name.clone()),
            last_name: self.last_name.unwrap_or_else(|| old.last_name.clone()),
            external_id: self.external_id.unwrap_or_else(|| old.external_id.clone()),
        }
    }
}

/// What is to become different about a tenant; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct TenantChanges {
    /// What people call it.
    pub name: Option<TenantName>,
}

/// Creates a tenant without users.
///
/// # Errors
/// [`ServiceError::Storage`].
pub async fn create_tenant(
    tx: &mut Tx,
    by: &Authority,
    name: TenantName,
    now: Timestamp,
) -> Result<Tenant, ServiceError> {
    let tenant = Tenant { id: TenantId::generate(now), name, version: 1, created_at: now, updated_at: now };
    storage::tenants::insert(tx, &tenant).await?;
    let event = by.event(now, Some(tenant.id), Action::TenantCreated);
    storage::audit::insert(tx, &tenant_created(event, &tenant)).await?;
    Ok(tenant)
}

/// Creates a user of a tenant, active at once; `None` when the e-mail is taken, and nothing is written.
///
/// # Errors
/// [`ServiceError::TenantNotFound`]; [`ServiceError::RoleTooLow`] when the role is above the caller's;
/// [`ServiceError::FieldInvalid`] when a user gives an external id; [`ServiceError::ExternalIdTaken`].
pub async fn create_user(
    tx: &mut Tx,
    by: &Authority,
    tenant_id: TenantId,
    new: NewUser,
    hash: &PasswordHash,
    now: Timestamp,
) -> Result<Option<User>, ServiceError> {
    let found = storage::tenants::find_locked(tx, tenant_id, TenantLock::Keep).await?;
    let tenant = found.ok_or(ServiceError::TenantNotFound)?;
    require_may_create(by, &new)?;
    let user = User {
        id: UserId::generate(now),
        tenant,
        profile: new.profile,
        role: new.role,
        state: UserState::Active,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    insert_user(tx, &user).await?;
    if storage::logins::insert_name(tx, &user.profile.email, tenant_id, user.id).await? == Inserted::Taken {
        storage::users::delete(tx, tenant_id, &[user.id]).await?;
        return Ok(None);
    }
    storage::logins::insert_password(tx, tenant_id, user.id, hash, now).await?;
    let event = by.event(now, Some(tenant_id), Action::UserCreated);
    storage::audit::insert(tx, &user_created(event, &user)).await?;
    Ok(Some(user))
}

/// Changes a user; `None` when the new e-mail is taken, and nothing is written.
///
/// Another e-mail ends the user's sessions, but for the one that the call is made in. Another role is in force
/// from the next call on.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::EtagStale`]; [`ServiceError::RoleTooLow`]; [`ServiceError::LastOwner`];
/// [`ServiceError::FieldInvalid`] when a user changes the external id; [`ServiceError::ExternalIdTaken`].
pub async fn update_user(
    tx: &mut Tx,
    by: &Authority,
    whose: (UserId, Option<TenantId>),
    etag: Option<&Etag>,
    changes: UserChanges,
    now: Timestamp,
) -> Result<Option<User>, ServiceError> {
    let old = find_user(tx, by, whose, changes.tenant_lock(), UserLock::Change).await?;
    by.require_role(old.role)?;
    if let Some(role) = changes.role {
        by.require_more_than_own()?;
        by.require_role(role)?;
    }
    if changes.email.is_some() {
        by.require_more_than_own()?;
    }
    if changes.external_id.is_some() {
        require_no_user(by, "user.external_id")?;
    }
    require_current(etag, old.version)?;
    let new = User {
        role: changes.role.unwrap_or(old.role),
        profile: changes.applied_to(&old.profile),
        version: old.version + 1,
        updated_at: now.max(old.created_at),
        ..old.clone()
    };
    let differences: Vec<_> = differences(&old, &new).collect();
    if differences.is_empty() {
        return Ok(Some(old));
    }
    if new.role != Role::Owner {
        require_owner_left(tx, &old).await?;
    }
    let (tenant_id, id) = (old.tenant.id, old.id);
    let is_renamed = new.profile.email.as_normalized() != old.profile.email.as_normalized();
    if is_renamed {
        // Before anything is deleted: two who want each other's would wait for each other.
        if storage::users::find_by_email(tx, &new.profile.email).await?.is_some() {
            return Ok(None);
        }
        storage::logins::delete_name(tx, tenant_id, id).await?;
        if storage::logins::insert_name(tx, &new.profile.email, tenant_id, id).await? == Inserted::Taken {
            // Nobody can have taken it meanwhile: it was not free to others before a commit.
            let restored = storage::logins::insert_name(tx, &old.profile.email, tenant_id, id).await?;
            return if restored == Inserted::Yes {
                Ok(None)
            } else {
                Err(ServiceError::Fault("a login name was lost within a transaction".into()))
            };
        }
        let kept = by.own_session(id);
        storage::sessions::update_others_revoked(tx, tenant_id, id, kept, now).await?;
    }
    write_user(tx, &new).await?;
    let event = by.event(now, Some(tenant_id), Action::UserUpdated);
    let event = AuditEvent { target: Some(Target::User(id)), changes: differences, ..event };
    storage::audit::insert(tx, &event).await?;
    Ok(Some(new))
}

/// Lets a user log in and call, or not. Whoever is disabled loses their sessions.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::RoleTooLow`]; [`ServiceError::EtagStale`]; [`ServiceError::LastOwner`].
pub async fn set_user_state(
    tx: &mut Tx,
    by: &Authority,
    whose: (UserId, Option<TenantId>),
    etag: Option<&Etag>,
    state: UserState,
    now: Timestamp,
) -> Result<User, ServiceError> {
    let user = find_user(tx, by, whose, TenantLock::Change, UserLock::Change).await?;
    by.require_role(user.role)?;
    require_current(etag, user.version)?;
    if user.state == state {
        return Ok(user);
    }
    let (tenant_id, id) = (user.tenant.id, user.id);
    let action = match state {
        UserState::Active => Action::UserEnabled,
        UserState::Disabled => {
            require_owner_left(tx, &user).await?;
            storage::sessions::update_others_revoked(tx, tenant_id, id, None, now).await?;
            Action::UserDisabled
        }
    };
    let event = by.event(now, Some(tenant_id), action);
    let changes = FieldChange::between("state", user.state.as_str(), state.as_str());
    let event =
        AuditEvent { target: Some(Target::User(id)), changes: changes.into_iter().collect(), ..event };
    let user = User { state, version: user.version + 1, updated_at: now.max(user.created_at), ..user };
    write_user(tx, &user).await?;
    storage::audit::insert(tx, &event).await?;
    Ok(user)
}

/// Gives a user another password, and ends their sessions.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::RoleTooLow`].
pub async fn set_password(
    tx: &mut Tx,
    by: &Authority,
    whose: (UserId, Option<TenantId>),
    hash: &PasswordHash,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let user = find_user(tx, by, whose, TenantLock::Keep, UserLock::Change).await?;
    by.require_role(user.role)?;
    let (tenant_id, id) = (user.tenant.id, user.id);
    // Later than the last change, whatever this machine's clock says: logins compare the two.
    let before = storage::logins::find_password_changed_at(tx, tenant_id, id).await?;
    let changed_at = before.map_or(now, |before| now.max(before.plus(Duration::from_micros(1))));
    storage::logins::replace_password(tx, tenant_id, id, hash, changed_at).await?;
    storage::sessions::update_others_revoked(tx, tenant_id, id, None, now).await?;
    let event = by.event(now, Some(tenant_id), Action::PasswordSet);
    Ok(storage::audit::insert(tx, &AuditEvent { target: Some(Target::User(id)), ..event }).await?)
}

/// Ends all sessions of a user. Where all have ended already, nothing is written.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::RoleTooLow`].
pub async fn revoke_user_sessions(
    tx: &mut Tx,
    by: &Authority,
    whose: (UserId, Option<TenantId>),
    now: Timestamp,
) -> Result<(), ServiceError> {
    let user = find_user(tx, by, whose, TenantLock::Keep, UserLock::Change).await?;
    by.require_role(user.role)?;
    let (tenant_id, id) = (user.tenant.id, user.id);
    let ended = storage::sessions::update_others_revoked(tx, tenant_id, id, None, now).await?;
    if ended == 0 {
        return Ok(());
    }
    let event = by.event(now, Some(tenant_id), Action::SessionsRevoked);
    let changes = vec![FieldChange::set("sessions_ended", ended.to_string())];
    Ok(storage::audit::insert(tx, &AuditEvent { target: Some(Target::User(id)), changes, ..event }).await?)
}

/// Deletes a user with everything that belongs to them.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::RoleTooLow`]; [`ServiceError::EtagStale`]; [`ServiceError::LastOwner`].
pub async fn delete_user(
    tx: &mut Tx,
    by: &Authority,
    whose: (UserId, Option<TenantId>),
    etag: Option<&Etag>,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let user = find_user(tx, by, whose, TenantLock::Change, UserLock::Delete).await?;
    by.require_role(user.role)?;
    require_current(etag, user.version)?;
    require_owner_left(tx, &user).await?;
    storage::users::delete(tx, user.tenant.id, &[user.id]).await?;
    let event = by.event(now, Some(user.tenant.id), Action::UserDeleted);
    let changes = fields(&user.profile, user.role, user.state)
        .filter_map(|(field, value)| Some(FieldChange::removed(field, value?)))
        .collect();
    let target = Some(Target::User(user.id));
    Ok(storage::audit::insert(tx, &AuditEvent { target, changes, ..event }).await?)
}

/// Changes a tenant.
///
/// # Errors
/// [`ServiceError::TenantNotFound`]; [`ServiceError::EtagStale`].
pub async fn update_tenant(
    tx: &mut Tx,
    by: &Authority,
    id: TenantId,
    etag: Option<&Etag>,
    changes: TenantChanges,
    now: Timestamp,
) -> Result<Tenant, ServiceError> {
    let old = storage::tenants::find_locked(tx, id, TenantLock::Change).await?;
    let old = old.ok_or(ServiceError::TenantNotFound)?;
    require_current(etag, old.version)?;
    let name = changes.name.unwrap_or_else(|| old.name.clone());
    let Some(change) = FieldChange::between("name", old.name.as_str(), name.as_str()) else {
        return Ok(old);
    };
    let new = Tenant { name, version: old.version + 1, updated_at: now.max(old.created_at), ..old };
    storage::tenants::update(tx, &new).await?;
    let event = by.event(now, Some(id), Action::TenantUpdated);
    let event = AuditEvent { target: Some(Target::Tenant(id)), changes: vec![change], ..event };
    storage::audit::insert(tx, &event).await?;
    Ok(new)
}

/// Deletes a tenant with its users and everything that belongs to them. Its audit events stay.
///
/// From the commit on nobody sees anything of it, and its e-mails and ids are free. Its rows are removed
/// afterwards: see [`crate::service::removal`].
///
/// # Errors
/// [`ServiceError::TenantNotFound`]; [`ServiceError::EtagStale`].
pub async fn delete_tenant(
    tx: &mut Tx,
    by: &Authority,
    id: TenantId,
    etag: Option<&Etag>,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let tenant = storage::tenants::find_locked(tx, id, TenantLock::Delete).await?;
    let tenant = tenant.ok_or(ServiceError::TenantNotFound)?;
    require_current(etag, tenant.version)?;
    storage::tenants::delete(tx, id, now).await?;
    let changes = vec![FieldChange::removed("name", tenant.name.as_str())];
    let event = by.event(now, Some(id), Action::TenantDeleted);
    let target = Some(Target::Tenant(id));
    Ok(storage::audit::insert(tx, &AuditEvent { target, changes, ..event }).await?)
}

/// The event of a new tenant.
pub(in crate::service) fn tenant_created(event: AuditEvent, tenant: &Tenant) -> AuditEvent {
    AuditEvent {
        target: Some(Target::Tenant(tenant.id)),
        changes: vec![FieldChange::set("name", tenant.name.as_str())],
        ..event
    }
}

/// The event of a new user.
pub(in crate::service) fn user_created(event: AuditEvent, user: &User) -> AuditEvent {
    AuditEvent {
        target: Some(Target::User(user.id)),
        changes: all_set(&user.profile, user.role, user.state),
        ..event
    }
}

/// Finds the user that a change is about, locked behind their tenant.
///
/// # Errors
/// [`ServiceError::UserNotFound`] when the caller reaches no such user, whether or not there is one elsewhere;
/// [`ServiceError::FieldInvalid`] when several tenants have a user of that id and none was named;
/// [`ServiceError::RoleTooLow`] when the caller reaches only themselves.
async fn find_user(
    tx: &mut Tx,
    by: &Authority,
    (id, tenant_id): (UserId, Option<TenantId>),
    tenant_lock: TenantLock,
    user_lock: UserLock,
) -> Result<User, ServiceError> {
    let tenant_id = tenant_of(tx, by, id, tenant_id).await?;
    // A user's authority came with these locks: see `Service::authorize_change`.
    if !by.is_user() {
        let tenant = storage::tenants::find_locked(tx, tenant_id, tenant_lock).await?;
        tenant.ok_or(ServiceError::UserNotFound)?;
        storage::users::lock(tx, tenant_id, id, user_lock).await?;
    }
    let user = storage::users::find(tx, tenant_id, id).await?.ok_or(ServiceError::UserNotFound)?;
    by.require_reach(id)?;
    Ok(user)
}

/// The tenant in which a caller finds the user `id`, if there is one.
pub(super) async fn tenant_of(
    conn: &mut Conn,
    by: &Authority,
    id: UserId,
    named: Option<TenantId>,
) -> Result<TenantId, ServiceError> {
    match (by.bound_to(), named) {
        (Some(own), Some(named)) if own != named => return Err(ServiceError::UserNotFound),
        (Some(tenant_id), _) | (None, Some(tenant_id)) => return Ok(tenant_id),
        (None, None) => {}
    }
    find_anywhere(conn, id).await.map(|user| user.tenant.id)
}

/// Finds the one user of an id, of whatever tenant.
///
/// # Errors
/// [`ServiceError::UserNotFound`]; [`ServiceError::FieldInvalid`] when several tenants have one.
pub(in crate::service) async fn find_anywhere(conn: &mut Conn, id: UserId) -> Result<User, ServiceError> {
    let mut found = storage::users::list_by_id(conn, id).await?;
    match (found.pop(), found.pop()) {
        (Some(user), None) => Ok(user),
        (None, _) => Err(ServiceError::UserNotFound),
        // Only users who brought their ids along can have the same one.
        (Some(_), Some(_)) => Err(ServiceError::FieldInvalid(FieldViolation {
            field: "tenant_id",
            description: "must be given, since several tenants have a user of that id".to_owned(),
        })),
    }
}

/// Refuses a new user whom the caller may not create.
///
/// # Errors
/// [`ServiceError::RoleTooLow`]; [`ServiceError::FieldInvalid`] when a user gives an external id.
pub(super) fn require_may_create(by: &Authority, new: &NewUser) -> Result<(), ServiceError> {
    by.require_role(new.role)?;
    if new.profile.external_id.is_some() { require_no_user(by, "external_id") } else { Ok(()) }
}

/// Refuses a field that only services set, when a user does.
fn require_no_user(by: &Authority, field: &'static str) -> Result<(), ServiceError> {
    if !by.is_user() {
        return Ok(());
    }
    let description = "can be set by services only".to_owned();
    Err(ServiceError::FieldInvalid(FieldViolation { field, description }))
}

/// Adds a user, without a login name and a password.
///
/// # Errors
/// [`ServiceError::ExternalIdTaken`], after which the transaction is of no use any more.
pub(in crate::service) async fn insert_user(tx: &mut Tx, user: &User) -> Result<(), ServiceError> {
    match storage::users::insert(tx, user).await? {
        Inserted::Yes => Ok(()),
        Inserted::Taken => Err(ServiceError::ExternalIdTaken),
    }
}

/// Writes what has changed about a user.
///
/// # Errors
/// As [`insert_user`].
async fn write_user(tx: &mut Tx, user: &User) -> Result<(), ServiceError> {
    match storage::users::update(tx, user).await? {
        Inserted::Yes => Ok(()),
        Inserted::Taken => Err(ServiceError::ExternalIdTaken),
    }
}

fn require_current(etag: Option<&Etag>, version: i64) -> Result<(), ServiceError> {
    if etag.is_none_or(|etag| etag.is_of(version)) { Ok(()) } else { Err(ServiceError::EtagStale) }
}

/// Refuses to take the last active owner away from a tenant, which is locked.
async fn require_owner_left(tx: &mut Tx, user: &User) -> Result<(), ServiceError> {
    let is_owner = user.role == Role::Owner && user.state == UserState::Active;
    if !is_owner || storage::users::find_other_owner(tx, user.tenant.id, user.id).await? {
        return Ok(());
    }
    Err(ServiceError::LastOwner)
}

/// What the audit log says of a user.
fn fields(
    profile: &Profile,
    role: Role,
    state: UserState,
) -> impl Iterator<Item = (&'static str, Option<&str>)> {
    profile.fields().into_iter().chain([("role", Some(role.as_str())), ("state", Some(state.as_str()))])
}

/// What the audit log says of a new user.
pub(in crate::service) fn all_set(profile: &Profile, role: Role, state: UserState) -> Vec<FieldChange> {
    let set = |(field, value): (_, Option<_>)| Some(FieldChange::set(field, value?));
    fields(profile, role, state).filter_map(set).collect()
}

fn differences(old: &User, new: &User) -> impl Iterator<Item = FieldChange> {
    let old = fields(&old.profile, old.role, old.state);
    let new = fields(&new.profile, new.role, new.state);
    old.zip(new).filter_map(|((field, old), (_, new))| FieldChange::between(field, old, new))
}
