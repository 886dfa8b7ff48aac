//! What stands between a connection and the services, over the wire.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod calls;
#[path = "../support/certificates.rs"]
mod certificates;
mod connections;
mod crowds;
mod headers;
mod health;
mod logs;
#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../support/raw.rs"]
mod raw;
mod replies;
mod resets;
mod server;
mod tls;
