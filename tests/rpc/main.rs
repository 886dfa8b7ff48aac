//! Register, Login and GetUser over the wire, on both databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access_token;
mod bad_input;
mod database;
mod fixture;
mod get_user;
mod interruptions;
mod keys;
mod login;
mod passwords;
mod register;
mod request_id;
mod startup;
#[path = "../support/mod.rs"]
mod support;
