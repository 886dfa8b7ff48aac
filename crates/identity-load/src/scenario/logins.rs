//! Logins without a pause: how many a second the service can serve.

use std::error::Error;

use super::Stage;
use crate::arguments::Logins;
use crate::closed_loop;
use crate::report::Report;

pub(super) async fn run(stage: &Stage, arguments: &Logins) -> Result<Report, Box<dyn Error>> {
    let logins = stage.logins(arguments.deadline).await?;
    let reached = closed_loop::run(arguments.clients, arguments.seconds, logins).await;
    Ok(Report::Logins(reached.into()))
}
