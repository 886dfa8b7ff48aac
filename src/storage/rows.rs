//! Rows as the queries read and write them, and the way between there and the domain.
#![allow(missing_docs, reason = "the columns are described in migrations/")]

use diesel::pg::Pg;
use diesel::{AsChangeset, Insertable, Queryable, Selectable};

use super::columns::{DbId, DbInstant};
use super::error::StorageError;
use super::schema::{all_tenants, tenants, users};
use crate::domain::{
    Email, ExternalId, PasswordHash, PasswordScheme, PersonName, Profile, Role, Tenant, TenantName, User,
    UserState,
};

/// A tenant as it is stored, if it is not deleted.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = tenants)]
pub struct TenantRow {
    pub id: DbId,
    pub name: String,
    pub version: i64,
    pub created_at: DbInstant,
    pub updated_at: DbInstant,
}

/// A tenant as it is written: to the table behind the view. A row in which nothing is left to the database's
/// default has one text, which stays prepared.
#[derive(AsChangeset, Insertable)]
#[diesel(table_name = all_tenants, treat_none_as_default_value = false)]
pub(super) struct WrittenTenant {
    id: DbId,
    name: String,
    version: i64,
    #[diesel(skip_update)]
    created_at: DbInstant,
    updated_at: DbInstant,
}

/// A user as it is stored. Nothing is left to a default, as in a tenant that is written.
#[derive(AsChangeset, Clone, Insertable, Queryable, Selectable)]
#[diesel(table_name = users, primary_key(tenant_id, id), treat_none_as_default_value = false)]
pub struct UserRow {
    pub tenant_id: DbId,
    pub id: DbId,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    #[diesel(treat_none_as_null = true)]
    pub external_id: Option<String>,
    pub role: String,
    pub state: String,
    pub version: i64,
    #[diesel(skip_update)]
    pub created_at: DbInstant,
    pub updated_at: DbInstant,
}

#[derive(Queryable)]
pub(super) struct PasswordRow {
    scheme: String,
    hash: String,
}

/// What a query selects to read a [`TenantRow`].
pub(super) fn tenant_columns() -> <TenantRow as Selectable<Pg>>::SelectExpression {
    <TenantRow as Selectable<Pg>>::construct_selection()
}

/// What a query selects to read a [`UserRow`].
pub(super) fn user_columns() -> <UserRow as Selectable<Pg>>::SelectExpression {
    <UserRow as Selectable<Pg>>::construct_selection()
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

impl WrittenTenant {
    pub(super) fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.into(),
            name: tenant.name.as_str().to_owned(),
            version: tenant.version,
            created_at: tenant.created_at.into(),
            updated_at: tenant.updated_at.into(),
        }
    }
}

impl UserRow {
    pub(super) fn of(user: &User) -> Self {
        Self {
            tenant_id: user.tenant.id.into(),
            id: user.id.into(),
            email: user.profile.email.as_given().to_owned(),
            first_name: user.profile.first_name.as_str().to_owned(),
            last_name: user.profile.last_name.as_str().to_owned(),
            external_id: user.profile.external_id.as_ref().map(|id| id.as_str().to_owned()),
            role: user.role.as_str().to_owned(),
            state: user.state.as_str().to_owned(),
            version: user.version,
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }

    pub(super) fn into_user(self, tenant: TenantRow) -> Result<User, StorageError> {
        self.into_user_of(tenant.into_tenant()?)
    }

    pub(super) fn into_user_of(self, tenant: Tenant) -> Result<User, StorageError> {
        let external_id = self.external_id.as_deref().map(ExternalId::parse);
        Ok(User {
            id: self.id.into(),
            tenant,
            profile: Profile {
                email: sense("users.email", Email::parse_existing(&self.email).ok())?,
                first_name: sense("users.first_name", PersonName::parse_stored(&self.first_name).ok())?,
                last_name: sense("users.last_name", PersonName::parse_stored(&self.last_name).ok())?,
                external_id: sense("users.external_id", external_id.transpose().ok())?,
            },
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
