//! Drives a running identity service over gRPC, on the same machine, and says what it did.
//!
//! Every run ends by itself, every call ends in a count by its code, and latency under a fixed rate is
//! taken from when a call was due, not from when it could be sent. What figures are good enough is
//! left to `benches/logins` and `benches/flood`.

mod arguments;
mod calls;
mod closed_loop;
mod import_file;
mod memory;
mod open_loop;
mod raw;
mod report;
mod scenario;
mod tally;
mod target;
mod timeline;
mod users;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use self::arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("identity-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let scenario = match arguments.command {
        Command::ImportFile(arguments) => {
            return Ok(import_file::write(arguments.users, io::stdout().lock())?);
        }
        Command::Scenario(scenario) => scenario,
    };
    let report = scenario::run(&scenario).await?;
    if scenario.common().json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
