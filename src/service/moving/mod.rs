//! Moving in and out: tenants and users by the million, from another system or another database, and back.
//!
//! A row goes through three hands: `check` makes domain values of it or says why not, `decide` compares a
//! batch with what is there, [`import()`] writes what is new, with its audit events, in one transaction a
//! batch. A row that cannot go in is refused for itself and stops nobody; what is there is never changed.
//! So an import may be ended anywhere and run again.
//!
//! Where rows come from and where reports go is up to the caller; [`prisma`] reads the old system's.

mod check;
mod decide;
mod export;
mod import;
pub mod prisma;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use uuid::Uuid;

use crate::domain::{PasswordScheme, Timestamp};
use crate::storage::StorageError;

pub use export::{Export, Exported};
pub use import::{ImportTerms, import};

/// What a row tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// A user.
    User,
    /// It does not tell.
    Line,
}

impl Kind {
    /// The word for it: `tenant`, `user` or `line`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Line => "line",
        }
    }
}

/// Why a row is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No JSON object with the fields of a tenant or a user.
    BadLine,
    /// The id is missing, or cannot be one.
    BadId,
    /// The tenant's name.
    BadName,
    /// The e-mail.
    BadEmail,
    /// The given name.
    BadFirstName,
    /// The family name.
    BadLastName,
    /// The external id.
    BadExternalId,
    /// The role.
    BadRole,
    /// The state.
    BadState,
    /// A point in time.
    BadTime,
    /// The password's hash, or its scheme.
    BadPasswordHash,
    /// The tenant is not there: it was refused, or comes later, or not at all.
    UnknownTenant,
    /// Somebody else has the e-mail.
    EmailTaken,
    /// Another user of the tenant has the external id.
    ExternalIdTaken,
    /// Something else has the id.
    DuplicateId,
}

impl Why {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadLine => "bad_line",
            Self::BadId => "bad_id",
            Self::BadName => "bad_name",
            Self::BadEmail => "bad_email",
            Self::BadFirstName => "bad_first_name",
            Self::BadLastName => "bad_last_name",
            Self::BadExternalId => "bad_external_id",
            Self::BadRole => "bad_role",
            Self::BadState => "bad_state",
            Self::BadTime => "bad_time",
            Self::BadPasswordHash => "bad_password_hash",
            Self::UnknownTenant => "unknown_tenant",
            Self::EmailTaken => "email_taken",
            Self::ExternalIdTaken => "external_id_taken",
            Self::DuplicateId => "duplicate_id",
        }
    }
}

/// A row that does not go in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which line of a file, or which row of its table in the order of reading, from 1.
    pub position: u64,
    /// What it tells of.
    pub kind: Kind,
    /// Its id where it comes from, as far as it has one.
    pub id: Option<String>,
    /// Why.
    pub why: Why,
    /// The rule that it breaks, without quoting it.
    pub detail: String,
}

/// A tenant as it comes, unchecked.
#[derive(Clone, Debug, Default)]
pub struct IncomingTenant {
    /// As in [`Refusal`].
    pub position: u64,
    /// A UUID, or whatever the other system has.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
}

/// A user as it comes, unchecked.
#[derive(Clone, Default)]
pub struct IncomingUser {
    /// As in [`Refusal`].
    pub position: u64,
    /// A UUID, or whatever the other system has.
    pub id: Option<String>,
    /// Its tenant's id there.
    pub tenant_id: Option<String>,
    /// The e-mail.
    pub email: Option<String>,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// The user's id in another system of the company, which has it beside `id`.
    pub external_id: Option<String>,
    /// `owner`, `admin` or `member`; where there were no roles, the first user of a tenant that has no
    /// owner becomes it.
    pub role: Option<String>,
    /// `active`, as when there is none, or `disabled`.
    pub state: Option<String>,
    /// When the user was created.
    pub created_at: Option<Timestamp>,
    /// When the user last changed.
    pub updated_at: Option<Timestamp>,
    /// The hash of the password.
    pub password_hash: Option<String>,
    /// How it was computed, where its notation does not tell.
    pub password_scheme: Option<PasswordScheme>,
    /// When the user last got another password; when the user last changed, where that is not known.
    pub password_changed_at: Option<Timestamp>,
}

/// A row as it comes.
#[derive(Clone)]
pub enum Incoming {
    /// A tenant.
    Tenant(IncomingTenant),
    /// A user.
    User(Box<IncomingUser>),
    /// What could not be read.
    Unreadable(Refusal),
}

/// What became of rows of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Went in.
    pub imported: u64,
    /// Were there already.
    pub there: u64,
    /// Did not go in.
    pub refused: u64,
}

/// What became of all rows up to now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The tenants.
    pub tenants: Tally,
    /// The users.
    pub users: Tally,
    /// What was refused, by what it is and why.
    pub refused: BTreeMap<(Kind, Why), u64>,
}

impl Counts {
    /// How many rows were refused.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    /// How many rows were read.
    pub fn rows(&self) -> u64 {
        let of = |tally: Tally| tally.imported + tally.there;
        of(self.tenants) + of(self.users) + self.refusals()
    }

    fn refuse(&mut self, refusal: &Refusal) {
        *self.refused.entry((refusal.kind, refusal.why)).or_default() += 1;
        match refusal.kind {
            Kind::Tenant => self.tenants.refused += 1,
            Kind::User => self.users.refused += 1,
            Kind::Line => {}
        }
    }
}

/// Is told of what happens, after it was committed.
pub trait Ledger {
    /// A row was refused.
    ///
    /// # Errors
    /// When that cannot be written down; the import ends with it.
    fn refused(&mut self, refusal: &Refusal) -> io::Result<()>;

    /// A row that is there has another id than it had.
    ///
    /// # Errors
    /// When that cannot be written down; the import ends with it.
    fn renamed(&mut self, kind: Kind, old_id: &str, new_id: Uuid) -> io::Result<()>;

    /// Another batch is done.
    fn progressed(&mut self, counts: &Counts);
}

/// Why an import could not go on. What was written until then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// This service's database.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// Where the rows come from.
    #[error("what is to be imported cannot be read: {0}")]
    Source(String),
    /// Where reports go.
    #[error("cannot write {0}")]
    Ledger(#[from] io::Error),
}

impl fmt::Debug for IncomingUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingUser").field("position", &self.position).finish_non_exhaustive()
    }
}
