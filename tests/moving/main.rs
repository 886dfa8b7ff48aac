//! `identity import` and `identity export` as an operator runs them, on both databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod costs;
mod deleted;
mod encodings;
mod export;
mod files;
mod fixture;
mod interruptions;
mod jsonl;
mod old_system;
#[path = "../storage/sql.rs"]
#[allow(dead_code, reason = "only a part is used here")]
mod sql;
#[path = "../support/mod.rs"]
mod support;
