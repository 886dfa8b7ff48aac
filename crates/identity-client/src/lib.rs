//! What other Rust services depend on to use the identity service:
//!
//! - [`Client`] makes its calls: with deadlines, one repetition of what may be repeated, TLS and the
//!   credentials of a service;
//! - [`Verifier`] verifies access tokens without a call, with keys that it fetches and keeps up to date;
//! - [`RequireToken`] is a tower layer that lets only those through who have a valid access token, and puts
//!   its [`Claims`] into the request's extensions.
//!
//! The contract itself, with the rules of every field, is `proto/identity/v1`.

mod client;
mod config;
mod error;
mod layer;
mod model;
mod proto;
mod retry;
mod verifier;

pub use client::Client;
pub use config::{ClientConfig, ConfigError};
pub use error::{Error, ErrorKind, InvalidField};
pub use layer::{Guarded, RequireToken};
pub use model::{Claims, Login, Registration, Role, Session, SessionPage, Tenant, Tokens, User};
pub use uuid::Uuid;
pub use verifier::{InvalidToken, Verifier, VerifierConfig, VerifyError};

/// The examples of the README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
