//! What computes bcrypt. The one thing to replace in order to compute it faster.

use crate::crypto::scheme::{Digest, Key, Salt};

use super::Cost;

/// One bcrypt computation.
pub(super) struct Computation {
    /// How much work it is.
    pub(super) cost: Cost,
    /// The salt.
    pub(super) salt: Salt,
    /// The key that the password became.
    pub(super) key: Key,
}

/// Computes bcrypt on the thread that calls it. Every worker has an engine of its own.
pub(super) trait Engine: Send + 'static {
    /// The digest of `computation`, after as long as it takes.
    fn compute(&mut self, computation: &Computation) -> Digest;
}

/// The `bcrypt` crate: one computation at a time.
pub(super) struct BcryptCrate;

impl Engine for BcryptCrate {
    fn compute(&mut self, Computation { cost, salt, key }: &Computation) -> Digest {
        let output = bcrypt::bcrypt(cost.get(), *salt, key.as_bytes());
        *output.first_chunk().expect("24 bytes begin with 23")
    }
}
