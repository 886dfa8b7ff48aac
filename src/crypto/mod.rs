//! Passwords, tokens and keys: the only user of bcrypt, JWT and random bytes.
//!
//! [`hasher`] computes and checks password hashes on threads of its own. [`master_key`] is the one
//! secret that all others are derived from or sealed under. [`access_token`] signs and verifies
//! JWTs with the keys of [`signing_key`], [`refresh_token`] and [`fingerprint`] make values that
//! nobody else can. What is allowed, and what is stored where, is decided elsewhere; the time comes
//! in as a parameter.

pub mod hasher;
mod random;
mod scheme;

pub use hasher::{Cost, HashError, Hasher, HasherSettings, Verdict};
