//! `identity migrate`: runs, lists and reverts the database's migrations.

use std::io::Write as _;

use super::Outcome;
use super::arguments::MigrateAction;
use crate::config::MaintenanceSettings;
use crate::storage::{DatabaseUrl, StorageError, migrate};
use crate::telemetry::logs;

/// Does `action` on the database of `settings`, and prints one line a migration.
///
/// # Errors
/// When the database cannot be reached or a migration fails, which leaves nothing behind.
pub(super) fn run(settings: MaintenanceSettings, action: MigrateAction) -> Outcome {
    logs::init(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lines = runtime.block_on(perform(&settings.database.url, action))?;
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn perform(url: &DatabaseUrl, action: MigrateAction) -> Result<Vec<String>, StorageError> {
    Ok(match action {
        MigrateAction::Run => or_none(migrate::run(url).await?, "ran", "nothing to run"),
        MigrateAction::Status => migrate::status(url).await?.iter().map(status_line).collect(),
        MigrateAction::Revert { steps } => {
            let steps = usize::try_from(steps.get()).unwrap_or(usize::MAX);
            or_none(migrate::revert(url, steps).await?, "reverted", "nothing to revert")
        }
    })
}

fn or_none(names: Vec<String>, verb: &str, none: &str) -> Vec<String> {
    if names.is_empty() {
        return vec![none.to_owned()];
    }
    names.iter().map(|name| format!("{verb} {name}")).collect()
}

fn status_line(migration: &migrate::MigrationStatus) -> String {
    format!("{} {}", if migration.applied { "applied" } else { "pending" }, migration.name)
}
