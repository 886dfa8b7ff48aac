//! `identity import` and `identity export`: tenants and users from elsewhere, and back.

mod arguments;
mod files;
mod jsonl;
mod progress;
mod summary;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task;

use self::files::{Reports, open_input};
use self::summary::print_summary;
use super::{Outcome, database};
use crate::config::{DatabaseSettings, Environment, Fault, MaintenanceSettings};
use crate::domain::{Actor, SystemClock};
use crate::service::moving::{Export, ImportTerms, import, prisma};
use crate::storage::prisma::OldSystem;
use crate::storage::url::PostgresTarget;
use crate::storage::{DatabaseUrl, Storage};

pub(super) use arguments::{ExportArguments, ImportAction, ImportArguments};

/// How many rows are written in one transaction: enough that its own cost does not show, few enough that
/// a running server waits for SQLite's lock for a fraction of a second.
const BATCH: usize = 5_000;

/// How long a statement may take. The limit of a server's calls would end an import on a slow disk.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10 * 60);

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

/// Imports into the database of `settings`.
///
/// # Errors
/// When it cannot go on. Refused rows are no error.
pub(super) fn run_import(
    settings: MaintenanceSettings,
    arguments: &ImportArguments,
    source: Source,
    actor: Actor,
) -> Outcome {
    database::run(&settings.log, &patient(&settings.database), async |storage| {
        let name = match source {
            Source::Prisma(_) => "prisma",
            Source::Jsonl(_) => "jsonl",
        };
        let terms = ImportTerms { actor, source: name, dry_run: arguments.dry_run };
        let (sender, rows) = mpsc::channel(1);
        let mut total = None;
        match source {
            Source::Prisma(target) => {
                let mut system = OldSystem::open(&target)
                    .await
                    .map_err(|error| format!("the old system's database {target} cannot be read: {error}"))?;
                let (tenants, users) = system.count().await?;
                total = Some(tenants + users);
                task::spawn(prisma::feed(system, BATCH, sender));
            }
            Source::Jsonl(path) => {
                let input = open_input(&path)?;
                task::spawn_blocking(move || jsonl::feed(input, BATCH, &sender));
            }
        }
        let mut reports = Reports::new(arguments, total)?;
        let counts = import(&storage, &SystemClock, &terms, rows, &mut reports).await;
        reports.finish()?;
        print_summary(&counts?, arguments)
    })
}

/// Exports the database of `settings`.
///
/// # Errors
/// When the database fails, or the file cannot be written. A file is there when all of it is.
pub(super) fn run_export(
    settings: MaintenanceSettings,
    arguments: &ExportArguments,
    actor: Actor,
) -> Outcome {
    database::run(&settings.log, &patient(&settings.database), async |storage| {
        match arguments.file.as_deref().filter(|file| *file != Path::new("-")) {
            None => {
                export(&storage, actor, io::stdout()).await?;
            }
            Some(path) => {
                let output = files::Output::create(path)?;
                export(&storage, actor, output.file()?).await?;
                output.keep()?;
            }
        }
        Ok(())
    })
}

/// Reads the next page while the one before is written, however slow that is.
async fn export(storage: &Storage, actor: Actor, mut to: impl Write + Send + 'static) -> Outcome {
    let mut export = Export::begin(storage, &SystemClock, actor).await?;
    let (sender, mut pages) = mpsc::channel::<Vec<u8>>(1);
    let writer = task::spawn_blocking(move || {
        while let Some(page) = pages.blocking_recv() {
            to.write_all(&page)?;
        }
        to.flush()
    });
    let mut text = jsonl::header();
    loop {
        let page = export.next().await?;
        for row in &page {
            jsonl::write(&mut text, row)?;
        }
        // The writer has failed.
        if sender.send(std::mem::take(&mut text)).await.is_err() || page.is_empty() {
            break;
        }
    }
    drop(sender);
    writer.await?.map_err(|error| format!("cannot write the export: {error}"))?;
    Ok(())
}

fn patient(settings: &DatabaseSettings) -> DatabaseSettings {
    DatabaseSettings { statement_limit: STATEMENT_LIMIT, ..settings.clone() }
}
