//! Passwords, tokens and keys: the only user of bcrypt and JWT, and the only source of random bytes,
//! but for those that make a UUIDv7 unique.
//!
//! [`hasher`] computes and checks password hashes on threads of its own; [`calibration`] finds out
//! what they can afford. [`master_key`] is the one secret that all others are derived from or sealed
//! under. [`access_token`] signs and verifies JWTs, each a [`jws`], with the [`keyring`] of
//! [`signing_key`]s and [`verifying_key`]s; [`refresh_token`], [`page_token`], [`service_token`] and
//! [`fingerprint`] make values that nobody else can. [`foreign`] takes over what another system made.
//! [`tls`] reads the files that TLS is served with. What is allowed, and what is stored where, is
//! decided elsewhere; the time comes in as a parameter.

pub mod access_token;
pub mod calibration;
pub mod fingerprint;
pub mod foreign;
pub mod hasher;
pub mod jws;
pub mod keyring;
mod mac_keys;
pub mod master_key;
pub mod page_token;
mod random;
pub mod refresh_token;
mod scheme;
pub mod service_token;
pub mod signing_key;
pub mod tls;
pub mod verifying_key;

pub use access_token::{AccessClaims, AccessToken, AccessTokens, InvalidToken, TokenSettings, TokenSubject};
pub use fingerprint::Fingerprinter;
pub use hasher::{Cost, HashError, Hasher, HasherSettings, Terms, Verdict};
pub use keyring::{Keyring, PublishedKeys};
pub use master_key::{DerivedKey, MasterKey, MasterKeyError, MasterKeys, Unsealable};
pub use refresh_token::{
    InvalidRefreshToken, ParsedRefreshToken, RefreshToken, RefreshTokens, SessionSecret,
};
pub use signing_key::{NewSigningKey, ShortSecret, SigningKey};
pub use verifying_key::{KeyAlgorithm, UnreadableKey, VerifyingKey};
