//! `identity keys`: makes keys.

use std::io::Write as _;

use super::Outcome;
use super::arguments::KeysAction;
use crate::crypto::MasterKey;

/// Prints the key that `action` asks for, and a line feed.
///
/// # Errors
/// When standard output is closed.
pub(super) fn run(action: KeysAction) -> Outcome {
    match action {
        KeysAction::Master => {
            writeln!(std::io::stdout(), "{}", *MasterKey::generate().to_base64())?;
            Ok(())
        }
    }
}
