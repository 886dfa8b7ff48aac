//! Access tokens: JWTs (RFC 7519) in the profile of RFC 9068.
//!
//! Header: `alg`, `kid`, `typ: at+jwt`, nothing else. Claims: `iss`, `aud`, `sub` (the user),
//! `client_id`, `tid` (the tenant), `sid` (the session), `role`, `iat`, `exp`, `jti`. A token proves
//! what was true when it was issued; whether its session still is open, the database knows.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::jws::{InvalidJws, Jws};
use super::keyring::{Keyring, PublishedKeys};
use super::random;
use super::verifying_key::{ACCESS_TOKEN_TYPE, VerifyingKey, header};
use crate::domain::{Role, SessionId, TenantId, Timestamp, UserId};

/// Who asked for the token (RFC 9068, 2.2): users log in to this service itself.
const CLIENT_ID: &str = "identity";
/// No token is valid for longer, whatever the settings say. Whoever takes a key out of use counts on it.
pub const MAX_ACCESS_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Several times what a token needs; nothing longer is looked at.
const MAX_TOKEN_BYTES: usize = 4096;
/// How far the clock of the machine that issued a token may be ahead, in seconds. Nothing is added to its end:
/// a token never counts for longer than its holder was told.
const LEEWAY_SECONDS: i64 = 60;
/// Tokens whose signature need not be checked again; about 2 MB.
const CACHED_TOKENS: usize = 10_000;

/// What tokens say about their maker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// `iss` of every token, compared exactly.
    pub issuer: String,
    /// `aud` of every token, compared exactly.
    pub audience: String,
    /// How long a token is valid; whole seconds, at most [`MAX_ACCESS_TTL`].
    pub access_ttl: Duration,
}

/// Whom a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSubject {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// The session that the token belongs to.
    pub session_id: SessionId,
    /// The user's role when the token is issued.
    pub role: Role,
    /// When the session ends; no token of it is valid for longer.
    pub session_ends_at: Timestamp,
}

/// A token for its owner. `Debug` shows nothing of its text.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token in the compact serialisation (RFC 7515, 3.1).
    pub text: SecretString,
    /// The token's `exp`.
    pub expires_at: Timestamp,
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessClaims {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// The session that the token belongs to.
    pub session_id: SessionId,
    /// The user's role when the token was issued.
    pub role: Role,
    /// When the token was issued, in whole seconds.
    pub issued_at: Timestamp,
    /// When the token ends, in whole seconds.
    pub expires_at: Timestamp,
    /// Identifies the token.
    pub token_id: Uuid,
}

/// Why a text is not a valid access token. For logs and metrics: callers are told one and the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidToken {
    /// Longer than any token of this service.
    #[error("the token is too long")]
    TooLong,
    /// Not a JWT, or one whose header or claims are not of this service's form.
    #[error("the token is malformed")]
    Malformed,
    /// A JWT, but no access token.
    #[error("the token is of another type")]
    WrongType,
    /// Signed with a key that is not, or no longer, on the ring.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The algorithm is not the key's, or the signature does not fit.
    #[error("the token's signature is wrong")]
    WrongSignature,
    /// Of another issuer.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// For another audience.
    #[error("the token is for another audience")]
    WrongAudience,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Valid for longer than any token of this service.
    #[error("the token is valid for too long")]
    ValidTooLong,
}

/// The claims as they are written. Types are exact: a number in quotes or with a fraction is refused,
/// and so is a name that occurs twice (RFC 7519, 4).
#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    tid: Cow<'a, str>,
    #[serde(borrow)]
    sid: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(borrow)]
    jti: Cow<'a, str>,
}

/// What is left to check once everything that cannot change was checked.
#[derive(Clone, Copy)]
struct Checked {
    claims: AccessClaims,
    not_before: i64,
}

/// Issues and verifies access tokens. The keys can be exchanged while it does.
pub struct AccessTokens {
    ring: ArcSwap<Ring>,
    settings: TokenSettings,
    unknown_key: Notify,
}

/// A ring of keys, and what was verified with it. Another ring starts with nothing verified: what is
/// remembered was signed with keys that may no longer count.
struct Ring {
    keys: Keyring,
    /// Tokens that passed, by SHA-256 of their text. A cached digest is no secret worth erasing.
    checked: Cache<[u8; 32], Checked>,
}

impl Ring {
    fn new(keys: Keyring) -> Arc<Self> {
        Arc::new(Self { keys, checked: Cache::new(CACHED_TOKENS) })
    }
}

impl AccessTokens {
    /// Tokens that are signed and verified with `keyring`.
    pub fn new(keyring: Keyring, settings: TokenSettings) -> Self {
        Self { ring: ArcSwap::new(Ring::new(keyring)), settings, unknown_key: Notify::new() }
    }

    /// Signs and verifies with `keyring` from now on. Calls that have begun end with the ring before.
    pub fn exchange(&self, keyring: Keyring) {
        self.ring.store(Ring::new(keyring));
    }

    /// What others verify the tokens with.
    pub fn published(&self) -> Arc<PublishedKeys> {
        Arc::clone(self.ring.load().keys.published())
    }

    /// Waits until a token has named a key that is not on the ring. However many such tokens came since
    /// the last wait, they count once.
    pub async fn unknown_key(&self) {
        self.unknown_key.notified().await;
    }

