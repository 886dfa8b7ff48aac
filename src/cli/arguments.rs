//! What the command line may hold.

mod audit;
mod directory;
mod moving;

use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flags, secrets_help};
use crate::domain::{ServiceName, ServiceTokenId};
use crate::service::access::Rpc;

pub(super) use audit::{AuditAction, AuditCommand, EventList};
pub(super) use directory::{
    Consent, NewUserArguments, OneUser, TenantAction, TenantCommand, UserAction, UserCommand, UserList, Whom,
};
pub(super) use moving::{ExportArguments, ImportAction, ImportArguments};

/// `--help`'s last words: the settings that have no flag, and what holds for all.
fn after_help() -> String {
    format!(
        "Secrets have no flag, since every user of the machine can read a command line:\n{}\n\
         Durations are written as 90s, 15m, 1h 30m or 14d. An empty value counts as not given.\n\
         Exit codes: 0 done, 1 failed, 64 wrong command line or configuration.",
        secrets_help()
    )
}

/// Users, tenants, passwords, sessions and tokens, served over gRPC.
///
/// Without a command, serves.
#[derive(Debug, Parser)]
#[command(name = "identity", version, after_help = after_help())]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) flags: Flags,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Serve requests until a signal to stop (this is what `identity` alone does)
    Serve,
    /// Bring the database's tables up to date, or take them back
    Migrate {
        /// What to do with the migrations.
        #[command(subcommand)]
        action: MigrateAction,
    },
    /// List, rotate and retire the keys that sign access tokens, and make a master key
    Keys {
        /// What to do with the keys.
        #[command(subcommand)]
        action: KeysAction,
    },
    /// Make, list and revoke the credentials of other services
    ServiceToken {
        /// What to do with the tokens.
        #[command(subcommand)]
        action: ServiceTokenAction,
    },
    /// Create, list, change and delete users
    User(UserCommand),
    /// Create, list, change and delete tenants
    Tenant(TenantCommand),
    /// List what was done, and delete what is old
    Audit(AuditCommand),
    /// Take tenants and users over from another system, or from an export
    ///
    /// Rows that cannot go in are listed in a file; what is there is not changed, so it may be ended and
    /// run again. docs/moving-in.md says how.
    Import {
        /// Where to import from.
        #[command(subcommand)]
        action: ImportAction,
    },
    /// Write all tenants and users, with their password hashes, as JSON lines
    Export(ExportArguments),
    /// Measure this machine, and recommend a bcrypt cost for it
    ///
    /// Prints how long a hash takes and how many a core computes in a second, for each cost and each
    /// number of lanes (passwords that a thread checks side by side). Run it on an idle machine.
    Calibrate(Calibrate),
}

/// How to measure, and what for.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Calibrate {
    /// How long a hash may take while its core is busy with others, 1ms to 1m
    #[arg(long, default_value = "250ms", value_name = "DURATION", value_parser = up_to_a_minute)]
    pub(super) target: Duration,

    /// How long to measure, 1ms to 1m
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = up_to_a_minute)]
    pub(super) time: Duration,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn up_to_a_minute(text: &str) -> Result<Duration, &'static str> {
    let range = Duration::from_millis(1)..=Duration::from_secs(60);
    let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
    duration.ok_or("must be a duration from 1ms to 1m, such as 250ms or 2s")
}

/// What to do with the migrations.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum MigrateAction {
    /// Run the pending migrations
    Run,
    /// List the migrations, and which of them are pending
    Status,
    /// Take the latest migrations back, with what they hold; asks first
    Revert {
        /// How many
        #[arg(long, default_value = "1", value_name = "NUMBER")]
        steps: NonZeroU64,
        #[command(flatten)]
        consent: Consent,
    },
}

/// What to do with the tokens of services.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum ServiceTokenAction {
    /// Make a token and print it; it cannot be printed again
    Create(NewServiceToken),
    /// List all tokens, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token, from the next call on
    Revoke {
        /// The token's id, as `list` prints it
        #[arg(value_name = "ID", value_parser = ServiceTokenId::parse)]
        id: ServiceTokenId,
    },
}

