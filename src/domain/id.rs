//! Identifiers, one type each, so that none can stand in another's place.
//!
//! Those that the service makes are UUIDv7 (RFC 9562, 5.7): they sort by creation, which keeps
//! index inserts at the right edge. Any RFC 9562 UUID is accepted from a caller, since imported
//! users keep theirs.

use std::fmt;

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
            /// A new identifier (UUIDv7) that carries the millisecond of `now` and 74 random bits.
            pub fn generate(now: Timestamp) -> Self {
                let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or(0);
                let at = uuid::Timestamp::from_unix(NoContext, seconds, now.subsecond_nanos());
                Self(Uuid::new_v7(at))
            }

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

impl AuditEventId {
    /// No event of the millisecond of `at`, or of a later one, has a smaller identifier.
    pub fn first_of(at: Timestamp) -> Self {
        let millis = u64::try_from(at.as_unix_micros().div_euclid(1_000)).unwrap_or(0);
        Self(Uuid::from_u128(u128::from(millis.min((1 << 48) - 1)) << 80))
    }
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
    fn only_the_canonical_form_is_read() {
        let id = UserId::generate(Timestamp::from_unix_micros(0));
        assert_eq!(UserId::parse(&id.to_string()), Ok(id));
        assert_eq!(UserId::parse(&id.to_string().to_uppercase()), Ok(id));
        for text in ["", "1", "018f4e9a7c1e7b3a9d2e3f5a6b7c8d9e", "{018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e}"] {
            assert_eq!(UserId::parse(text), Err(InvalidId), "{text}");
        }
    }
}
