//! Look-ups that never pause: what is left for logins, whose hash threads have the lowest priority.

use std::error::Error;
use std::time::Duration;

use super::Stage;
use crate::arguments;
use crate::closed_loop;
use crate::report::{Closed, Report, Saturate, ratio};

/// How many log in, in both phases.
const LOGIN_CLIENTS: u32 = 32;

/// Long enough for a place at the end of a queue of all of them.
const LOGIN_DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn run(stage: &Stage, arguments: &arguments::Saturate) -> Result<Report, Box<dyn Error>> {
    let logins = stage.logins(LOGIN_DEADLINE).await?;
    let lookups = stage.lookups().await?;
    let seconds = arguments.seconds;
    let logins_alone = Closed::from(closed_loop::run(LOGIN_CLIENTS, seconds, logins.clone()).await);
    let (logins, lookups) = tokio::join!(
        closed_loop::run(LOGIN_CLIENTS, seconds, logins),
        closed_loop::run(arguments.clients, seconds, lookups),
    );
    let logins_beside = Closed::from(logins);
    let logins_ratio = ratio(logins_beside.ok_per_second, logins_alone.ok_per_second);
    let lookups = lookups.into();
    Ok(Report::Saturate(Box::new(Saturate { logins_alone, logins_beside, logins_ratio, lookups })))
}
