//! The command line: `identity serve`, `migrate`, `keys`, `service-token`, `user`, `tenant`, `audit`, `import`,
//! `export` and `calibrate`, one file or folder each.
//!
//! Exit codes: 0 when done, also when nobody reads the output to its end; 1 when a command failed; 64 when the
//! command line or the configuration is wrong (`EX_USAGE` of sysexits.h).

mod arguments;
mod audit;
mod calibrate;
mod database;
mod keys;
mod migrate;
mod moving;
mod operator;
mod passwords;
mod prompt;
mod reload;
mod serve;
mod service_token;
mod streams;
mod table;
mod tenant;
mod user;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use clap::Parser as _;

use crate::config::{Environment, Fault, HashSettings, KeySettings, MaintenanceSettings, Resolved, Settings};
use crate::telemetry::lines::LineWriter;
use crate::telemetry::logs::LAST_LINES;
use arguments::{Cli, Command, KeysAction, ServiceTokenAction};
use moving::ProtectedFiles;
use streams::is_output_closed;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// How a command ends. The error's own text is what the operator reads.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A command line that is wrong in a way that only the command can tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Runs the command that `arguments`, the program's name first, ask for. Results go to standard
/// output, everything else to standard error.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: &dyn Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => return show(answer),
    };
    match run(cli, environment) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if is_output_closed(&*error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tell(&format!("identity: {error}"));
            if error.is::<Misuse>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
        Err(faults) => {
            report(&faults);
            ExitCode::from(USAGE)
        }
    }
}

/// Prints what clap answers instead of a command: help, or what is wrong with the command line. The latter gets as
/// long as [`tell`] gives a line: a server that is started with a wrong flag ends although nobody reads why.
fn show(answer: clap::Error) -> ExitCode {
    if !answer.use_stderr() {
        // Nothing is left to tell when standard output is closed.
        _ = answer.print();
        return ExitCode::SUCCESS;
    }
    let (printed, printing) = mpsc::channel();
    let print = move || {
        _ = answer.print();
        // Nobody waits any more when the time is up.
        _ = printed.send(());
    };
    if thread::Builder::new().spawn(print).is_ok() {
        _ = printing.recv_timeout(LAST_LINES);
    }
    ExitCode::from(USAGE)
}

/// The command's outcome, or the faults for which it was not started.
fn run(cli: Cli, environment: &dyn Environment) -> Result<Outcome, Vec<Fault>> {
    Ok(match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(Settings::resolve(&cli.flags, environment)?),
        Command::Migrate { action } => {
            let settings = warned(MaintenanceSettings::resolve(&cli.flags, environment)?);
            migrate::run(settings, action)
        }
        Command::ServiceToken { action } => {
            let by = operator::authority(environment);
            let settings = || MaintenanceSettings::resolve(&cli.flags, environment).map(warned);
            match action {
                ServiceTokenAction::Create(new) => {
                    service_token::create(warned(KeySettings::resolve(&cli.flags, environment)?), &by, new)
                }
                ServiceTokenAction::List { json } => service_token::list(settings()?, json),
                ServiceTokenAction::Revoke { id } => service_token::revoke(settings()?, &by, id),
            }
        }
        Command::Import { action } => {
            let settings = warned(MaintenanceSettings::resolve(&cli.flags, environment)?);
            let source = moving::source(&action, environment).map_err(|fault| vec![fault])?;
            let hash = warned(HashSettings::resolve(&cli.flags, environment)?);
            let protected = ProtectedFiles::of_settings(&cli.flags, environment);
            let by = moving::operator(environment);
            moving::run_import(settings, &hash, action.arguments(), source, protected, by)
        }
        Command::Export(arguments) => {
            let settings = warned(MaintenanceSettings::resolve(&cli.flags, environment)?);
            let protected = ProtectedFiles::of_settings(&cli.flags, environment);
            moving::run_export(settings, &arguments, protected, moving::operator(environment))
        }
        Command::Keys { action } => match action {
            KeysAction::Master { reseal: false } => keys::print_master(),
            KeysAction::List { json } => {
                keys::list(warned(MaintenanceSettings::resolve(&cli.flags, environment)?), json)
            }
            KeysAction::Rotate { .. } | KeysAction::Retire { .. } | KeysAction::Master { reseal: true } => {
                let settings = warned(KeySettings::resolve(&cli.flags, environment)?);
                keys::change(settings, operator::authority(environment), action)
            }
        },
        Command::User(command) => user::run(command, &cli.flags, environment)?,
        Command::Tenant(command) => tenant::run(command, &cli.flags, environment)?,
        Command::Audit(command) => audit::run(command, &cli.flags, environment)?,
        Command::Calibrate(arguments) => {
            let settings = warned(HashSettings::resolve(&cli.flags, environment)?);
            calibrate::run(&settings, arguments)
        }
    })
}

/// The settings, after their warnings were told.
fn warned<T>(Resolved { settings, warnings }: Resolved<T>) -> T {
    warnings.iter().for_each(|warning| tell(&format!("identity: {warning}")));
    settings
}

fn report(faults: &[Fault]) {
    let count = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    let mut text = format!("identity: the configuration has {count}");
    for fault in faults {
        text += &format!("\n  {fault}");
    }
    tell(&text);
}

/// Writes a line to standard error before or after the log, and gives up after [`LAST_LINES`] if the pipe is full.
fn tell(text: &str) {
    // Without a standard error there is nothing to write to.
    if let Ok(lines) = LineWriter::start(io::stderr(), drop) {
        lines.push(format!("{text}\n").as_bytes());
        lines.flush(LAST_LINES);
    }
}