/// What the token of a service shall be.
#[derive(Clone, Debug, Args)]
pub(super) struct NewServiceToken {
    /// What the service is called; a name may have several tokens, so that one can replace the other
    #[arg(long, value_name = "NAME", value_parser = ServiceName::parse)]
    pub(super) name: ServiceName,

    /// A method that it may call, such as GetUser, or all; may be given several times
    #[arg(long, required = true, value_name = "METHOD", value_parser = method)]
    pub(super) allow: Vec<AllowedMethod>,

    /// How long it counts, 1m to 3650d, or never for no end
    #[arg(long, default_value = "365d", value_name = "DURATION", value_parser = up_to_ten_years)]
    pub(super) expires: Expiry,
}

/// What a service may call.
#[derive(Clone, Copy, Debug)]
pub(super) enum AllowedMethod {
    All,
    /// By its full name.
    One(&'static str),
}

fn method(name: &str) -> Result<AllowedMethod, &'static str> {
    if name == "all" {
        return Ok(AllowedMethod::All);
    }
    Rpc::find(name).map(|rpc| AllowedMethod::One(rpc.name())).ok_or(
        "there is no such method: name one as GetUser or identity.v1.IdentityService/GetUser, or say all",
    )
}

/// How long something counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiry {
    After(Duration),
    Never,
}

impl Expiry {
    pub(super) fn into_duration(self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::Never => None,
        }
    }
}

fn up_to_ten_years(text: &str) -> Result<Expiry, &'static str> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let range = Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 60 * 60);
    let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
    duration.map(Expiry::After).ok_or("must be a duration from 1m to 3650d, such as 90d, or never")
}

/// What to do with the keys.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum KeysAction {
    /// List the keys that sign and verify access tokens
    ///
    /// Each is next (published, signs later), signing, or published (until its tokens have expired).
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the next key
    ///
    /// It is published at once, and signs after IDENTITY_KEY_PROPAGATION; the one before it stays
    /// published until its last token has expired. Then lists the keys. Running servers follow by
    /// themselves.
    Rotate {
        /// Let it sign at once, though not all who verify tokens may know it yet
        #[arg(long)]
        now: bool,
    },
    /// Take a key out of use at once, with all tokens that it signed
    ///
    /// For a key that others may have. When it is the one that signs, the next one takes over, made if
    /// there is none. Then lists the keys. Running servers follow within ten seconds.
    Retire {
        /// The key's id, as `list` prints it
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Print a new master key, for IDENTITY_MASTER_KEY or its file
    Master {
        /// Print none; encrypt the keys in the database under the current master key instead, which are
        /// encrypted under IDENTITY_MASTER_KEY_PREVIOUS
        #[arg(long)]
        reseal: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{MapEnvironment, Settings};

    #[test]
    fn each_flag_reaches_its_setting() {
        for argument in Cli::command().get_arguments().filter(|argument| argument.is_global_set()) {
            let flag = format!("--{}", argument.get_long().unwrap());
            // Any path may be the right one; everything else refuses this.
            if flag == "--master-key-file" {
                continue;
            }
            let cli = Cli::try_parse_from(["identity", "serve", &flag, "\u{1}=x"]).unwrap();
            let faults = Settings::resolve(&cli.flags, &MapEnvironment::default()).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].name.ends_with(&format!(" ({flag})")), "{faults:?}");
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_flag_names_its_variable_and_default() {
        let command = Cli::command();
        let settings: Vec<_> = command.get_arguments().filter(|argument| argument.is_global_set()).collect();
        assert!(settings.len() >= 18, "{}", settings.len());
        for argument in settings {
            let variable = argument.get_id();
            let help = argument.get_help().unwrap().to_string();
            assert!(help.contains(&format!("[{variable}; default: ")), "{help}");
        }
    }
}
