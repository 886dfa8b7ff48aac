//! More logins than can be served: what they do to look-ups, how they are turned away, and whether as many are
//! admitted as can be served.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::{Stage, lookups};
use crate::calls::EmptyLogins;
use crate::memory::Process;
use crate::open_loop::{self, Offer};
use crate::report::{Closed, Flood, Memory, Offers, Open, Report, ratio};
use crate::{arguments, closed_loop};

pub(super) async fn run(stage: &Stage, arguments: &arguments::Flood) -> Result<Report, Box<dyn Error>> {
    let process = arguments.pid.map(Process);
    // A wrong id shall not be found out only after the first phase.
    process.map(Process::resident_mb).transpose()?;
    let logins = stage.logins_from(Some(arguments.attacker), arguments.login_deadline).await?;
    let lookups = stage.lookups().await?;

    let offer = Offer { rate: arguments.rate.get(), seconds: arguments.seconds };
    let lookups_alone = lookups::warm(lookups.clone(), offer).await;

    let flood = Offer { rate: arguments.logins_per_second.get(), ..offer };
    let empty = EmptyLogins { connections: logins.connections.clone(), deadline: logins.deadline };
    // The calls alone, of which a flood is made, take processor time here and there: what can be served is what
    // is served beside as many calls that want nothing.
    let warmed_up = flood.seconds + u32::try_from(closed_loop::WARM_UP.as_secs())?;
    let beside = async || {
        let (lookups, logins, _) = tokio::join!(
            lookups::warm(lookups.clone(), offer),
            closed_loop::run(arguments.clients, arguments.seconds, logins.clone()),
            open_loop::run(Offer { seconds: warmed_up, ..flood }, empty.clone()),
        );
        (lookups, logins)
    };
    let (lookups_beside, before) = beside().await;

    // Counted behind a warm-up, as those beside are.
    let (memory, flooded, offered) = tokio::join!(
        watch(process, Duration::from_secs(warmed_up.into())),
        open_loop::run(Offer { seconds: warmed_up, ..offer }, lookups.clone()),
        open_loop::run_warm(Offer { seconds: warmed_up, ..flood }, closed_loop::WARM_UP, logins.clone()),
    );
    let (_, after) = beside().await;
    let lookups_flooded = Open::from(flooded);
    let p99_ratio = match (&lookups_flooded.latency, &lookups_alone.latency) {
        (Some(flooded), Some(alone)) => ratio(flooded.p99_ms, alone.p99_ms),
        (None, _) | (_, None) => None,
    };
    let logins = Offers::from(offered);
    let logins_beside = [before, after].map(Closed::from);
    let capacity = logins_beside.iter().map(|logins| logins.ok_per_second).sum::<f64>() / 2.0;
    let admitted_ratio = ratio(logins.served_per_second, capacity);
    let memory = memory?;
    Ok(Report::Flood(Box::new(Flood {
        lookups_alone,
        lookups_beside,
        logins_beside,
        lookups_flooded,
        p99_ratio,
        logins,
        admitted_ratio,
        memory,
    })))
}

/// The memory of `process` now, and half way through and at the end of `length`.
async fn watch(process: Option<Process>, length: Duration) -> io::Result<Option<Memory>> {
    let Some(process) = process else { return Ok(None) };
    let before_mb = process.resident_mb()?;
    sleep(length / 2).await;
    let middle_mb = process.resident_mb()?;
    sleep(length / 2).await;
    Ok(Some(Memory { before_mb, middle_mb, end_mb: process.resident_mb()? }))
}
