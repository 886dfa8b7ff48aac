//! What `identity audit` may be given.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::directory::{Consent, ListLength};
use crate::domain::{Action, TenantId};

/// `identity audit`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct AuditCommand {
    /// Print JSON, which is what is printed anyway where standard output is no terminal
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,

    /// What to do with audit events.
    #[command(subcommand)]
    pub(in crate::cli) action: AuditAction,
}

/// What to do with audit events.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum AuditAction {
    /// List events, the newest first
    List(EventList),
    /// Delete old events of all tenants; asks first, and is an event itself
    Prune {
        /// How old an event has to be, 1d to 36500d
        #[arg(long, value_name = "DURATION", value_parser = a_day_or_more)]
        older_than: Duration,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Which events to list.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct EventList {
    /// Whose events, also those of a tenant that was deleted; without it, those of no tenant, such as logins
    /// with an unknown e-mail and what was done to keys
    #[arg(long, value_name = "ID", value_parser = TenantId::parse)]
    pub(in crate::cli) tenant: Option<TenantId>,

    /// What was done; may be given several times
    #[arg(long = "action", value_name = "ACTION", value_parser = action())]
    pub(in crate::cli) actions: Vec<Action>,

    #[command(flatten)]
    pub(in crate::cli) length: ListLength,
}

fn action() -> impl TypedValueParser<Value = Action> {
    PossibleValuesParser::new(Action::ALL.iter().map(|action| action.as_str()))
        .map(|name| Action::from_name(&name).expect("only names of actions are let through"))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day at least, so that an error in writing takes nothing away that somebody may be looking at; a hundred
/// years at most, so that the time is one that both databases can write.
fn a_day_or_more(text: &str) -> Result<Duration, &'static str> {
    let duration = humantime::parse_duration(text).ok();
    let duration = duration.filter(|duration| (DAY..=36_500 * DAY).contains(duration));
    duration.ok_or("must be a duration from 1d to 36500d, such as 90d")
}
