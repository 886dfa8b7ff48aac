//! Passwords: what may be one, and the form in which they are kept.

use std::fmt;

use zeroize::Zeroizing;

/// A password exactly as received: 1 to 1,024 bytes of UTF-8, erased when dropped.
/// `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
