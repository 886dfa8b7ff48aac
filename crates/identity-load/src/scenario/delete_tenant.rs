//! A tenant of many users is deleted: nobody else shall wait for its rows to go.
//!
//! The tenant has to be there, see [`crate::import_file`].

use std::error::Error;
use std::time::{Duration, Instant};

use identity::proto::v1::DeleteTenantRequest;

use super::{OTHER_LOGIN_DEADLINE, Stage, process};
use crate::calls::{outcome, request_by};
use crate::report::{Attacked, Report};
use crate::tally::Tally;
use crate::target::Connections;
use crate::timeline::Timeline;
use crate::users::{self, User};
use crate::{arguments, memory};

/// What others do each second.
const LOOKUPS: u32 = 200;
const REFRESHES: u32 = 20;
const REGISTRATIONS: u32 = 10;
const LOGINS: u32 = 10;

/// The longest that the service lets a call take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    stage: &Stage,
    arguments: &arguments::DeleteTenant,
) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let (lookups, refreshes) = (stage.lookups().await?, stage.refreshes().await?);
    let (registrations, logins) = (stage.registrations().await?, stage.logins(OTHER_LOGIN_DEADLINE).await?);
    let connections = Connections::open(stage.target, Some(attack.attacker), 1).await?;
    let owner = users::of_large_tenant(&connections, "owner").await?;

    let timeline = Timeline::begin(attack.seconds);
    let (lookups, refreshes, registrations, logins, deletion, memory) = tokio::join!(
        timeline.beside(LOOKUPS, lookups),
        timeline.beside(REFRESHES, refreshes),
        timeline.beside(REGISTRATIONS, registrations),
        timeline.beside(LOGINS, logins),
        delete(&connections, &owner, timeline),
        memory::watch(process, timeline),
    );
    let others = [
        ("look-ups", lookups),
        ("refreshes", refreshes),
        ("registrations", registrations),
        ("logins", logins),
    ];
    let report = Attacked::new(attack.seconds, others, memory?).called("deletion", deletion);
    Ok(Report::Attacked(Box::new(report)))
}

/// Deletes the tenant of `owner` when the attack begins.
async fn delete(connections: &Connections, owner: &User, timeline: Timeline) -> Tally {
    timeline.attack_begins().await;
    let due = Instant::now();
    let deadline = due + DEADLINE;
    let delete = DeleteTenantRequest { tenant_id: owner.tenant_id.clone(), ..DeleteTenantRequest::default() };
    let answer = connections.directory(0).delete_tenant(request_by(&owner.bearer, delete, deadline)).await;
    let mut tally = Tally::default();
    tally.record(&outcome(answer, due, deadline));
    tally
}
