//! The names that services carry in their certificates: SPIFFE IDs.
//!
//! Rules: SPIFFE-ID, 2 (github.com/spiffe/spiffe, standards). Reading a certificate is left to the
//! server.

use std::fmt;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// SPIFFE-ID, 2.3: what every implementation has to support, and none should exceed.
const MAX_BYTES: usize = 2048;

/// SPIFFE-ID, 2.3, after the host of RFC 3986.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A SPIFFE ID: `spiffe://trust.domain/path`, at most 2,048 bytes of ASCII. Two are the same only
/// when they are so byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why a text is no SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// It is longer than 2,048 bytes.
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// It does not begin with `spiffe://`, in lower case.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// The trust domain is empty, too long, or has other characters than `a-z 0-9 . - _`; so has one
    /// with a port or a user.
    #[error("its trust domain is empty, too long or has characters other than a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// A segment of the path is empty (as behind a `/` at the end), `.` or `..`, or has other characters
    /// than `a-z A-Z 0-9 . - _`; so has a path with a query, a fragment or percent-encoding.
    #[error(
        "its path has a segment that is empty, '.' or '..', or characters other than a-z, A-Z, 0-9, '.', '-' and '_'"
    )]
    Path,
}

impl SpiffeId {
    /// Takes `text` as it stands; nothing is decoded or normalised.
    ///
    /// # Errors
    /// [`SpiffeIdError`], the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (trust_domain, path) = split(rest);
        let fits = (1..=MAX_TRUST_DOMAIN_BYTES).contains(&trust_domain.len());
        if !fits || !trust_domain.bytes().all(|byte| is_of_segment(byte) && !byte.is_ascii_uppercase()) {
            return Err(SpiffeIdError::TrustDomain);
        }
        if !path.is_empty() && !path.split('/').skip(1).all(is_segment) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self(text.into()))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Who vouches for the name: `example.com` in `spiffe://example.com/billing`.
    pub fn trust_domain(&self) -> &str {
        split(&self.0[SCHEME.len()..]).0
    }

    /// What is named in the trust domain: `/billing` in `spiffe://example.com/billing`, or empty when
    /// the domain itself is.
    pub fn path(&self) -> &str {
        split(&self.0[SCHEME.len()..]).1
    }
}

/// What comes before the first `/`, and the rest from there on.
fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_of_segment)
}

fn is_of_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_taken_as_they_stand() {
        for (text, trust_domain, path) in [
            ("spiffe://staging.example.com/payments/mysql", "staging.example.com", "/payments/mysql"),
            ("spiffe://staging.example.com/payments/web-fe", "staging.example.com", "/payments/web-fe"),
            (
                "spiffe://k8s-west.example.com/ns/staging/sa/default",
                "k8s-west.example.com",
                "/ns/staging/sa/default",
            ),
            (
                "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
                "example.com",
                "/9eebccd2-12bf-40a6-b262-65fe0487d453",
            ),
            ("spiffe://example.com", "example.com", ""),
            ("spiffe://1.2.3.4/a", "1.2.3.4", "/a"),
            ("spiffe://a_b.c-d/A.B_c-9/...", "a_b.c-d", "/A.B_c-9/..."),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.as_str(), id.trust_domain(), id.path()), (text, trust_domain, path));
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_breaks_a_rule_of_the_standard_is_refused() {
        use SpiffeIdError::{Path, Scheme, TrustDomain};
        for (text, error) in [
            ("", Scheme),
            ("example.com/a", Scheme),
            ("http://example.com/a", Scheme),
            ("SPIFFE://example.com/a", Scheme),
            ("spiffe:/example.com/a", Scheme),
            (" spiffe://example.com/a", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///a", TrustDomain),
            ("spiffe://Example.com/a", TrustDomain),
            ("spiffe://example.com:443/a", TrustDomain),
            ("spiffe://ada@example.com/a", TrustDomain),
            ("spiffe://[::1]/a", TrustDomain),
            ("spiffe://ex%61mple.com/a", TrustDomain),
            ("spiffe://example.com?a", TrustDomain),
            ("spiffe://example.com#a", TrustDomain),
            ("spiffe://exämple.com/a", TrustDomain),
            ("spiffe://example.com/", Path),
            ("spiffe://example.com/a/", Path),
            ("spiffe://example.com//a", Path),
            ("spiffe://example.com/./a", Path),
            ("spiffe://example.com/a/..", Path),
            ("spiffe://example.com/a?b", Path),
            ("spiffe://example.com/a#b", Path),
            ("spiffe://example.com/%61", Path),
            ("spiffe://example.com/a b", Path),
            ("spiffe://example.com/a\n", Path),
            ("spiffe://example.com/a\0", Path),
            ("spiffe://example.com/ä", Path),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_end_where_the_standard_ends_them() {
        let of_length = |bytes: usize| format!("spiffe://example.com/{}", "a".repeat(bytes - 21));
        assert!(SpiffeId::parse(&of_length(2048)).is_ok());
        assert_eq!(SpiffeId::parse(&of_length(2049)), Err(SpiffeIdError::TooLong));
        let in_domain = |bytes: usize| format!("spiffe://{}/a", "a".repeat(bytes));
        assert!(SpiffeId::parse(&in_domain(255)).is_ok());
        assert_eq!(SpiffeId::parse(&in_domain(256)), Err(SpiffeIdError::TrustDomain));
    }
}
