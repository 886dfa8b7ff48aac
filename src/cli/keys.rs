//! `identity keys`: makes keys.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Outcome;
use super::arguments::KeysAction;

/// Prints the key that `action` asks for, and a line feed.
///
/// # Errors
/// Without random bytes, or when standard output is closed.
pub(super) fn run(action: KeysAction) -> Outcome {
    match action {
        KeysAction::Master => {
            let key = master_key()?;
            writeln!(std::io::stdout(), "{}", *key)?;
            Ok(())
        }
    }
}

/// A fresh master key in base64.
///
/// Placeholder: becomes `crypto::master_key::MasterKey::generate().to_base64()`.
fn master_key() -> Result<Zeroizing<String>, Box<dyn std::error::Error + Send + Sync>> {
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| "the system gives no random bytes")?;
    Ok(Zeroizing::new(STANDARD.encode(bytes.as_ref())))
}
