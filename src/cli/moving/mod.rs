//! `identity import` and `identity export`: tenants and users from elsewhere, and back.

mod files;
mod jsonl;
mod output;
mod progress;
mod protected;
mod summary;

use std::future::pending;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task;
use tokio::time::sleep;

use self::files::{ReportTargets, Reports, open_input};
use self::output::{Output, Target};
use self::summary::{check_ending, print_summary};
use super::arguments::{ExportArguments, ImportAction, ImportArguments};
use super::operator::Failure;
use super::streams::is_output_closed;
use super::{Outcome, database};
use crate::config::{DatabaseSettings, Environment, Fault, HashSettings, MaintenanceSettings};
use crate::crypto::Cost;
use crate::domain::{Actor, SystemClock};
use crate::service::moving::{Export, ImportError, ImportTerms, import, prisma};
use crate::storage::prisma::{OldSystem, OldSystemError};
use crate::storage::snapshot::LogGrowth;
use crate::storage::url::PostgresTarget;
use crate::storage::{DatabaseUrl, Storage};

pub(super) use protected::ProtectedFiles;

/// How many rows are written in one transaction: enough that its own cost does not show, few enough that
/// a running server waits for SQLite's lock for a fraction of a second.
const BATCH: usize = 5_000;

/// How long a statement may take. The limit of a server's calls would end an import on a slow disk.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a reader of an export may take for a page, which is some megabytes. What it reads is of one moment,
/// and all changes since then pile up in the database: in SQLite's log, in PostgreSQL's tables.
const UNREAD: Duration = Duration::from_secs(5 * 60);

/// How often the growth of SQLite's log is looked at while an export waits for its reader.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// What is imported from.
pub(super) enum Source {
    Prisma(Box<PostgresTarget>),
    Jsonl(PathBuf),
}

/// Where `action` imports from.
///
/// # Errors
/// What is wrong with the URL of the old system's database.
pub(super) fn source(action: &ImportAction, environment: &dyn Environment) -> Result<Source, Fault> {
    let from = match action {
        ImportAction::Jsonl { file, .. } => return Ok(Source::Jsonl(file.clone())),
        ImportAction::Prisma { from, .. } => from,
    };
    let fault = |problem: String| Fault { name: "IDENTITY_IMPORT_FROM (--from)".to_owned(), problem };
    let given = from.clone().or_else(|| environment.get("IDENTITY_IMPORT_FROM")?.into_string().ok());
    let given = given.ok_or_else(|| fault("must be the URL of the old system's database".to_owned()))?;
    match DatabaseUrl::parse(&given) {
        Ok((DatabaseUrl::Postgres(target), _)) => Ok(Source::Prisma(target)),
        Ok((DatabaseUrl::Sqlite { .. }, _)) => {
            Err(fault("must be a URL of PostgreSQL: postgres://…".to_owned()))
        }
        Err(problem) => Err(fault(problem.to_string())),
    }
}

/// Whoever runs the command, as far as the machine tells.
pub(super) fn operator(environment: &dyn Environment) -> Actor {
    Actor::Operator { name: super::operator::name(environment) }
}

/// Imports into the database of `settings`, whose servers make new hashes as `hash` says. Reports do not go to the
/// `protected` files.
///
/// # Errors
/// When it cannot go on. Refused rows are no error.
pub(super) fn run_import(
    settings: MaintenanceSettings,
    hash: &HashSettings,
    arguments: &ImportArguments,
    source: Source,
    mut protected: ProtectedFiles,
    actor: Actor,
) -> Outcome {
    protected.add_database(&settings.database.url);
    if let Source::Jsonl(path) = &source {
        protected.add_input(path);
    }
    let targets = ReportTargets::find(arguments, protected)?;
    database::run(&settings.log, &patient(&settings.database), async |storage| {
        let name = match source {
            Source::Prisma(_) => "prisma",
            Source::Jsonl(_) => "jsonl",
        };
        let max_cost = arguments.allow_cost.and_then(Cost::new).unwrap_or(hash.cost.dearest_floor());
        let terms = ImportTerms { actor, source: name, dry_run: arguments.dry_run, max_cost };
        let (sender, rows) = mpsc::channel(1);
        let (total, ending) = match source {
            Source::Prisma(target) => {
                let (system, rows) = open_old_system(&target)
                    .await
                    .map_err(|error| format!("the old system's database {target} cannot be read: {error}"))?;
                task::spawn(prisma::feed(system, BATCH, sender));
                (Some(rows), None)
            }
            Source::Jsonl(path) => {
                let input = open_input(&path)?;
                (None, Some(task::spawn_blocking(move || jsonl::feed(input, BATCH, &sender))))
            }
        };
        let mut reports = Reports::new(&targets, total).map_err(ImportError::Ledger)?;
        let counts = import(&storage, &SystemClock, &terms, rows, &mut reports).await;
        // What was refused until an import failed is of use as well.
        let finished = reports.finish().map_err(ImportError::Ledger);
        let counts = counts?;
        finished?;
        let printed = print_summary(&counts, arguments, &targets);
        if let Some(ending) = ending {
            check_ending(ending.await?)?;
        }
        printed
    })
}

