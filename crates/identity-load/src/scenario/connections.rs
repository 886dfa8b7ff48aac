//! Connections that do nothing, more than the service takes: a newcomer shall find a place.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep_until;

use super::{Stage, process};
use crate::calls::newcomers::{Errand, Newcomers};
use crate::raw::Connection;
use crate::report::{Attacked, Report};
use crate::target::{Origin, Target};
use crate::timeline::Timeline;
use crate::{arguments, memory};

/// How many newcomers of each kind come in a second.
const NEWCOMERS: u32 = 5;

/// How many connections are being opened at once.
const AT_ONCE: usize = 64;

/// Descriptors of everything else.
const OTHER_DESCRIPTORS: u64 = 500;

/// What became of the connections.
struct Held {
    opened: u64,
    /// Those that the service sent its settings to.
    greeted: u64,
    /// Those that the service ended.
    ended: u64,
}

pub(super) async fn run(stage: &Stage, arguments: &arguments::Connections) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    allow_descriptors(u64::from(arguments.connections) + OTHER_DESCRIPTORS)?;
    let newcomers = |errand| Newcomers { target: stage.target, users: Arc::clone(&stage.users), errand };
    let origins: Vec<_> = (0..arguments.sources).map(|index| behind(attack.attacker, index)).collect();

    let timeline = Timeline::begin(attack.seconds);
    let (lookups, health, held, memory) = tokio::join!(
        timeline.beside(NEWCOMERS, newcomers(Errand::Lookup)),
        timeline.beside(NEWCOMERS, newcomers(Errand::Health)),
        hold(stage.target, &origins, arguments.connections, timeline),
        memory::watch(process, timeline),
    );
    let others = [("newcomers' look-ups", lookups), ("newcomers' health checks", health)];
    let report = Attacked::new(attack.seconds, others, memory?)
        .counted("connections opened", held.opened)
        .counted("connections served", held.greeted)
        .counted("connections ended", held.ended);
    Ok(Report::Attacked(Box::new(report)))
}

/// Opens `number` connections when the attack begins, and holds them until it ends.
async fn hold(target: Target, origins: &[Origin], number: u32, timeline: Timeline) -> Held {
    let end = timeline.attack_begins().await;
    let connections: Vec<Connection> = stream::iter(origins.iter().cycle().take(number as usize))
        .map(|origin| Connection::open(target, *origin, None))
        .buffer_unordered(AT_ONCE)
        .filter_map(async |connection| connection.ok())
        .take_until(sleep_until(end.into()))
        .collect()
        .await;
    sleep_until(end.into()).await;
    let count = |those: fn(&Connection) -> bool| {
        connections.iter().filter(|connection| those(connection)).count() as u64
    };
    Held {
        opened: connections.len() as u64,
        greeted: count(Connection::is_greeted),
        ended: count(Connection::has_ended),
    }
}

/// The address that comes `index` after `origin`.
fn behind(origin: Origin, index: u8) -> Origin {
    Origin(match origin.0 {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + u32::from(index)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + u128::from(index)).into()),
    })
}

/// Allows this process so many descriptors, as far as the system lets it.
fn allow_descriptors(number: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= number) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(number));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum });
    raised.map_err(|error| io::Error::other(format!("{number} descriptors are needed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_each_other() {
        let origin: Origin = "127.0.0.2".parse().unwrap();
        assert_eq!(behind(origin, 0), origin);
        assert_eq!(behind(origin, 199), "127.0.0.201".parse().unwrap());
    }
}
