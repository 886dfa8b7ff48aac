//! Tenants and users as JSON lines: docs/moving-in.md has the fields.

mod foreign;
mod read;
mod write;

pub(super) use read::{Ending, feed};
pub(super) use write::{end, header, write};

/// What the first line says that it is.
const FORMAT: &str = "identity-export";
const VERSION: u64 = 1;

/// What the last line says that it is.
const END: &str = "identity-export-end";
