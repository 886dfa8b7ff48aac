//! Refresh tokens: what a session is kept alive with.
//!
//! A token is 101 bytes in base64url without padding (RFC 4648, 5): a version byte (1), the tenant's
//! id (16), the session's id (16), the generation (4, big-endian), the session's secret (32), and
//! HMAC-SHA256 (32) over all of these. The MAC lets a made-up token be refused without asking the
//! database; the secret, of which the database holds a digest, lets nobody make one who has the
//! master key alone. The same input gives the same token, so a successor need not be stored. Which
//! generation is current, and what an older one means, is decided elsewhere.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::mac_keys::MacKeys;
use super::master_key::MasterKeys;
use super::random;
use crate::domain::{SessionId, TenantId};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const BODY_BYTES: usize = 1 + 16 + 16 + 4 + 32;
const TOKEN_BYTES: usize = BODY_BYTES + MAC_BYTES;
/// Characters of a token: four for every three bytes.
const TOKEN_CHARS: usize = (TOKEN_BYTES * 4).div_ceil(3);

/// The secret of one session: 256 random bits that only its refresh tokens carry, erased when
/// dropped. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SessionSecret(Zeroizing<[u8; 32]>);

impl SessionSecret {
    /// A new secret.
    pub fn generate() -> Self {
        let mut secret = Self(Zeroizing::default());
        random::fill(secret.0.as_mut_slice());
        secret
    }

    /// SHA-256 of the secret: what is stored. A secret of full entropy needs no slower digest.
    pub fn digest(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, self.0.as_slice());
        *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// Whether `digest` is this secret's, in a time that does not depend on where they differ.
    pub fn has_digest(&self, digest: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.digest(), digest).is_ok()
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

/// A refresh token's text: 135 characters, erased when dropped. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// The text, for the one who is to have it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// What a genuine refresh token says. Whether its session still exists, and whether the secret is
/// that session's, the database knows.
#[derive(Clone, Debug)]
pub struct ParsedRefreshToken {
    /// The tenant of the session's user.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// How often the session had been refreshed when the token was issued.
    pub generation: u32,
    /// The session's secret.
    pub secret: SessionSecret,
}

/// The text is no refresh token of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a refresh token of this service")]
pub struct InvalidRefreshToken;

/// Makes refresh tokens and tells them from made-up ones.
pub struct RefreshTokens(MacKeys);

impl RefreshTokens {
    /// Tokens under a key derived from the current master key. Those under the previous ones are
    /// accepted.
    pub fn new(master_keys: &MasterKeys) -> Self {
        Self(MacKeys::new(master_keys, "refresh token"))
    }

    /// Takes the keys of other master keys from now on.
    pub fn exchange(&self, master_keys: &MasterKeys) {
        self.0.exchange(master_keys);
    }

    /// The token of one generation of a session; always the same for the same arguments.
    pub fn issue(
        &self,
        tenant_id: TenantId,
        session_id: SessionId,
        generation: u32,
        secret: &SessionSecret,
    ) -> RefreshToken {
        let mut token = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES));
        token.push(VERSION);
        token.extend_from_slice(tenant_id.as_uuid().as_bytes());
        token.extend_from_slice(session_id.as_uuid().as_bytes());
        token.extend_from_slice(&generation.to_be_bytes());
        token.extend_from_slice(secret.0.as_slice());
        let mac = self.0.with_current(|key| hmac::sign(key, &token));
        token.extend_from_slice(mac.as_ref());
        RefreshToken(Zeroizing::new(URL_SAFE_NO_PAD.encode(&*token)))
    }

    /// Reads a token, and believes nothing of it before its MAC was checked, in constant time.
    ///
    /// # Errors
    /// [`InvalidRefreshToken`] for anything but the exact text of a token issued under an accepted
    /// key.
    pub fn parse(&self, text: &str) -> Result<ParsedRefreshToken, InvalidRefreshToken> {
        if text.len() != TOKEN_CHARS {
            return Err(InvalidRefreshToken);
        }
        let token = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidRefreshToken)?);
        let (body, mac) = token.split_last_chunk::<MAC_BYTES>().ok_or(InvalidRefreshToken)?;
        if !self.0.any(|key| hmac::verify(key, body, mac).is_ok()) {
            return Err(InvalidRefreshToken);
        }
        read_body(body).ok_or(InvalidRefreshToken)
    }
}

