//! How much work a hash is.

/// How often bcrypt stretches a password: 2 to the power of this, from 4 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u32);

impl Cost {
    /// The least that bcrypt defines.
    pub const MIN: Self = Self(4);
    /// Three to five seconds a hash, and the most that a stored one may ask for; more serves nobody but an
    /// attacker who wants the cores busy.
    pub const MAX: Self = Self(16);

    /// The cost `exponent`, or `None` outside of [`Cost::MIN`] to [`Cost::MAX`].
    pub const fn new(exponent: u32) -> Option<Self> {
        if exponent >= Self::MIN.0 && exponent <= Self::MAX.0 { Some(Self(exponent)) } else { None }
    }

    /// Every cost, from the least to the most.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (Self::MIN.0..=Self::MAX.0).map(Self)
    }

    /// The exponent.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The dearest cost that refusals are made as slow as, where new hashes have this one: four times the work.
    /// More would let a few dear hashes slow everybody's refusals down.
    pub fn dearest_floor(self) -> Self {
        Self((self.0 + 2).min(Self::MAX.0))
    }
}

impl From<Cost> for bcrypt_lanes::Cost {
    fn from(cost: Cost) -> Self {
        Self::new(cost.0).expect("bcrypt defines every cost from 4 to 31")
    }
}

/// The costs that a call is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Of new hashes.
    pub(super) new: Cost,
    /// That a failed check takes at least.
    pub(super) floor: Cost,
}