    /// What its tokens say about their maker.
    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// A new token about `subject`, valid from `now` on, for the time that the settings say or until
    /// the session ends. Both ends are rounded down to the second.
    pub fn issue(&self, subject: &TokenSubject, now: Timestamp) -> AccessToken {
        let iat = now.as_unix_seconds();
        let ttl = whole_seconds(self.settings.access_ttl.min(MAX_ACCESS_TTL));
        let exp = iat.saturating_add(ttl).min(subject.session_ends_at.as_unix_seconds());
        let claims = Claims {
            iss: Cow::Borrowed(&self.settings.issuer),
            aud: Cow::Borrowed(&self.settings.audience),
            sub: Cow::Owned(subject.user_id.to_string()),
            client_id: Cow::Borrowed(CLIENT_ID),
            tid: Cow::Owned(subject.tenant_id.to_string()),
            sid: Cow::Owned(subject.session_id.to_string()),
            role: Cow::Borrowed(subject.role.as_str()),
            iat,
            exp,
            nbf: None,
            jti: Cow::Owned(uuid::Builder::from_random_bytes(random::bytes()).into_uuid().to_string()),
        };
        let claims = serde_json::to_vec(&claims).expect("strings and integers are JSON");
        let ring = self.ring.load();
        let key = ring.keys.signing_at(now);
        let mut text = String::with_capacity(MAX_TOKEN_BYTES);
        text.push_str(key.header());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let signature = key.sign(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        AccessToken { text: SecretString::from(text), expires_at: seconds(exp) }
    }

    /// What `token` says, if it is valid at `now`: issued by this service for this audience, with a
    /// key on the ring, not ended, and issued by a clock that is at most a minute ahead.
    ///
    /// A token that was verified before costs less than a microsecond: its digest is remembered, and
    /// only its times are checked again. Any other costs little more than its signature.
    ///
    /// # Errors
    /// [`InvalidToken`] names the first check that fails.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLong);
        }
        let ring = self.ring.load();
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let digest = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        if let Some(checked) = ring.checked.get(digest) {
            return checked.at(now);
        }
        let checked = self.check(&ring.keys, token).inspect_err(|error| {
            if *error == InvalidToken::UnknownKey {
                self.unknown_key.notify_one();
            }
        })?;
        let claims = checked.at(now)?;
        ring.checked.insert(*digest, checked);
        Ok(claims)
    }

    /// Checks all that does not depend on the time.
    fn check(&self, keys: &Keyring, token: &str) -> Result<Checked, InvalidToken> {
        let jws = Jws::parse(token).ok_or(InvalidToken::Malformed)?;
        let key = match keys.find_by_header(jws.header) {
            Some(key) => key,
            None => find_by_foreign_header(keys, token)?,
        };
        let claims = jws.payload_signed_with(key)?;
        let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| InvalidToken::Malformed)?;
        if claims.iss != self.settings.issuer {
            return Err(InvalidToken::WrongIssuer);
        }
        if claims.aud != self.settings.audience {
            return Err(InvalidToken::WrongAudience);
        }
        if claims.exp.saturating_sub(claims.iat) > whole_seconds(MAX_ACCESS_TTL) {
            return Err(InvalidToken::ValidTooLong);
        }
        read_claims(&claims).ok_or(InvalidToken::Malformed)
    }
}

/// The key that a header names which says the same as ours in other words: in another order, say.
fn find_by_foreign_header<'a>(keys: &'a Keyring, token: &str) -> Result<&'a VerifyingKey, InvalidToken> {
    let received = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken::Malformed)?;
    let (Some(typ), Some(kid)) = (&received.typ, &received.kid) else {
        return Err(InvalidToken::Malformed);
    };
    if !is_access_token_type(typ) {
        return Err(InvalidToken::WrongType);
    }
    // Whatever else a header may carry either names a key of the sender's choice (`jwk`, `jku`,
    // `x5u`) or asks for what is not done here (`crit`, `b64`, `zip`); we never write it.
    if received != header(typ, received.alg, kid) {
        return Err(InvalidToken::Malformed);
    }
    let key = keys.find(kid).ok_or(InvalidToken::UnknownKey)?;
    if received.alg == key.algorithm { Ok(key) } else { Err(InvalidToken::WrongSignature) }
}

impl From<InvalidJws> for InvalidToken {
    fn from(error: InvalidJws) -> Self {
        match error {
            InvalidJws::Malformed => Self::Malformed,
            InvalidJws::WrongSignature => Self::WrongSignature,
        }
    }
}

impl Checked {
    fn at(&self, now: Timestamp) -> Result<AccessClaims, InvalidToken> {
        let now = now.as_unix_seconds();
        if self.claims.expires_at.as_unix_seconds() <= now {
            return Err(InvalidToken::Expired);
        }
        if self.not_before > now.saturating_add(LEEWAY_SECONDS) {
            return Err(InvalidToken::NotYetValid);
        }
        Ok(self.claims)
    }
}

/// A media type: in any case, `application/` may be left out (RFC 7515, 4.1.9; RFC 9068, 4).
fn is_access_token_type(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let bare = match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => typ,
    };
    bare.eq_ignore_ascii_case(ACCESS_TOKEN_TYPE)
}

fn read_claims(claims: &Claims<'_>) -> Option<Checked> {
    if claims.client_id != CLIENT_ID {
        return None;
    }
    Some(Checked {
        claims: AccessClaims {
            tenant_id: TenantId::parse(&claims.tid).ok()?,
            user_id: UserId::parse(&claims.sub).ok()?,
            session_id: SessionId::parse(&claims.sid).ok()?,
            role: Role::from_name(&claims.role)?,
            issued_at: seconds(claims.iat),
            expires_at: seconds(claims.exp),
            token_id: Uuid::try_parse(&claims.jti).ok()?,
        },
        not_before: claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat)),
    })
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000))
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessTokens").field("keyring", &self.ring.load().keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
