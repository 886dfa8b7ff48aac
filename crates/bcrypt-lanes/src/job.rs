//! What is asked of a lane, and what comes back.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::kernel::Subkeys;

/// Most bytes of a key that bcrypt looks at: Blowfish's 18 subkeys.
pub const MAX_KEY_BYTES: usize = 72;

/// What bcrypt is salted with.
pub type Salt = [u8; 16];

/// What bcrypt yields: of the 24 bytes that it computes, the 23 that every implementation keeps.
pub type Digest = [u8; 23];

/// How much work a hash is: 2 to the power of this, from 4 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u8);

impl Cost {
    /// The least that bcrypt defines.
    pub const MIN: Self = Self(4);
    /// The most that bcrypt defines: some days for a hash.
    pub const MAX: Self = Self(31);

    /// The cost `exponent`, or `None` outside of [`Cost::MIN`] to [`Cost::MAX`].
    pub const fn new(exponent: u32) -> Option<Self> {
        if exponent >= Self::MIN.get() && exponent <= Self::MAX.get() {
            // At most 31.
            Some(Self(exponent as u8))
        } else {
            None
        }
    }

    /// The exponent.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The expansions that one hash takes: the salted one that it begins with, then one with the
    /// password and one with the salt for each of its 2^cost rounds.
    pub const fn expansions(self) -> u64 {
        1 + (2 << self.0)
    }
}

/// The key of a computation; erased when dropped.
///
/// bcrypt uses the bytes of a key over and over until 72 are used, so keys of which one repeats the
/// other are the same.
#[derive(Clone)]
pub struct Key(Zeroizing<Subkeys>);

impl Key {
    /// The key that the bytes are, used over and over; `None` unless they are 1 to 72.
    pub fn cyclic(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
            return None;
        }
        Some(Self::repeating(bytes.iter().copied()))
    }

    /// The key that `$2b$` (as `$2a$` and `$2y$`) makes of a password: the password and a NUL,
    /// **cut off after 72 bytes**. A NUL within is a byte like any other, and does not end the key.
    pub fn of_password(password: &[u8]) -> Self {
        let kept = &password[..password.len().min(MAX_KEY_BYTES)];
        let nul = (kept.len() < MAX_KEY_BYTES).then_some(0);
        Self::repeating(kept.iter().copied().chain(nul))
    }

    /// The 72 bytes that are used, repetitions included.
    pub fn to_bytes(&self) -> Zeroizing<[u8; MAX_KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; MAX_KEY_BYTES]);
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0.iter()) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn repeating(bytes: impl Iterator<Item = u8> + Clone) -> Self {
        let mut key = Zeroizing::new([0; 18]);
        let mut endless = bytes.cycle();
        for word in key.iter_mut() {
            *word = endless.by_ref().take(4).fold(0, |word, byte| word << 8 | u32::from(byte));
        }
        Self(key)
    }

    pub(crate) fn words(&self) -> &Subkeys {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// One computation.
#[derive(Clone)]
pub struct Job {
    /// What the password became.
    pub key: Key,
    /// What it is salted with.
    pub salt: Salt,
    /// How much work it is.
    pub cost: Cost,
    /// What it is for.
    pub goal: Goal,
}

/// What a computation is for.
#[derive(Clone)]
pub enum Goal {
    /// To know the digest.
    Digest,
    /// To know whether it is a certain one.
    Check {
        /// The one.
        expected: Digest,
        /// When it is not: to have worked as hard as a hash at this cost, at least.
        floor: Cost,
    },
}

impl Goal {
    /// The most expansions that follow when the digest of a hash at `cost` is known.
    pub(crate) fn extra(&self, cost: Cost) -> u64 {
        match self {
            Self::Digest => 0,
            Self::Check { floor, .. } => floor.expansions().saturating_sub(cost.expansions()),
        }
    }
}

impl Job {
    /// Computes a digest.
    pub fn hash(key: Key, salt: Salt, cost: Cost) -> Self {
        Self { key, salt, cost, goal: Goal::Digest }
    }

    /// Computes a digest and compares it, in constant time, with the one that is expected.
    pub fn check(key: Key, salt: Salt, cost: Cost, expected: Digest) -> Self {
        Self { key, salt, cost, goal: Goal::Check { expected, floor: Cost::MIN } }
    }

    /// Makes a check that fails cost at least as much as one hash at `floor`, so that the time of a
    /// refusal does not tell which hashes are old and cheap. A check that succeeds ends at once.
    #[must_use]
    pub fn with_floor(mut self, floor: Cost) -> Self {
        if let Goal::Check { floor: current, .. } = &mut self.goal {
            *current = floor;
        }
        self
    }

    /// The most expansions that the job can take.
    pub fn max_expansions(&self) -> u64 {
        self.cost.expansions() + self.goal.extra(self.cost)
    }
}

/// Shows the cost alone.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("cost", &self.cost.get()).finish_non_exhaustive()
    }
}

/// How a [`Job`] ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The digest that was asked for.
    Digest(Digest),
    /// The digest is the one that was expected.
    Match,
    /// It is another one.
    Mismatch,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest(_) => "Digest(…)",
            Self::Match => "Match",
            Self::Mismatch => "Mismatch",
        })
    }
}

/// Whether two digests are the same, in a time that does not depend on where they differ.
pub fn same(a: &Digest, b: &Digest) -> bool {
    a.ct_eq(b).into()
}
