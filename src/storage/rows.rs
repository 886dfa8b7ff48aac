//! Rows as the queries return them, and the way from there to the domain.

use diesel::Queryable;

use super::columns::{DbId, DbInstant};
use super::error::StorageError;
use super::schema::{tenants, users};
use crate::domain::{
    Email, PasswordHash, PasswordScheme, PersonName, Role, Tenant, TenantName, User, UserState,
};

/// What a query selects to read a [`TenantRow`].
pub(super) const TENANT: (
    tenants::id,
    tenants::name,
    tenants::version,
    tenants::created_at,
    tenants::updated_at,
) = (tenants::id, tenants::name, tenants::version, tenants::created_at, tenants::updated_at);

#[derive(Queryable)]
pub(super) struct TenantRow {
    id: DbId,
    name: String,
    version: i64,
    created_at: DbInstant,
    updated_at: DbInstant,
}

/// What a query selects to read a [`UserRow`].
pub(super) const USER: (
    users::id,
    users::email,
    users::first_name,
    users::last_name,
    users::role,
    users::state,
    users::version,
    users::created_at,
    users::updated_at,
) = (
    users::id,
    users::email,
    users::first_name,
    users::last_name,
    users::role,
    users::state,
    users::version,
    users::created_at,
    users::updated_at,
);

#[derive(Queryable)]
pub(super) struct UserRow {
    id: DbId,
    email: String,
    first_name: String,
    last_name: String,
    role: String,
    state: String,
    version: i64,
    created_at: DbInstant,
    updated_at: DbInstant,
}

#[derive(Queryable)]
pub(super) struct PasswordRow {
    scheme: String,
    hash: String,
}

/// The domain's value of a stored one, or which column makes no sense.
pub(super) fn sense<T>(column: &str, value: Option<T>) -> Result<T, StorageError> {
    value.ok_or_else(|| StorageError::Corrupt(format!("{column} breaks the rule of its column")))
}

pub(super) fn role(name: &str) -> Result<Role, StorageError> {
    sense("users.role", Role::from_name(name))
}

pub(super) fn state(name: &str) -> Result<UserState, StorageError> {
    sense("users.state", UserState::from_name(name))
}

impl TenantRow {
    pub(super) fn into_tenant(self) -> Result<Tenant, StorageError> {
        Ok(Tenant {
            id: self.id.into(),
            name: sense("tenants.name", TenantName::parse_stored(&self.name).ok())?,
            version: self.version,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
        })
    }
}

impl UserRow {
    pub(super) fn into_user(self, tenant: TenantRow) -> Result<User, StorageError> {
        self.into_user_of(tenant.into_tenant()?)
    }

    pub(super) fn into_user_of(self, tenant: Tenant) -> Result<User, StorageError> {
        Ok(User {
            id: self.id.into(),
            tenant,
            email: sense("users.email", Email::parse_existing(&self.email).ok())?,
            first_name: sense("users.first_name", PersonName::parse_stored(&self.first_name).ok())?,
            last_name: sense("users.last_name", PersonName::parse_stored(&self.last_name).ok())?,
            role: role(&self.role)?,
            state: state(&self.state)?,
            version: self.version,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
        })
    }
}

impl PasswordRow {
    pub(super) fn into_hash(self) -> Result<PasswordHash, StorageError> {
        let scheme = sense("passwords.scheme", PasswordScheme::from_name(&self.scheme))?;
        Ok(PasswordHash { scheme, text: self.hash })
    }
}
