//! The crate as its users see it: against the real service, and against services that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod calls;
#[allow(dead_code, reason = "shared with the tests of the service")]
#[path = "../../../../tests/support/certificates.rs"]
mod certificates;
mod fake;
mod jwks;
mod keys;
mod layer;
mod retries;
mod service;
mod tls;
mod tokens;
