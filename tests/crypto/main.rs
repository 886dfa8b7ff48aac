//! What other programs made, and what is known to break them: hashes and signatures.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod passwords;
mod signatures;
