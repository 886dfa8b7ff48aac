//! The `identity` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    identity::cli::main(std::env::args_os(), &identity::config::ProcessEnvironment)
}
