//! The id of a call, by which its log lines, its reply and its audit events are found.

use http::{HeaderName, HeaderValue};
use uuid::{NoContext, Uuid};

use crate::domain::Timestamp;

/// Identifies one call in the log: what its client sent as `x-request-id`, or a UUIDv7.
///
/// Never trusted to be unique, since a client may choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallId(HeaderValue);

impl CallId {
    /// The metadata that carries the id, in requests and in replies.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// The value of that metadata.
    pub(crate) fn into_value(self) -> HeaderValue {
        self.0
    }

    /// The most bytes of an id that a client chooses: enough for the hexadecimal of 256 bits.
    pub const MAX_BYTES: usize = 64;

    /// The id: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    pub fn as_str(&self) -> &str {
        // Both ways to make an id leave nothing but ASCII.
        std::str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }

    /// The id that a client chose, unless it could forge or flood a log line.
    pub(crate) fn from_client(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=Self::MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(permitted))
            .then(|| Self(value.clone()))
    }

    /// An id of our own.
    pub(crate) fn generate(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or(0);
        let uuid = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, now.subsecond_nanos()));
        let mut buffer = Uuid::encode_buffer();
        let text = uuid.as_hyphenated().encode_lower(&mut buffer);
        Self(HeaderValue::from_str(text).expect("hexadecimal digits and hyphens make a header value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_client(text: &str) -> Option<String> {
        CallId::from_client(&HeaderValue::from_str(text).unwrap()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn an_id_that_a_client_chose_is_kept_when_it_cannot_harm_a_log() {
        for text in ["a", "A-z_0.9", "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e", &"x".repeat(64)] {
            assert_eq!(from_client(text).as_deref(), Some(text));
        }
        for text in ["", " ", "a b", "a\"b", "a,b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(from_client(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_id_of_our_own_is_a_uuid_that_carries_the_time_given() {
        let id = CallId::generate(Timestamp::from_unix_micros(1_700_000_000_123_456));
        let uuid = Uuid::parse_str(id.as_str()).unwrap();
        assert_eq!(uuid.get_timestamp().unwrap().to_unix(), (1_700_000_000, 123_000_000));
        assert_eq!(from_client(id.as_str()).as_deref(), Some(id.as_str()));
    }
}
