//! Identifiers, one type each, so that none can stand in another's place.
//!
//! Those that the service makes are UUIDv7 (RFC 9562, 5.7): they sort by creation, which keeps
//! index inserts at the right edge. Any RFC 9562 UUID is accepted from a caller, since imported
//! users keep theirs.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{NoContext, Uuid};

use super::clock::Timestamp;

/// The text given is not a UUID in its canonical 36-character form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID such as 018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Reads the canonical text form, in either case.
            ///
            /// # Errors
            /// [`InvalidId`] for anything else: braces, URNs and missing hyphens included.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }

            /// The identifier as a UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

macro_rules! random_id {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new identifier (UUIDv7) that carries the millisecond of `now` and 74 random bits.
            pub fn generate(now: Timestamp) -> Self {
                Self(random_uuid(now))
            }
        }
    )*};
}

id!(
    /// A tenant: a customer of the company, whose users see only each other.
    TenantId
);
id!(
    /// A user of one tenant.
    UserId
);
id!(
    /// A session: what a login opens and a logout closes.
    SessionId
);
id!(
    /// A credential of another service.
    ServiceTokenId
);
id!(
    /// An event of the audit log.
    AuditEventId
);
id!(
    /// What a caller names an attempt to register by, so that trying again cannot register twice.
    RequestId
);

random_id!(TenantId, UserId, SessionId, ServiceTokenId, RequestId);

/// Counts the identifiers of events that this process makes. It starts anywhere in the lower quarter of its
/// range, so that two processes that start together do not count alike.
static EVENTS: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 24)));

impl AuditEventId {
    /// A new identifier (UUIDv7) that carries the millisecond of `now`, a counter of 42 bits and 32 random bits
    /// (RFC 9562, 6.2, method 1): of one millisecond, those that a process makes later are larger.
    ///
    /// Unlike the RFC, it never moves the time: the log is searched by it.
    pub fn generate(now: Timestamp) -> Self {
        let count = u128::from(EVENTS.fetch_add(1, Ordering::Relaxed));
        let (high, low) = ((count >> 30) & 0xfff, count & 0x3fff_ffff);
        let random = random_uuid(now).as_u128() & !((0xfff << 64) | (0x3fff_ffff << 32));
        Self(Uuid::from_u128(random | (high << 64) | (low << 32)))
    }

    /// No event of the millisecond of `at`, or of a later one, has a smaller identifier.
    pub fn first_of(at: Timestamp) -> Self {
        let millis = u64::try_from(at.as_unix_micros().div_euclid(1_000)).unwrap_or(0);
        Self(Uuid::from_u128(u128::from(millis.min((1 << 48) - 1)) << 80))
    }
}

fn random_uuid(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, now.subsecond_nanos()))
}

fn parse(text: &str) -> Result<Uuid, InvalidId> {
    // `Uuid::try_parse` also reads the simple, braced and URN forms; one spelling is enough.
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err(InvalidId);
    }
    Uuid::try_parse(text).map_err(|_| InvalidId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_carries_the_time_it_was_made_at() {
        let id = UserId::generate(Timestamp::from_unix_micros(1_700_000_000_123_456));
        let (seconds, nanos) = id.as_uuid().get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_700_000_000, 123_000_000));
        assert_eq!(id.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn the_first_event_of_a_millisecond_is_before_all_others_of_it() {
        let at = Timestamp::from_unix_micros(1_700_000_000_123_456);
        let (id, next) = (AuditEventId::generate(at), Timestamp::from_unix_micros(1_700_000_000_124_000));
        assert!(AuditEventId::first_of(at) < id && id < AuditEventId::first_of(next));
        assert!(AuditEventId::first_of(Timestamp::from_unix_micros(-1)).as_uuid().is_nil());
    }

    #[test]
    fn events_of_one_millisecond_are_in_the_order_in_which_they_were_made() {
        let at = Timestamp::from_unix_micros(1_700_000_000_123_456);
        let ids: Vec<_> = (0..10_000).map(|_| AuditEventId::generate(at)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        for id in ids {
            assert_eq!(
                (id.as_uuid().get_version_num(), id.as_uuid().get_variant()),
                (7, uuid::Variant::RFC4122)
            );
            assert_eq!(id.as_uuid().get_timestamp().unwrap().to_unix(), (1_700_000_000, 123_000_000));
        }
        // An event of before stays before, whatever was made since.
        assert!(
            AuditEventId::generate(Timestamp::from_unix_micros(1_700_000_000_122_000))
                < AuditEventId::first_of(at)
        );
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        let id = UserId::generate(Timestamp::from_unix_micros(0));
        assert_eq!(UserId::parse(&id.to_string()), Ok(id));
        assert_eq!(UserId::parse(&id.to_string().to_uppercase()), Ok(id));
        for text in ["", "1", "018f4e9a7c1e7b3a9d2e3f5a6b7c8d9e", "{018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e}"] {
            assert_eq!(UserId::parse(text), Err(InvalidId), "{text}");
        }
    }
}
