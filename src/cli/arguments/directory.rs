//! What `identity user` and `identity tenant` may be given. Values are checked here, so that a wrong one is a wrong
//! command line.

use std::num::NonZeroUsize;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::domain::email::InvalidEmail;
use crate::domain::id::InvalidId;
use crate::domain::{Email, EmailPrefix, PersonName, Role, TenantId, TenantName, UserId};

/// `identity user`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct UserCommand {
    /// Print JSON, which is what is printed anyway where standard output is no terminal
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,

    /// What to do with users.
    #[command(subcommand)]
    pub(in crate::cli) action: UserAction,
}

/// What to do with users.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum UserAction {
    /// Create a user of a tenant
    ///
    /// The password is asked for on a terminal; else it is the first line of standard input.
    Create(NewUserArguments),
    /// List the users of a tenant, those created last first
    List(UserList),
    /// Show a user
    Show(OneUser),
    /// Change a user's e-mail or names; another e-mail ends the user's sessions
    Update(UserUpdate),
    /// Change what a user may do, from the next call on
    SetRole {
        #[command(flatten)]
        user: OneUser,
        /// What the user may do
        #[arg(value_name = "ROLE", value_parser = role())]
        role: Role,
    },
    /// Give a user another password, and end all sessions of the user
    ///
    /// The password is asked for on a terminal; else it is the first line of standard input.
    SetPassword(OneUser),
    /// Refuse a user's logins and calls from now on, and end all sessions of the user
    Disable(OneUser),
    /// Let a disabled user log in again
    Enable(OneUser),
    /// End all sessions of a user
    RevokeSessions(OneUser),
    /// Delete a user with everything that belongs to the user; asks first
    Delete {
        #[command(flatten)]
        user: OneUser,
        #[command(flatten)]
        consent: Consent,
    },
}

/// A user who is to be.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct NewUserArguments {
    /// The tenant
    #[arg(long, value_name = "ID", value_parser = TenantId::parse)]
    pub(in crate::cli) tenant: TenantId,

    /// The login name
    #[arg(long, value_name = "E-MAIL", value_parser = Email::parse)]
    pub(in crate::cli) email: Email,

    /// The given name
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    pub(in crate::cli) first_name: PersonName,

    /// The family name
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    pub(in crate::cli) last_name: PersonName,

    /// What the user may do
    #[arg(long, default_value = "member", value_parser = role())]
    pub(in crate::cli) role: Role,
}

/// Which users to list.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct UserList {
    /// The tenant
    #[arg(long, value_name = "ID", value_parser = TenantId::parse)]
    pub(in crate::cli) tenant: TenantId,

    /// How the e-mail begins
    #[arg(long, value_name = "PREFIX", value_parser = EmailPrefix::parse)]
    pub(in crate::cli) email_prefix: Option<EmailPrefix>,

    /// What the users may do
    #[arg(long, value_parser = role())]
    pub(in crate::cli) role: Option<Role>,

    /// Those created first come first
    #[arg(long)]
    pub(in crate::cli) oldest_first: bool,

    #[command(flatten)]
    pub(in crate::cli) length: ListLength,
}

/// A user who is there already.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct OneUser {
    /// The user's id, or e-mail
    #[arg(value_name = "ID|E-MAIL", value_parser = whom)]
    pub(in crate::cli) user: Whom,

    /// The user's tenant: needed where several tenants have a user of that id
    #[arg(long, value_name = "ID", value_parser = TenantId::parse)]
    pub(in crate::cli) tenant: Option<TenantId>,
}

/// What becomes different about a user.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct UserUpdate {
    #[command(flatten)]
    pub(in crate::cli) user: OneUser,

    /// The login name
    #[arg(long, value_name = "E-MAIL", value_parser = Email::parse,
        required_unless_present_any = ["first_name", "last_name"])]
    pub(in crate::cli) email: Option<Email>,

    /// The given name
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    pub(in crate::cli) first_name: Option<PersonName>,

    /// The family name
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    pub(in crate::cli) last_name: Option<PersonName>,
}

/// How a user is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Whom {
    Id(UserId),
    Email(Email),
}

fn whom(text: &str) -> Result<Whom, InvalidWhom> {
    if text.contains('@') {
        return Ok(Whom::Email(Email::parse_existing(text)?));
    }
    UserId::parse(text).map(Whom::Id).map_err(|InvalidId| InvalidWhom::Neither)
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
enum InvalidWhom {
    #[error(transparent)]
    Email(#[from] InvalidEmail),
    #[error("must be an e-mail, or a UUID such as 018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e")]
    Neither,
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new([Role::Owner, Role::Admin, Role::Member].map(Role::as_str))
        .map(|name| Role::from_name(&name).expect("only names of roles are let through"))
}

/// `identity tenant`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TenantCommand {
    /// Print JSON, which is what is printed anyway where standard output is no terminal
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,

    /// What to do with tenants.
    #[command(subcommand)]
    pub(in crate::cli) action: TenantAction,
}

/// What to do with tenants.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum TenantAction {
    /// Create a tenant without users; `identity user create --role owner` makes its owner
    Create {
        /// What people call it
        #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
        name: TenantName,
    },
    /// List the tenants, those created last first
    List(ListLength),
    /// Show a tenant
    Show {
        /// The tenant
        #[arg(value_name = "ID", value_parser = TenantId::parse)]
        id: TenantId,
    },
    /// Give a tenant another name
    Rename {
        /// The tenant
        #[arg(value_name = "ID", value_parser = TenantId::parse)]
        id: TenantId,
        /// What people call it
        #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
        name: TenantName,
    },
    /// Delete a tenant with its users and everything that belongs to them; asks first
    ///
    /// Its audit events stay.
    Delete {
        /// The tenant
        #[arg(value_name = "ID", value_parser = TenantId::parse)]
        id: TenantId,
        #[command(flatten)]
        consent: Consent,
    },
}

/// How much of a list to print.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct ListLength {
    /// How many at most
    #[arg(long, default_value = "50", value_name = "NUMBER")]
    limit: NonZeroUsize,

    /// All, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl ListLength {
    /// The most entries to print.
    pub(in crate::cli) fn most(self) -> usize {
        if self.all { usize::MAX } else { self.limit.get() }
    }
}

/// Whether to ask before something is deleted.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct Consent {
    /// Do not ask; needed where standard input is no terminal
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}
