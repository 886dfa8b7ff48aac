//! What commands have in common that work on the database and need no running server.

use std::error::Error;
use std::time::Duration;

use super::Outcome;
use crate::config::{DatabaseSettings, LogSettings};
use crate::storage::{LaneSizes, Storage, StorageSettings, migrate};
use crate::telemetry::logs;

/// How long a command waits for a connection: nobody but itself can be in its way, however slow the database is.
const QUEUE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Runs `command` on the database, which is closed in order afterwards, with logging on.
///
/// # Errors
/// When the database cannot be reached, or its schema is older than this program; else what `command`
/// fails with.
pub(super) fn run(
    log: &LogSettings,
    database: &DatabaseSettings,
    command: impl AsyncFnOnce(Storage) -> Outcome,
) -> Outcome {
    let _log = logs::init(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let storage = open(database).await?;
        let outcome = command(storage.clone()).await;
        storage.close().await;
        outcome
    });
    // A thread may be writing to somebody who does not read.
    runtime.shutdown_background();
    outcome
}

async fn open(settings: &DatabaseSettings) -> Result<Storage, Box<dyn Error + Send + Sync>> {
    let pending = migrate::pending(&settings.url).await?.len();
    if pending > 0 {
        return Err(format!("the database lacks {pending} migrations: run `identity migrate run`").into());
    }
    let lanes = LaneSizes::of_command(settings.connections);
    Ok(Storage::new(&StorageSettings { queue_limit: QUEUE_LIMIT, ..settings.storage(lanes) })?)
}
