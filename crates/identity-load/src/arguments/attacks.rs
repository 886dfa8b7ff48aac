//! What attackers may do.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, value_parser};

use super::{ATTACKER, Common, rate};
use crate::target::Origin;

/// What all attacks have.
#[derive(Debug, Args)]
pub(crate) struct Attack {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How long the attack lasts; others are measured for half of it before, and again from a second after it
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = value_parser!(u32).range(2..=60))]
    pub(crate) seconds: u32,

    /// The loopback address that the attack comes from
    #[arg(long, default_value = ATTACKER, value_name = "ADDRESS")]
    pub(crate) attacker: Origin,

    /// The service's process, whose resident memory is told then
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportFile {
    /// How many users the tenant has, its owner and a member with a password besides
    #[arg(long, default_value_t = 200_000, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Resets {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// How many streams a connection opens at once
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=250))]
    pub(crate) streams: u32,

    /// How many connections do so; one that the service ends is opened anew
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) connections: u32,

    /// How long streams are open before they are reset
    #[arg(long, default_value = "10ms", value_name = "DURATION", value_parser = hold)]
    pub(crate) hold: Duration,

    /// The most streams that all connections reset in a second; as many as they can if it is left out
    #[arg(long, value_name = "NUMBER", value_parser = rate)]
    pub(crate) resets_per_second: Option<NonZeroU32>,
}

#[derive(Debug, Args)]
pub(crate) struct Lists {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// How many calls of ListUsers are in flight all the time
    #[arg(long, default_value_t = 50, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) in_flight: u32,

    /// How long each of them waits after a refusal before it calls again, whatever the refusal asks for
    #[arg(long, default_value = "10ms", value_name = "DURATION", value_parser = hold)]
    pub(crate) pause: Duration,

    /// Look-ups a second of others
    #[arg(long, default_value = "500", value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: NonZeroU32,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteTenant {
    #[command(flatten)]
    pub(crate) attack: Attack,
}

#[derive(Debug, Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// How many connections are opened
    #[arg(long, default_value_t = 10_100, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,

    /// From how many addresses they come: that of the attacker and those behind it
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = value_parser!(u8).range(1..=200))]
    pub(crate) sources: u8,
}

#[derive(Debug, Args)]
pub(crate) struct Unread {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// How many connections ask and do not read
    #[arg(long, default_value_t = 4, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=16))]
    pub(crate) connections: u32,

    /// How many calls each of them makes
    #[arg(long, default_value_t = 250, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=250))]
    pub(crate) streams: u32,

    /// Ask the reflection service instead of the audit log
    #[arg(long)]
    pub(crate) reflection: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Guesses {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// Wrong passwords a second
    #[arg(long, default_value = "60", value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: NonZeroU32,
}

#[derive(Debug, Args)]
pub(crate) struct Hammer {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// How many clients of the attacker log in at once
    #[arg(long, default_value_t = 64, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=2_000))]
    pub(crate) clients: u32,

    /// How long each of these logins may take
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = hold)]
    pub(crate) deadline: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Locked {
    #[command(flatten)]
    pub(crate) attack: Attack,

    /// The service's PostgreSQL: postgres://USER@127.0.0.1:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    pub(crate) database: String,

    /// Logins a second of the user whose row is locked
    #[arg(long, default_value = "20", value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: NonZeroU32,
}

/// A pause that keeps a run short.
fn hold(text: &str) -> Result<Duration, String> {
    let hold = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if hold > Duration::from_secs(10) {
        return Err("must be at most 10s".to_owned());
    }
    Ok(hold)
}
