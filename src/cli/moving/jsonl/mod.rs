//! Tenants and users as JSON lines: docs/moving-in.md has the fields.

mod read;
mod write;

pub(super) use read::feed;
pub(super) use write::{header, write};

/// What the first line says that it is.
const FORMAT: &str = "identity-export";
const VERSION: u64 = 1;
