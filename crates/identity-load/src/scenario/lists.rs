//! Lists without a pause, of a tenant with many users: nobody else shall wait for the rows that they read.
//!
//! The tenant has to be there, see [`crate::import_file`].

use std::error::Error;
use std::ops::Range;

use super::{Stage, process};
use crate::calls::lists::{Lists, Query};
use crate::report::{Attacked, Report};
use crate::target::Connections;
use crate::timeline::Timeline;
use crate::users::{self, User};
use crate::{arguments, closed_loop, memory};

/// Of the calls in flight beside those that list users: for a prefix that no e-mail has, and for events.
const BESIDE: u32 = 8;

pub(super) async fn run(stage: &Stage, arguments: &arguments::Lists) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let lookups = stage.lookups().await?;
    let connections = Connections::open(stage.target, Some(attack.attacker), super::CONNECTIONS).await?;
    let member = users::of_large_tenant(&connections, "member").await?;
    let owner = users::of_large_tenant(&connections, "owner").await?;
    let lists = |caller: &User, query| Lists {
        connections: connections.clone(),
        caller: caller.clone(),
        query,
        pause: arguments.pause,
    };

    let timeline = Timeline::begin(attack.seconds);
    let Range { start, end } = timeline.attack();
    let keep_calling = async |clients, call: Lists| {
        timeline.attack_begins().await;
        let (mut within, outside) = closed_loop::run_until(clients, start..end, call, |_| None).await;
        // A list that outlives the attack is the longest of all.
        within.add(outside);
        within
    };
    let (lookups, found, not_found, events, memory) = tokio::join!(
        timeline.beside(arguments.rate.get(), lookups),
        keep_calling(arguments.in_flight, lists(&member, Query::Users("u"))),
        keep_calling(BESIDE, lists(&member, Query::Users("nobody-"))),
        keep_calling(BESIDE, lists(&owner, Query::Events)),
        memory::watch(process, timeline),
    );
    let report = Attacked::new(attack.seconds, [("look-ups", lookups)], memory?)
        .called("users by prefix", found)
        .called("users by a prefix of none", not_found)
        .called("events by action", events);
    Ok(Report::Attacked(Box::new(report)))
}
