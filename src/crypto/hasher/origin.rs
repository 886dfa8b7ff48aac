//! On whose behalf a password is hashed.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use crate::domain::Source;

/// Where a job comes from: the two things by which the queue is shared fairly. `Debug` shows nothing
/// that leads back to an address or a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    parties: [Option<Party>; 2],
}

/// One source or one group, by a digest that nobody outside can foresee: so nobody can choose names
/// that share a place with somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Party(u64);

impl Origin {
    /// Nobody's share: bounded by the queue alone.
    pub const NOBODY: Self = Self { parties: [None; 2] };

    /// The address that the call came from, and the group of users that it is about.
    ///
    /// The group must be known before anybody is looked up: shared out by the tenant that a user
    /// turns out to belong to, the refusals would tell which users there are.
    pub fn new(source: Option<IpAddr>, group: &str) -> Self {
        let source = source.map(|address| Party::of(Source::of(Some(address))));
        Self { parties: [source, Some(Party::of(group))] }
    }

    /// The parties whose shares a job counts towards.
    pub(super) fn parties(self) -> impl Iterator<Item = Party> {
        self.parties.into_iter().flatten()
    }
}

impl Party {
    fn of(name: impl std::hash::Hash) -> Self {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEYS.hash_one(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parties(source: &str, group: &str) -> Vec<Party> {
        Origin::new(Some(source.parse().unwrap()), group).parties().collect()
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        let of = |source| parties(source, "example.com")[0];
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn a_group_counts_whatever_the_source() {
        assert_eq!(parties("192.0.2.1", "example.com")[1], parties("192.0.2.2", "example.com")[1]);
        assert_ne!(parties("192.0.2.1", "example.com")[1], parties("192.0.2.1", "example.org")[1]);
        assert_eq!(Origin::new(None, "example.com").parties().count(), 1);
        assert_eq!(Origin::default().parties().count(), 0);
    }
}
