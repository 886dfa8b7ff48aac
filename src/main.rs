//! The `identity` command.

use std::process::ExitCode;

/// A call allocates some hundred times, and frees on other threads than it allocated on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    identity::cli::main(std::env::args_os(), &identity::config::ProcessEnvironment)
}
