//! The life of a server: how it starts, stops, and outlives crashes and outages of its database.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod audit;
mod clients;
mod crash;
mod crowds;
mod deletion;
mod failover;
mod faults;
mod hangup;
mod http;
mod keys;
mod leaving;
mod logs;
mod malformed;
mod migrations;
mod outage;
mod readiness;
mod refresh;
mod rotation;
mod sqlite_file;
mod standing;
mod start;
mod stop;
mod tls;
mod unread;
mod unwritable;
