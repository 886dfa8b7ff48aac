//! What other Rust services depend on to use the identity service: [`Client`] makes its calls, with deadlines,
//! one repetition of what may be repeated, TLS and the credentials of a service.
//!
//! The contract itself, with the rules of every field, is `proto/identity/v1`.

mod client;
mod config;
mod error;
mod model;
mod proto;
mod retry;

pub use client::Client;
pub use config::{ClientConfig, ConfigError};
pub use error::{Error, ErrorKind, InvalidField};
pub use model::{Claims, Login, Registration, Role, Session, SessionPage, Tenant, Tokens, User};
pub use uuid::Uuid;

/// The examples of the README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
