//! How passwords are hashed, and which new ones are taken.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::declared::{
    IDENTITY_BCRYPT_COST, IDENTITY_HASH_ENGINE, IDENTITY_HASH_LANES, IDENTITY_HASH_MAX_WAIT,
    IDENTITY_HASH_THREADS, IDENTITY_PASSWORD_MIN_LENGTH,
};
use crate::config::read::Reader;
use crate::crypto::hasher::{Cost, HashEngine};
use crate::domain::PasswordPolicy;

/// Below this, a stolen hash is guessed too fast (OWASP Password Storage Cheat Sheet, "bcrypt").
const ADVISED_BCRYPT_COST: u32 = 10;

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub struct HashSettings {
    /// The bcrypt cost of new hashes.
    pub cost: Cost,
    /// Threads that compute hashes; `None` takes what the machine has to offer.
    pub threads: Option<NonZeroUsize>,
    /// Hashes that each thread computes side by side, 1 to 8; `None` finds out what is best.
    pub lanes: Option<NonZeroUsize>,
    /// How long a caller without a deadline waits at most for a hash.
    pub max_wait: Duration,
    /// What computes them.
    pub engine: HashEngine,
}

pub(super) fn read(reader: &mut Reader<'_>) -> HashSettings {
    let cost = reader.get(&IDENTITY_BCRYPT_COST);
    if cost < ADVISED_BCRYPT_COST {
        let warning = "below 10, stolen hashes are guessed too fast; this is for tests only";
        reader.warn(&IDENTITY_BCRYPT_COST, warning);
    }
    HashSettings {
        cost: Cost::new(cost).expect("the setting has the range of the costs"),
        threads: reader.given(&IDENTITY_HASH_THREADS),
        lanes: reader.given(&IDENTITY_HASH_LANES),
        max_wait: reader.get(&IDENTITY_HASH_MAX_WAIT),
        engine: reader.get(&IDENTITY_HASH_ENGINE),
    }
}

pub(super) fn policy(reader: &mut Reader<'_>) -> PasswordPolicy {
    PasswordPolicy::new(reader.get(&IDENTITY_PASSWORD_MIN_LENGTH) as usize)
}