fn read_body(body: &[u8]) -> Option<ParsedRefreshToken> {
    let rest = body.strip_prefix(&[VERSION])?;
    let (tenant_id, rest) = rest.split_first_chunk()?;
    let (session_id, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let mut secret = SessionSecret(Zeroizing::default());
    secret.0.copy_from_slice(rest.first_chunk::<32>().filter(|_| rest.len() == 32)?);
    Some(ParsedRefreshToken {
        tenant_id: TenantId::from(Uuid::from_bytes(*tenant_id)),
        session_id: SessionId::from(Uuid::from_bytes(*session_id)),
        generation: u32::from_be_bytes(*generation),
        secret,
    })
}

impl fmt::Debug for RefreshTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshTokens(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::MasterKey;
    use super::*;
    use crate::domain::Timestamp;

    fn ids() -> (TenantId, SessionId) {
        let now = Timestamp::from_unix_micros(1_700_000_000_000_000);
        (TenantId::generate(now), SessionId::generate(now))
    }

    #[test]
    fn a_token_says_what_it_was_issued_for() {
        let tokens = RefreshTokens::new(&MasterKey::generate().into());
        let ((tenant_id, session_id), secret) = (ids(), SessionSecret::generate());
        let token = tokens.issue(tenant_id, session_id, u32::MAX - 1, &secret);
        let parsed = tokens.parse(token.as_str()).unwrap();
        assert_eq!((parsed.tenant_id, parsed.session_id), (tenant_id, session_id));
        assert_eq!(parsed.generation, u32::MAX - 1);
        assert!(parsed.secret.has_digest(&secret.digest()));
        assert!(!SessionSecret::generate().has_digest(&secret.digest()));
        assert_eq!(token, tokens.issue(tenant_id, session_id, u32::MAX - 1, &secret));
        assert_ne!(token, tokens.issue(tenant_id, session_id, 0, &secret));
    }

    #[test]
    fn a_token_that_differs_in_one_character_is_refused() {
        let tokens = RefreshTokens::new(&MasterKey::generate().into());
        let (tenant_id, session_id) = ids();
        let token = tokens.issue(tenant_id, session_id, 7, &SessionSecret::generate());
        for at in 0..token.as_str().len() {
            let mut bytes = token.as_str().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(tokens.parse(&changed).unwrap_err(), InvalidRefreshToken, "character {at}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let tokens = RefreshTokens::new(&MasterKey::generate().into());
        let (tenant_id, session_id) = ids();
        let token = tokens.issue(tenant_id, session_id, 0, &SessionSecret::generate());
        let text = token.as_str();
        let made_up = URL_SAFE_NO_PAD.encode([1; TOKEN_BYTES]);
        for text in ["", "a.b.c", &text[1..], &format!("{text}="), &format!("{text} "), &made_up] {
            assert_eq!(tokens.parse(text).unwrap_err(), InvalidRefreshToken, "{text}");
        }
        assert!(tokens.parse(&"A".repeat(1 << 20)).is_err());
    }

    #[test]
    fn the_previous_master_key_is_accepted_only_when_named() {
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let (tenant_id, session_id) = ids();
        let tokens = RefreshTokens::new(&old.clone().into());
        let token = tokens.issue(tenant_id, session_id, 0, &SessionSecret::generate());
        assert!(RefreshTokens::new(&new.clone().into()).parse(token.as_str()).is_err());
        let both = RefreshTokens::new(&MasterKeys { current: new, previous: vec![old] });
        assert!(both.parse(token.as_str()).is_ok());
    }

    #[test]
    fn debug_shows_no_secret() {
        let tokens = RefreshTokens::new(&MasterKey::generate().into());
        let (tenant_id, session_id) = ids();
        let token = tokens.issue(tenant_id, session_id, 0, &SessionSecret::generate());
        let parsed = tokens.parse(token.as_str()).unwrap();
        assert_eq!(format!("{token:?}"), "RefreshToken(…)");
        assert!(format!("{parsed:?}").contains("secret: SessionSecret(…)"));
    }
}
