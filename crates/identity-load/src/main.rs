//! Drives a running identity service over gRPC, on the same machine, and says what it did.
//!
//! Every run ends by itself, every call ends in a count by its code, and latency under a fixed rate is
//! taken from when a call was due, not from when it could be sent. What figures are good enough is
//! left to `benches/logins`.

mod arguments;
mod calls;
mod closed_loop;
mod memory;
mod open_loop;
mod report;
mod scenario;
mod tally;
mod target;
mod users;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;

use self::arguments::Arguments;

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
    let report = scenario::run(&arguments.scenario).await?;
    if arguments.scenario.common().json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