/// The old system, with its number of rows.
async fn open_old_system(target: &PostgresTarget) -> Result<(OldSystem, u64), OldSystemError> {
    let mut system = OldSystem::open(target).await?;
    let (tenants, users) = system.count().await?;
    Ok((system, tenants + users))
}

/// Exports the database of `settings`, to none of the `protected` files.
///
/// # Errors
/// When the database fails, or the file cannot be written. A file is there when all of it is.
pub(super) fn run_export(
    settings: MaintenanceSettings,
    arguments: &ExportArguments,
    mut protected: ProtectedFiles,
    actor: Actor,
) -> Outcome {
    protected.add_database(&settings.database.url);
    let path = arguments.file.as_deref().unwrap_or(Path::new("-"));
    let target = Target::find(path, &protected)?;
    database::run(&settings.log, &patient(&settings.database), async |storage| {
        let failed = |error: io::Error| match Failure::from(error) {
            error if is_output_closed(&*error) => error,
            error => format!("cannot write {target}: {error}").into(),
        };
        let output = Output::open(&target).map_err(failed)?;
        let output = export(&storage, actor, output, arguments.log_limit).await?.map_err(failed)?;
        output.finish().map_err(failed)
    })
}

/// Reads the next page while the one before is written, and gives up when nobody takes that for [`UNREAD`], or when
/// SQLite's log has grown by more than `log_limit` MiB.
async fn export(
    storage: &Storage,
    actor: Actor,
    mut to: Output,
    log_limit: u32,
) -> Result<io::Result<Output>, Failure> {
    let mut export = Export::begin(storage, &SystemClock, actor).await?;
    let log = LogLimit { growth: export.log_growth(), mib: log_limit };
    let (sender, mut pages) = mpsc::channel::<Vec<u8>>(1);
    let writer = task::spawn_blocking(move || {
        while let Some(page) = pages.blocking_recv() {
            to.write_all(&page)?;
        }
        to.flush()?;
        Ok(to)
    });
    let mut text = jsonl::header();
    let mut rows = 0;
    loop {
        let page = export.next().await?;
        for row in &page {
            jsonl::write(&mut text, row)?;
        }
        rows += page.len() as u64;
        if page.is_empty() {
            text.extend(jsonl::end(rows));
        }
        let handing_over = hand_over(&sender, std::mem::take(&mut text));
        let is_taken = tokio::select! {
            biased;
            reached = log.reached() => return Err(reached.into()),
            is_taken = handing_over => is_taken?,
        };
        if !is_taken || page.is_empty() {
            break;
        }
    }
    // The database need not keep the moment any longer, however long the last page takes.
    drop((sender, export));
    Ok(writer.await?)
}

/// Hands a page to the writer; false when the writer has failed.
///
/// # Errors
/// When the writer has not taken the page before within [`UNREAD`].
async fn hand_over(writer: &mpsc::Sender<Vec<u8>>, page: Vec<u8>) -> Result<bool, String> {
    match writer.send_timeout(page, UNREAD).await {
        Ok(()) => Ok(true),
        Err(SendTimeoutError::Closed(_)) => Ok(false),
        Err(SendTimeoutError::Timeout(_)) => Err(format!(
            "the export was given up: nobody has read it for {}, and the database keeps all changes meanwhile. \
             Write it to a file first",
            humantime::format_duration(UNREAD)
        )),
    }
}

/// How much SQLite's log may grow during an export.
struct LogLimit {
    growth: Option<LogGrowth>,
    mib: u32,
}

impl LogLimit {
    /// Waits until the limit is reached, which is looked at right away as well. Returns what to tell.
    async fn reached(&self) -> String {
        let Some(growth) = &self.growth else { return pending().await };
        while growth.bytes() < u64::from(self.mib) << 20 {
            sleep(LOG_PERIOD).await;
        }
        format!(
            "the export was given up: SQLite's write-ahead log has grown by {} MiB since it began, and keeps all \
             changes until it ends. Write it to a file first, or allow more with --log-limit",
            self.mib
        )
    }
}

fn patient(settings: &DatabaseSettings) -> DatabaseSettings {
    DatabaseSettings { statement_limit: STATEMENT_LIMIT, ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_export_that_nobody_reads_is_given_up() {
        let (sender, mut pages) = mpsc::channel(1);
        assert_eq!(hand_over(&sender, b"first".to_vec()).await, Ok(true));
        let given_up = hand_over(&sender, b"second".to_vec()).await.unwrap_err();
        assert!(given_up.contains("nobody has read it for 5m"), "{given_up}");
        assert_eq!(pages.recv().await.unwrap(), b"first");
        assert_eq!(hand_over(&sender, b"third".to_vec()).await, Ok(true));
        drop(pages);
        assert_eq!(hand_over(&sender, b"fourth".to_vec()).await, Ok(false));
    }
}
