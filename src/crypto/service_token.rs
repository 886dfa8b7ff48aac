//! Service tokens: the credentials by which other services are known.
//!
//! A token is `identity-service-` and, in base64url without padding (RFC 4648, 5), the token's id (16
//! bytes), 32 random bytes, and HMAC-SHA256 (32 bytes) over both. The prefix lets scanners find one that was
//! published by mistake. The database holds SHA-256 of the random bytes, so a copy of it lets nobody in. The
//! MAC tells tokens from made-up ones without asking the database.
//!
//! Tokens outlive master keys, and those of earlier releases have no MAC: a text without a MAC that is known
//! may be a token all the same.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::mac_keys::MacKeys;
use super::master_key::MasterKeys;
use super::random;
use crate::domain::ServiceTokenId;

const PREFIX: &str = "identity-service-";
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const BODY_BYTES: usize = ID_BYTES + SECRET_BYTES;
const MAC_BYTES: usize = 32;

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

    fn read(body: &[u8]) -> Option<Self> {
        let (id, secret) = body.split_first_chunk::<ID_BYTES>()?;
        let mut token = Self { id: Uuid::from_bytes(*id).into(), secret: Zeroizing::default() };
        token.secret.copy_from_slice(secret.first_chunk::<SECRET_BYTES>()?);
        Some(token)
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

/// A text that may be a service token. Whether it is one, and in force, the database knows.
#[derive(Debug)]
pub struct ParsedServiceToken {
    /// What it says.
    pub secret: ServiceTokenSecret,
    /// Whether its MAC proves that it was made here. Of the others, some were made by an earlier release or
    /// under a master key that is gone.
    pub is_proven: bool,
}

/// Writes service tokens, and tells those with a known MAC from others.
pub struct ServiceTokens(MacKeys);

impl ServiceTokens {
    /// Tokens under a key derived from the current master key. Those under the previous ones are proven as well.
    pub fn new(master_keys: &MasterKeys) -> Self {
        Self(MacKeys::new(master_keys, "service token"))
    }

    /// Takes the keys of other master keys from now on.
    pub fn exchange(&self, master_keys: &MasterKeys) {
        self.0.exchange(master_keys);
    }

    /// The token's text, for the one who is to have it.
    pub fn write(&self, secret: &ServiceTokenSecret) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_BYTES + MAC_BYTES));
        bytes.extend_from_slice(secret.id.as_uuid().as_bytes());
        bytes.extend_from_slice(secret.secret.as_slice());
        let mac = self.0.with_current(|key| hmac::sign(key, &bytes));
        bytes.extend_from_slice(mac.as_ref());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    /// Reads a token, with a MAC or in the form of earlier releases; `None` for any text that cannot be one.
    pub fn parse(&self, text: &str) -> Option<ParsedServiceToken> {
        let encoded = text.strip_prefix(PREFIX)?;
        // As long as any token, so that nobody makes this decode a megabyte.
        if ![encoded_length(BODY_BYTES), encoded_length(BODY_BYTES + MAC_BYTES)].contains(&encoded.len()) {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let (body, mac) = bytes.split_at_checked(BODY_BYTES)?;
        let is_proven = self.0.any(|key| hmac::verify(key, body, mac).is_ok());
        Some(ParsedServiceToken { secret: ServiceTokenSecret::read(body)?, is_proven })
    }
}

/// Characters for so many bytes: four for every three.
const fn encoded_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

impl fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceTokens(…)")
    }
}

impl fmt::Debug for ServiceTokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTokenSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MasterKey;
    use super::*;
    use crate::domain::Timestamp;

    fn secret() -> ServiceTokenSecret {
        ServiceTokenSecret::generate(ServiceTokenId::generate(Timestamp::from_unix_micros(0)))
    }

    /// What an earlier release wrote.
    fn without_mac(text: &str) -> String {
        let bytes = URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).unwrap();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..BODY_BYTES]))
    }

    #[test]
    fn a_token_reads_back() {
        let tokens = ServiceTokens::new(&MasterKey::generate().into());
        let secret = secret();
        let text = tokens.write(&secret);
        let read = tokens.parse(&text).unwrap();
        assert!(read.is_proven);
        assert_eq!(read.secret.id(), secret.id());
        assert!(read.secret.has_digest(&secret.digest()));
        assert!(!read.secret.has_digest(&self::secret().digest()));
        assert!(!format!("{read:?} {tokens:?}").contains(&text[40..60]));
    }

    #[test]
    fn a_token_of_an_earlier_release_is_read_and_proves_nothing() {
        let tokens = ServiceTokens::new(&MasterKey::generate().into());
        let secret = secret();
        let read = tokens.parse(&without_mac(&tokens.write(&secret))).unwrap();
        assert!(!read.is_proven);
        assert!(read.secret.id() == secret.id() && read.secret.has_digest(&secret.digest()));
    }

    #[test]
    fn a_token_is_proven_under_the_current_and_the_previous_master_key() {
        let [old, new] = [MasterKey::generate(), MasterKey::generate()];
        let text = ServiceTokens::new(&old.clone().into()).write(&secret());
        assert!(!ServiceTokens::new(&new.clone().into()).parse(&text).unwrap().is_proven);
        let both = ServiceTokens::new(&MasterKeys { current: new, previous: vec![old] });
        assert!(both.parse(&text).unwrap().is_proven);
    }

    #[test]
    fn a_text_that_differs_in_one_character_is_not_proven() {
        let tokens = ServiceTokens::new(&MasterKey::generate().into());
        let text = tokens.write(&secret());
        for at in PREFIX.len()..text.len() {
            let mut changed = text.to_string();
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            changed.replace_range(at..=at, other);
            assert!(tokens.parse(&changed).is_none_or(|read| !read.is_proven), "character {at}");
        }
    }

    #[test]
    fn nothing_else_is_one() {
        let tokens = ServiceTokens::new(&MasterKey::generate().into());
        let text = tokens.write(&secret());
        let other_prefix = text.replacen("identity", "identify", 1);
        let padded = format!("{}=", *text);
        for text in ["", PREFIX, &text[1..], &text[..text.len() - 1], &other_prefix, &padded] {
            assert!(tokens.parse(text).is_none(), "{text}");
        }
    }
}
