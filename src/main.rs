//! The `identity` command.

use std::process::ExitCode;

/// Gives memory back to the system soon after it was freed, where that of glibc keeps most of what a burst of large
/// replies took (docs/performance.md, "Floods").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    identity::cli::main(std::env::args_os(), &identity::config::ProcessEnvironment)
}
