//! Service tokens: the credentials by which other services are known.
//!
//! A token is `identity-service-` and, in base64url without padding (RFC 4648, 5), the token's id (16
//! bytes) and 32 random bytes. The prefix lets scanners find one that was published by mistake. The
//! database holds SHA-256 of the random bytes, so a copy of it lets nobody in.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::random;
use crate::domain::ServiceTokenId;

const PREFIX: &str = "identity-service-";
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// A service token's secret half with its id, erased when dropped. `Debug` shows nothing of the secret.
pub struct ServiceTokenSecret {
    id: ServiceTokenId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl ServiceTokenSecret {
    /// A new token under this id.
    pub fn generate(id: ServiceTokenId) -> Self {
        let mut token = Self { id, secret: Zeroizing::default() };
        random::fill(token.secret.as_mut_slice());
        token
    }

    /// Reads a token; `None` for any text that cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        // As long as any token, so that nobody makes this decode a megabyte.
        if encoded.len() != ((ID_BYTES + SECRET_BYTES) * 4).div_ceil(3) {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let (id, secret) = bytes.split_first_chunk::<ID_BYTES>()?;
        let mut token = Self { id: Uuid::from_bytes(*id).into(), secret: Zeroizing::default() };
        token.secret.copy_from_slice(secret.first_chunk::<SECRET_BYTES>()?);
        Some(token)
    }

    /// The token's text, for the one who is to have it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([self.id.as_uuid().as_bytes().as_slice(), &*self.secret].concat());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    /// Which token it is.
    pub fn id(&self) -> ServiceTokenId {
        self.id
    }

    /// SHA-256 of the secret: what is stored. A secret of full entropy needs no slower digest.
    pub fn digest(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, self.secret.as_slice());
        *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// Whether `digest` is this secret's, in a time that does not depend on where they differ.
    pub fn has_digest(&self, digest: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.digest(), digest).is_ok()
    }
}

impl fmt::Debug for ServiceTokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTokenSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn token() -> ServiceTokenSecret {
        ServiceTokenSecret::generate(ServiceTokenId::generate(Timestamp::from_unix_micros(0)))
    }

    #[test]
    fn a_token_reads_back() {
        let token = token();
        let read = ServiceTokenSecret::parse(&token.to_text()).unwrap();
        assert_eq!(read.id(), token.id());
        assert!(read.has_digest(&token.digest()));
        assert!(!read.has_digest(&self::token().digest()));
        assert!(!format!("{token:?}").contains(&token.to_text()[30..]));
    }

    #[test]
    fn nothing_else_is_one() {
        let text = token().to_text();
        let other_prefix = text.replacen("identity", "identify", 1);
        let padded = format!("{}=", *text);
        for text in ["", PREFIX, &text[1..], &text[..text.len() - 1], &other_prefix, &padded] {
            assert!(ServiceTokenSecret::parse(text).is_none(), "{text}");
        }
    }
}
