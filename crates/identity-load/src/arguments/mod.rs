//! What the command line may hold: here the scenarios of ordinary callers, those of attackers in
//! [`attacks`].

mod attacks;

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::target::{Origin, Target};

pub(crate) use attacks::{
    Attack, Connections, DeleteTenant, Guesses, Hammer, ImportFile, Lists, Locked, Resets, Unread,
};

/// The longest that a call may be given: what the service itself cuts deadlines down to.
const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// Where attacks come from: another source than 127.0.0.1, where everybody else is.
const ATTACKER: &str = "127.0.0.2";

/// Drives a running identity service on this machine, and says what it did.
///
/// Never aim it at a service with real users: it registers its own and they stay.
#[derive(Debug, Parser)]
#[command(name = "identity-load", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a tenant of many users as JSON lines for `identity import jsonl`
    ImportFile(ImportFile),
    #[command(flatten)]
    Scenario(Scenario),
}

/// What to do to the service.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Log in without a pause, each client one user after the other
    Logins(Logins),
    /// Look users up at a fixed rate
    Lookups(Lookups),
    /// Look users up at a fixed rate: alone, beside as many logins as can be served, and beside more
    Flood(Flood),
    /// Log in without a pause, first alone, then beside look-ups without a pause
    Saturate(Saturate),
    /// Open streams of logins and reset them, while others write, log in and look up
    Resets(Resets),
    /// List users and events of a large tenant without a pause, while others look up
    Lists(Lists),
    /// Delete a large tenant, while others write, log in, register and look up
    DeleteTenant(DeleteTenant),
    /// Hold connections that do nothing, while others connect
    Connections(Connections),
    /// Ask for large replies and read none, while others look up
    Unread(Unread),
    /// Guess passwords of a domain's users, while they log in from elsewhere
    Guesses(Guesses),
    /// Log in without a pause, also after refusals, while others look up and log in
    Hammer(Hammer),
    /// Log a user in whose row is locked in PostgreSQL, while others look up and log in
    Locked(Locked),
}

impl Scenario {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Logins(arguments) => &arguments.common,
            Self::Lookups(arguments) => &arguments.common,
            Self::Flood(arguments) => &arguments.common,
            Self::Saturate(arguments) => &arguments.common,
            Self::Resets(arguments) => &arguments.attack.common,
            Self::Lists(arguments) => &arguments.attack.common,
            Self::DeleteTenant(arguments) => &arguments.attack.common,
            Self::Connections(arguments) => &arguments.attack.common,
            Self::Unread(arguments) => &arguments.attack.common,
            Self::Guesses(arguments) => &arguments.attack.common,
            Self::Hammer(arguments) => &arguments.attack.common,
            Self::Locked(arguments) => &arguments.attack.common,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where the service listens; a loopback address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) target: Target,

    /// How many users to register, or to log in if they exist, before anything is measured
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) users: u32,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logins {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many log in at once
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// How long to measure, after a warm-up of two seconds
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,

    /// How long a login may take
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = deadline)]
    pub(crate) deadline: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Lookups {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Look-ups a second
    #[arg(long, default_value = "2000", value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: NonZeroU32,

    /// How long to measure, after a warm-up of one second
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Look-ups a second
    #[arg(long, default_value = "2000", value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: NonZeroU32,

    /// How long each of the three phases takes
    #[arg(long, default_value_t = 15, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,

    /// Logins that are begun each second, whatever became of those before
    #[arg(long, value_name = "NUMBER", value_parser = rate)]
    pub(crate) logins_per_second: NonZeroU32,

    /// How long a login may take
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = deadline)]
    pub(crate) login_deadline: Duration,

    /// The loopback address that the flood comes from
    #[arg(long, default_value = ATTACKER, value_name = "ADDRESS")]
    pub(crate) attacker: Origin,

    /// How many log in without a pause in the phase that shows how many logins can be served
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// The service's process, whose resident memory is told then
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Saturate {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many look users up without a pause
    #[arg(long, default_value_t = 64, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// How long each of the two phases is measured, after a warm-up of two seconds
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

/// Calls a second, as many as one machine can play both sides of.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = text.parse::<NonZeroU32>().map_err(|error| error.to_string())?;
    if rate.get() > 100_000 {
        return Err("more than 100000 a second".to_owned());
    }
    Ok(rate)
}

fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if deadline.is_zero() || deadline > MAX_DEADLINE {
        return Err(format!("must be more than nothing and at most {MAX_DEADLINE:?}"));
    }
    Ok(deadline)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_flood_wants_nothing_but_a_target_and_a_rate_of_logins() {
        let Ok(Command::Scenario(Scenario::Flood(flood))) =
            parse("identity-load flood --target 127.0.0.1:1 --logins-per-second 400")
        else {
            panic!("not taken");
        };
        assert_eq!((flood.rate.get(), flood.logins_per_second.get(), flood.seconds), (2000, 400, 15));
        assert_eq!((flood.login_deadline, flood.pid), (Duration::from_secs(2), None));
    }

    #[test]
    fn an_attack_wants_nothing_but_a_target() {
        for name in ["resets", "lists", "delete-tenant", "connections", "unread", "guesses"] {
            let line = format!("identity-load {name} --target 127.0.0.1:1");
            assert!(matches!(parse(&line), Ok(Command::Scenario(_))), "{name}");
        }
    }

    #[test]
    fn what_would_not_end_or_not_begin_is_refused() {
        for line in [
            "identity-load",
            "identity-load logins",
            "identity-load logins --target 192.0.2.1:50051",
            "identity-load logins --target 127.0.0.1:1 --seconds 0",
            "identity-load logins --target 127.0.0.1:1 --seconds 601",
            "identity-load logins --target 127.0.0.1:1 --clients 0",
            "identity-load logins --target 127.0.0.1:1 --users 0",
            "identity-load logins --target 127.0.0.1:1 --deadline 0s",
            "identity-load logins --target 127.0.0.1:1 --deadline 1h",
            "identity-load lookups --target 127.0.0.1:1 --rate 0",
            "identity-load lookups --target 127.0.0.1:1 --rate 100001",
            "identity-load flood --target 127.0.0.1:1",
            "identity-load flood --target 127.0.0.1:1 --logins-per-second 9 --attacker 192.0.2.1",
            "identity-load resets --target 127.0.0.1:1 --seconds 1",
            "identity-load resets --target 127.0.0.1:1 --seconds 61",
            "identity-load resets --target 127.0.0.1:1 --streams 0",
            "identity-load resets --target 127.0.0.1:1 --resets-per-second 0",
            "identity-load resets --target 127.0.0.1:1 --hold 11s",
            "identity-load lists --target 127.0.0.1:1 --in-flight 1001",
            "identity-load connections --target 127.0.0.1:1 --connections 20001",
            "identity-load unread --target 127.0.0.1:1 --connections 17",
            "identity-load locked --target 127.0.0.1:1",
            "identity-load import-file --users 1000001",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
