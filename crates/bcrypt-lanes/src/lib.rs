#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod hash;
mod job;
mod kernel;
mod lanes;
mod measure;
mod pi;

pub use hash::{Hash, NotAHash, Variant};
pub use job::{Cost, Digest, Goal, Job, Key, MAX_KEY_BYTES, Outcome, Salt, same};
pub use lanes::{Advance, Lanes, Width};
pub use measure::Measurement;

/// Computes one bcrypt, from its beginning to its end, on the calling thread.
///
/// For many at once, or for work in slices, use [`Lanes`].
pub fn bcrypt(key: &Key, salt: &Salt, cost: Cost) -> Digest {
    let mut lanes = Lanes::new(Width::MIN);
    let job = Job::hash(key.clone(), *salt, cost);
    if lanes.join((), job).is_err() {
        unreachable!("nothing is in flight yet");
    }
    loop {
        if let Some(((), Outcome::Digest(digest))) = lanes.advance(u32::MAX).finished.pop() {
            return digest;
        }
    }
}
