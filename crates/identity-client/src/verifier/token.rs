//! What makes a text a valid access token: a JWS in the compact serialisation (RFC 7515, 7.1) with the
//! header and the claims of RFC 9068, by a key that we know.
//!
//! The checks are those of the service itself, in `src/crypto/access_token.rs`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use uuid::Uuid;

use super::keys::KeySet;
use crate::model::{Claims, Role};

/// The media type that keeps other JWTs from passing for access tokens (RFC 9068, 2.1).
const TYPE: &str = "at+jwt";
/// Who asked for the token (RFC 9068, 2.2): users log in to the service itself.
const CLIENT_ID: &str = "identity";
/// Several times what a token needs; nothing longer is looked at.
const MAX_TOKEN_BYTES: usize = 4096;
/// How far the clock of the machine that issued a token may be ahead, in seconds. Nothing is added to its end.
const LEEWAY: i64 = 60;
/// The service makes no token that is valid for longer than a day.
const MAX_LIFETIME: i64 = 24 * 60 * 60;

/// Why a text is not a valid access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than any token of the service.
    #[error("the token is too long")]
    TooLong,
    /// Not a JWT, or one whose header or claims are not of the service's form.
    #[error("the token is malformed")]
    Malformed,
    /// A JWT, but no access token.
    #[error("the token is of another type")]
    WrongType,
    /// Signed with a key that is not published, or no longer.
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
    /// Valid for longer than any token of the service.
    #[error("the token is valid for too long")]
    ValidTooLong,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// What tokens have to say of their maker, compared exactly.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audience: String,
}

/// All that a header may say. Whatever else could stand there either names a key of the sender's choice
/// (`jwk`, `jku`, `x5u`) or asks for what is not done here (`crit`, `b64`, `zip`). A name that occurs
/// twice is refused, here as in the claims.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    typ: Cow<'a, str>,
}

/// The claims, with exact types: a number in quotes or with a fraction is refused.
#[derive(Deserialize)]
struct RawClaims<'a> {
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
    #[serde(borrow)]
    jti: Cow<'a, str>,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
}

/// A token that passed all checks but those that depend on the time.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    claims: Claims,
    not_before: i64,
    expires: i64,
}

/// What `token` says, if one of `keys` signed it, and it is what is expected, at `now`.
///
/// What was checked before is remembered with `keys`; of such a token only the times are checked again.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected,
    now: SystemTime,
) -> Result<Claims, InvalidToken> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(InvalidToken::TooLong);
    }
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let digest = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    if let Some(checked) = keys.checked.get(digest) {
        return checked.at(now);
    }
    let checked = check(token, keys, expected)?;
    let claims = checked.at(now)?;
    keys.checked.insert(*digest, checked);
    Ok(claims)
}

fn check(token: &str, keys: &KeySet, expected: &Expected) -> Result<Checked, InvalidToken> {
    let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(InvalidToken::Malformed)?;
    let header = decode(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| InvalidToken::Malformed)?;
    if !is_access_token_type(&header.typ) {
        return Err(InvalidToken::WrongType);
    }
    let key = keys.find(&header.kid).ok_or(InvalidToken::UnknownKey)?;
    if header.alg != key.algorithm() || !key.has_signed(message.as_bytes(), &decode(signature)?) {
        return Err(InvalidToken::WrongSignature);
    }
    let claims = decode(claims)?;
    let claims: RawClaims<'_> = serde_json::from_slice(&claims).map_err(|_| InvalidToken::Malformed)?;
    if claims.iss != expected.issuer {
        return Err(InvalidToken::WrongIssuer);
    }
    if claims.aud != expected.audience {
        return Err(InvalidToken::WrongAudience);
    }
    if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME {
        return Err(InvalidToken::ValidTooLong);
    }
    read_claims(&claims).ok_or(InvalidToken::Malformed)
}

impl Checked {
    fn at(&self, now: SystemTime) -> Result<Claims, InvalidToken> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if self.expires <= now {
            return Err(InvalidToken::Expired);
        }
        if self.not_before > now.saturating_add(LEEWAY) {
            return Err(InvalidToken::NotYetValid);
        }
        Ok(self.claims)
    }
}

/// Base64url without padding and without bits that mean nothing (RFC 7515, 2), so that a token has one
/// text.
fn decode(part: &str) -> Result<Vec<u8>, InvalidToken> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken::Malformed)
}

/// A media type: in any case, `application/` may be left out (RFC 7515, 4.1.9; RFC 9068, 4).
fn is_access_token_type(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let bare = match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => typ,
    };
    bare.eq_ignore_ascii_case(TYPE)
}

fn read_claims(claims: &RawClaims<'_>) -> Option<Checked> {
    if claims.client_id != CLIENT_ID {
        return None;
    }
    let role = match &*claims.role {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        "member" => Role::Member,
        _ => return None,
    };
    Some(Checked {
        claims: Claims {
            user_id: Uuid::try_parse(&claims.sub).ok()?,
            tenant_id: Uuid::try_parse(&claims.tid).ok()?,
            session_id: Uuid::try_parse(&claims.sid).ok()?,
            role,
            issued_at: time(claims.iat)?,
            expires_at: time(claims.exp)?,
            token_id: Uuid::try_parse(&claims.jti).ok()?,
        },
        not_before: claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat)),
        expires: claims.exp,
    })
}

/// `None` before 1970.
fn time(unix_seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(unix_seconds).ok()?))
}
