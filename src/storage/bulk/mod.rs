//! Tenants and users by the thousand: what of them is there already, and the insertion of those that are
//! not, a batch at a time.
//!
//! Whatever is decided by what was found holds until the transaction ends on SQLite, which has one writer.
//! On PostgreSQL somebody else may be faster; then nothing is written, and it is to be decided again.

mod postgres;
mod sqlite;

use std::collections::{HashMap, HashSet};

use super::connection::{Conn, query};
use super::error::StorageError;
use super::rows::UserRow;
use super::transaction::Tx;
use crate::domain::{
    AuditEvent, PasswordHash, Profile, Role, Tenant, TenantId, Timestamp, UserId, UserState,
};

/// A user with everything that belongs to it, of version 1.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Whose user it is.
    pub tenant_id: TenantId,
    /// Identifies the user.
    pub id: UserId,
    /// The e-mail becomes the login name as well.
    pub profile: Profile,
    /// What the user may do.
    pub role: Role,
    /// Whether the user may do anything.
    pub state: UserState,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the user last changed; not before `created_at`.
    pub updated_at: Timestamp,
    /// What the password is checked against.
    pub password: PasswordHash,
    /// When the user last got another password.
    pub password_changed_at: Timestamp,
}

/// What is written together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// Written first.
    pub tenants: Vec<Tenant>,
    /// Of these tenants, or of others that are there.
    pub users: Vec<NewUser>,
    /// What is told of it.
    pub events: Vec<AuditEvent>,
}

/// What to look up.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Tenants, each once.
    pub tenants: Vec<TenantId>,
    /// Users, of whatever tenant.
    pub users: Vec<UserId>,
    /// E-mails in normalised form.
    pub emails: Vec<String>,
    /// External ids, with the tenant of each.
    pub external_ids: Vec<(TenantId, String)>,
}

/// A tenant that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTenant {
    /// When it was created, which never changes.
    pub created_at: Timestamp,
    /// Whether any of its users is an owner.
    pub has_owner: bool,
}

/// A user that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownUser {
    /// Whose user it is.
    pub tenant_id: TenantId,
    /// When the user was created, which never changes.
    pub created_at: Timestamp,
    /// The e-mail as it is now.
    pub email: String,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// What is there of what was looked up.
#[derive(Debug, Default)]
pub struct Known {
    /// Tenants.
    pub tenants: HashMap<TenantId, KnownTenant>,
    /// Users of each id: of several tenants, at worst.
    pub users: HashMap<UserId, Vec<KnownUser>>,
    /// E-mails that belong to somebody.
    pub emails: HashSet<String>,
    /// External ids that belong to somebody of the tenant.
    pub external_ids: HashSet<(TenantId, String)>,
}

impl NewUser {
    fn row(&self) -> UserRow {
        UserRow {
            tenant_id: self.tenant_id.into(),
            id: self.id.into(),
            email: self.profile.email.as_given().to_owned(),
            first_name: self.profile.first_name.as_str().to_owned(),
            last_name: self.profile.last_name.as_str().to_owned(),
            external_id: self.profile.external_id.as_ref().map(|id| id.as_str().to_owned()),
            role: self.role.as_str().to_owned(),
            state: self.state.as_str().to_owned(),
            version: 1,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
        }
    }
}

impl Batch {
    /// Brings the users into the order of their ids, which come in no order otherwise: the pages of that
    /// index, which is spread over all tenants, are then met one after the other.
    fn sort(&mut self) {
        self.users.sort_unstable_by_key(|user| user.id);
    }

    /// The users in the order of their login names, for the same reason.
    fn by_login_name(&self) -> Vec<&NewUser> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by_key(|user| user.profile.email.as_normalized());
        users
    }
}

impl Keys {
    /// As [`Batch::sort`].
    fn sort(&mut self) {
        self.tenants.sort_unstable();
        self.users.sort_unstable();
        self.emails.sort_unstable();
        self.external_ids.sort_unstable();
    }
}

/// Whether a batch was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// All of it, once the transaction is committed.
    All,
    /// Another transaction was first with an id, an e-mail or an external id, or has deleted a tenant. This one is of no
    /// use any more: drop it, and look again in another.
    Conflict,
}

/// Finds what is there of `keys`.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_known(conn: &mut Conn, mut keys: Keys) -> Result<Known, StorageError> {
    keys.sort();
    query!(conn,
        postgres: |c| postgres::find_known(c, keys),
        sqlite: |c| c.spawn_blocking(move |c| sqlite::find_known(c, &keys))
    )
}

/// Makes the e-mails of `keys` free that users of deleted tenants have, and returns which of the tenants are
/// themselves deleted: their ids are free once [`super::removal`] has removed their rows.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn make_room(tx: &mut Tx, mut keys: Keys) -> Result<Vec<TenantId>, StorageError> {
    keys.sort();
    query!(tx,
        postgres: |c| postgres::make_room(c, keys),
        sqlite: |c| c.spawn_blocking(move |c| sqlite::make_room(c, &keys))
    )
}

/// Writes a batch.
///
/// # Errors
/// [`StorageError`] when the database fails, or refuses a row by a rule of its columns.
pub async fn insert(tx: &mut Tx, mut batch: Batch) -> Result<Written, StorageError> {
    batch.sort();
    query!(tx,
        postgres: |c| postgres::insert(c, &batch),
        sqlite: |c| c.spawn_blocking(move |c| sqlite::insert(c, &batch))
    )
}
