//! `identity serve`: runs the server until a signal to stop.

use super::Outcome;
use crate::config::{Resolved, Settings};

/// Serves with the resolved settings. The warnings are for the log, once it is open.
///
/// # Errors
/// Always: the server is not wired up yet.
pub(super) fn run(resolved: Resolved<Settings>) -> Outcome {
    Err(format!("cannot serve on {} yet", resolved.settings.server.listen).into())
}
