//! Logins without a pause, which go on at once after a refusal: what turns them away shall not take the processors
//! from those who are served.

use std::error::Error;
use std::ops::Range;

use super::{OTHER_LOGIN_DEADLINE, Stage, process};
use crate::report::{Attacked, Report};
use crate::timeline::Timeline;
use crate::{arguments, closed_loop, memory};

/// What others do each second.
const LOOKUPS: u32 = 200;
const LOGINS: u32 = 5;

pub(super) async fn run(stage: &Stage, arguments: &arguments::Hammer) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let (lookups, logins) = (stage.lookups().await?, stage.logins(OTHER_LOGIN_DEADLINE).await?);
    let hammer = stage.logins_from(Some(attack.attacker), arguments.deadline).await?;

    let timeline = Timeline::begin(attack.seconds);
    let Range { start, end } = timeline.attack();
    let (lookups, logins, hammered, memory) = tokio::join!(
        timeline.beside(LOOKUPS, lookups),
        timeline.beside(LOGINS, logins),
        async {
            timeline.attack_begins().await;
            let (hammered, _) = closed_loop::run_until(arguments.clients, start..end, hammer, |_| None).await;
            hammered
        },
        memory::watch(process, timeline),
    );
    let others = [("look-ups", lookups), ("logins", logins)];
    let report = Attacked::new(attack.seconds, others, memory?).called("logins of the attacker", hammered);
    Ok(Report::Attacked(Box::new(report)))
}
