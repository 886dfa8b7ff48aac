//! A user whose row another transaction has locked in PostgreSQL logs in again and again: nobody else shall
//! wait for that row.

use std::error::Error;
use std::sync::Arc;

use tokio_postgres::{Client, NoTls};

use super::{OTHER_LOGIN_DEADLINE, Stage, process};
use crate::calls::Logins;
use crate::report::{Attacked, Report};
use crate::target::Connections;
use crate::timeline::Timeline;
use crate::users::User;
use crate::{arguments, memory, open_loop};

/// What others do each second.
const LOOKUPS: u32 = 200;
const LOGINS: u32 = 5;

pub(super) async fn run(stage: &Stage, arguments: &arguments::Locked) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let (victim, rest) =
        stage.users.split_first().filter(|(_, rest)| !rest.is_empty()).ok_or("two users are needed")?;
    let others = Stage { target: stage.target, users: rest.into() };
    let (lookups, logins) = (others.lookups().await?, others.logins(OTHER_LOGIN_DEADLINE).await?);
    let locked = Logins {
        connections: Connections::open(stage.target, Some(attack.attacker), super::CONNECTIONS).await?,
        users: Arc::from([victim.clone()]),
        deadline: OTHER_LOGIN_DEADLINE,
    };
    let database: tokio_postgres::Config = arguments.database.parse()?;
    let (database, connection) = database.connect(NoTls).await?;
    tokio::spawn(connection);

    let timeline = Timeline::begin(attack.seconds);
    let offer = open_loop::Offer { rate: arguments.rate.get(), seconds: attack.seconds };
    let (lookups, logins, locked, memory) = tokio::join!(
        timeline.beside(LOOKUPS, lookups),
        timeline.beside(LOGINS, logins),
        async {
            timeline.attack_begins().await;
            lock(&database, victim).await?;
            let offered = open_loop::run(offer, locked).await;
            database.batch_execute("ROLLBACK").await?;
            Ok::<_, Box<dyn Error>>(offered.tally)
        },
        memory::watch(process, timeline),
    );
    let others = [("look-ups", lookups), ("logins", logins)];
    let report = Attacked::new(attack.seconds, others, memory?).called("logins of the locked user", locked?);
    Ok(Report::Attacked(Box::new(report)))
}

/// Locks the row of `user` until the transaction ends.
async fn lock(database: &Client, user: &User) -> Result<(), Box<dyn Error>> {
    database.batch_execute("BEGIN").await?;
    let locked =
        database.query("SELECT FROM users WHERE id = $1::text::uuid FOR UPDATE", &[&user.id]).await?;
    if locked.is_empty() { Err("the user is not in that database".into()) } else { Ok(()) }
}
