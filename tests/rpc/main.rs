//! The calls of the identity service over the wire, on both databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod access_token;
mod admission;
mod attacks;
mod attempts;
mod audit;
mod bad_input;
mod database;
mod directory;
mod fairness;
mod fixture;
mod get_user;
mod interruptions;
mod isolation;
mod keys;
mod login;
mod passwords;
mod refresh;
mod register;
mod registration_limits;
mod request_id;
mod services;
mod sessions;
mod startup;
#[path = "../support/mod.rs"]
mod support;
mod world;
