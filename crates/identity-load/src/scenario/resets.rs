//! Streams that are opened with a login and reset before it is answered: whatever the service does for them
//! shall end with them.

use std::error::Error;
use std::time::{Duration, Instant};

use identity::proto::v1::LoginRequest;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::{OTHER_LOGIN_DEADLINE, Stage, process};
use crate::arguments;
use crate::memory;
use crate::raw::{Call, Connection, Ended};
use crate::report::{Attacked, Report};
use crate::target::{Origin, Target};
use crate::timeline::Timeline;
use crate::users::{Names, PASSWORD};

/// What others do each second.
const LOOKUPS: u32 = 200;
const REFRESHES: u32 = 20;
const UPDATES: u32 = 20;
const LOGINS: u32 = 5;

/// Before a connection is opened in the place of one that the service ended.
const REOPEN: Duration = Duration::from_millis(10);

/// Opens streams and resets them, on one connection at a time.
#[derive(Clone)]
struct Resetter {
    target: Target,
    origin: Origin,
    streams: u32,
    hold: Duration,
    /// From the beginning of a round of streams to that of the next one, at least.
    interval: Duration,
    names: Names,
}

/// What resetters did.
#[derive(Default)]
struct Counts {
    resets: u64,
    connections: u64,
    not_connected: u64,
}

pub(super) async fn run(stage: &Stage, arguments: &arguments::Resets) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let lookups = stage.lookups().await?;
    let (refreshes, updates) = (stage.refreshes().await?, stage.renames().await?);
    let logins = stage.logins(OTHER_LOGIN_DEADLINE).await?;
    let all_streams = f64::from(arguments.streams * arguments.connections);
    let resetter = Resetter {
        target: stage.target,
        origin: attack.attacker,
        streams: arguments.streams,
        hold: arguments.hold,
        interval: arguments
            .resets_per_second
            .map_or(Duration::ZERO, |resets| Duration::from_secs_f64(all_streams / f64::from(resets.get()))),
        names: Names::new(),
    };

    let timeline = Timeline::begin(attack.seconds);
    let (lookups, refreshes, updates, logins, counts, memory) = tokio::join!(
        timeline.beside(LOOKUPS, lookups),
        timeline.beside(REFRESHES, refreshes),
        timeline.beside(UPDATES, updates),
        timeline.beside(LOGINS, logins),
        resetter.run_all(arguments.connections, timeline),
        memory::watch(process, timeline),
    );
    let others = [("look-ups", lookups), ("refreshes", refreshes), ("updates", updates), ("logins", logins)];
    let report = Attacked::new(attack.seconds, others, memory?)
        .counted("streams reset", counts.resets)
        .counted("connections opened", counts.connections)
        .counted("connections refused", counts.not_connected);
    Ok(Report::Attacked(Box::new(report)))
}

impl Resetter {
    async fn run_all(self, connections: u32, timeline: Timeline) -> Counts {
        let until = timeline.attack_begins().await;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            // No e-mail is tried twice.
            tasks.spawn(Self { names: Names::new(), ..self.clone() }.run(until));
        }
        let mut sum = Counts::default();
        while let Some(counts) = tasks.join_next().await {
            let counts = counts.expect("no attacker panics");
            sum.resets += counts.resets;
            sum.connections += counts.connections;
            sum.not_connected += counts.not_connected;
        }
        sum
    }

    /// Attacks until that time; a connection that the service ends is opened anew.
    async fn run(self, until: Instant) -> Counts {
        let mut counts = Counts::default();
        while Instant::now() < until {
            match Connection::open(self.target, self.origin, None).await {
                Ok(mut connection) => {
                    counts.connections += 1;
                    // In one that has ended nothing is left to be done.
                    let _ = self.use_up(&mut connection, until, &mut counts).await;
                }
                Err(_) => counts.not_connected += 1,
            }
            sleep(REOPEN).await;
        }
        counts
    }

    async fn use_up(
        &self,
        connection: &mut Connection,
        until: Instant,
        counts: &mut Counts,
    ) -> Result<(), Ended> {
        while Instant::now() < until {
            let next = Instant::now() + self.interval;
            let first = counts.resets;
            let calls: Vec<_> =
                (first..first + u64::from(self.streams)).map(|index| self.login(index)).collect();
            let streams = connection.open_streams(&calls).await?;
            sleep(self.hold).await;
            connection.reset(&streams).await?;
            counts.resets += streams.len() as u64;
            sleep_until(next.into()).await;
        }
        Ok(())
    }

    /// A login with an e-mail that nobody has.
    fn login(&self, index: u64) -> Call {
        let login = LoginRequest { email: self.names.email(index), password: PASSWORD.to_owned() };
        Call::new("/identity.v1.IdentityService/Login", &[], &login.encode_to_vec())
    }
}
