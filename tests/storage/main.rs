//! What storage promises, on both databases: the same promises, the same tests.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod audit;
mod directory;
mod failover;
mod faults;
mod fixture;
mod lists;
mod migrations;
mod pool;
mod removal;
mod rows;
mod rules;
mod schema;
mod sessions;
mod sql;
mod sqlite_file;
mod transactions;
mod units;
