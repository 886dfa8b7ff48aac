//! The commands with which operators change users, tenants and the audit log: the real binary, on either
//! database, beside a server where that matters.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod lists;
mod shell;
mod tenants;
mod terminal;
mod users;
