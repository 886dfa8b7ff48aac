//! `identity migrate`: runs, lists and reverts the database's migrations.

use super::Outcome;
use super::arguments::MigrateAction;
use crate::config::MaintenanceSettings;

/// Does `action` on the database of `settings`.
///
/// # Errors
/// Always: migrations are not wired up yet.
pub(super) fn run(settings: MaintenanceSettings, action: MigrateAction) -> Outcome {
    Err(format!("cannot {action:?} on {} yet", settings.database.url).into())
}
