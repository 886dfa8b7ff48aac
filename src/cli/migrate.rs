//! `identity migrate`: runs, lists and reverts the database's migrations.

use std::io::Write as _;

use super::arguments::{Consent, MigrateAction};
use super::operator::Failure;
use super::streams::StandardOutput;
use super::{Outcome, prompt};
use crate::config::{DatabaseSettings, MaintenanceSettings};
use crate::storage::migrate;
use crate::telemetry::logs;

/// Does `action` on the database of `settings`, and prints one line a migration.
///
/// # Errors
/// When the database cannot be reached or a migration fails, which leaves nothing behind; when consent to a revert
/// was neither given nor can be asked for.
pub(super) fn run(settings: MaintenanceSettings, action: MigrateAction) -> Outcome {
    if let MigrateAction::Revert { consent, .. } = action {
        prompt::require_consent(consent)?;
    }
    let _log = logs::init(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lines = runtime.block_on(perform(&settings.database, action))?;
    Ok(StandardOutput.write_all(lines.concat().as_bytes())?)
}

async fn perform(database: &DatabaseSettings, action: MigrateAction) -> Result<Vec<String>, Failure> {
    let DatabaseSettings { url, migration_wait: wait, .. } = database;
    Ok(match action {
        MigrateAction::Run => or_none(migrate::run(url, *wait).await?, "ran", "nothing to run"),
        MigrateAction::Status => migrate::status(url, *wait).await?.iter().map(status_line).collect(),
        MigrateAction::Revert { steps, consent } => {
            let steps = usize::try_from(steps.get()).unwrap_or(usize::MAX);
            or_none(revert(database, steps, consent).await?, "reverted", "nothing to revert")
        }
    })
}

async fn revert(database: &DatabaseSettings, steps: usize, consent: Consent) -> Result<Vec<String>, Failure> {
    let DatabaseSettings { url, migration_wait: wait, .. } = database;
    let all = migrate::status(url, *wait).await?;
    let applied = all.iter().rev().filter(|migration| migration.applied).take(steps);
    let names: Vec<_> = applied.map(|migration| migration.name.as_str()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let deed = format!("drops from {url} what these migrations hold, with the data: {}", names.join(", "));
    prompt::confirm(consent, &deed, "yes")?;
    Ok(migrate::revert(url, *wait, steps).await?)
}

fn or_none(names: Vec<String>, verb: &str, none: &str) -> Vec<String> {
    if names.is_empty() {
        return vec![format!("{none}\n")];
    }
    names.iter().map(|name| format!("{verb} {name}\n")).collect()
}

fn status_line(migration: &migrate::MigrationStatus) -> String {
    format!("{} {}\n", if migration.applied { "applied" } else { "pending" }, migration.name)
}
