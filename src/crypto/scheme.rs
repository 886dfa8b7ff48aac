//! The three ways in which a password hash is computed, as pure functions around one primitive.
//!
//! Every scheme ends in bcrypt: a cost, 16 bytes of salt, and a key of 1 to 72 bytes give a digest
//! of 23 bytes. This module says which key a password becomes and reads and writes the notations.
//! When that computation runs, and where, is up to [`super::hasher`].

use aws_lc_rs::hmac;
use base64::engine::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt_lanes::hash::{decode, encode};
use bcrypt_lanes::{Digest, Hash, Key, MAX_KEY_BYTES, NotAHash, Salt, Variant};
use zeroize::Zeroizing;

use super::hasher::Cost;
use crate::domain::{Password, PasswordHash, PasswordScheme};

/// The key that no password has, for computations whose result nobody reads.
pub(super) fn dummy_key() -> Key {
    Key::of_password(b"dummy")
}

/// What a new hash is, before its digest is known.
pub(super) struct NewHash {
    scheme: PasswordScheme,
    cost: Cost,
    /// Its salt.
    pub(super) salt: Salt,
}

/// A new hash of `password`, and the key to compute it with.
pub(super) fn new_hash(password: &Password, cost: Cost, salt: Salt) -> (NewHash, Key) {
    let scheme = scheme_of_new(password);
    let key = match scheme {
        PasswordScheme::BcryptSha256 => sha256_key(password, &salt),
        PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => Key::of_password(password.as_bytes()),
    };
    (NewHash { scheme, cost, salt }, key)
}

impl NewHash {
    /// The hash in the notation of its scheme.
    pub(super) fn write(&self, digest: &Digest) -> PasswordHash {
        let text = match self.scheme {
            PasswordScheme::BcryptSha256 => {
                let (cost, salt, digest) = (self.cost.get(), encode(&self.salt), encode(digest));
                format!("$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${digest}")
            }
            PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => {
                let (cost, salt, digest) = (self.cost.into(), self.salt, *digest);
                Hash { variant: Variant::B, cost, salt, digest }.to_string()
            }
        };
        PasswordHash { scheme: self.scheme, text }
    }
}

/// The scheme in which a new hash of `password` is written.
fn scheme_of_new(password: &Password) -> PasswordScheme {
    if fits_bcrypt(password) { PasswordScheme::Bcrypt } else { PasswordScheme::BcryptSha256 }
}

/// bcrypt sees the whole password: nothing is cut off, and no NUL makes two passwords one (a key is
/// used over and over, so "a" and "a\0a" are the same to it).
fn fits_bcrypt(password: &Password) -> bool {
    password.as_bytes().len() <= MAX_KEY_BYTES && !password.as_bytes().contains(&0)
}

/// passlib's `bcrypt_sha256`, version 2: base64 (RFC 4648, 4) of HMAC-SHA256, keyed with the salt as
/// it is written, over the password.
fn sha256_key(password: &Password, salt: &Salt) -> Key {
    let mac_key = hmac::Key::new(hmac::HMAC_SHA256, encode(salt).as_bytes());
    let tag = hmac::sign(&mac_key, password.as_bytes());
    Key::of_password(Zeroizing::new(STANDARD.encode(tag)).as_bytes())
}

/// The text of a stored hash is not in the notation of its scheme, or asks for a cost that is out
/// of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A stored hash, taken apart.
pub(super) struct StoredHash {
    scheme: PasswordScheme,
    variant: Variant,
    /// The cost it was computed at.
    pub(super) cost: Cost,
    /// Its salt.
    pub(super) salt: Salt,
    /// What the right password leads to.
    pub(super) digest: Digest,
}

impl StoredHash {
    /// Takes `hash` apart. A cost beyond [`Cost::MAX`] is [`Unreadable`]: whoever can write a hash
    /// must not be able to keep a core busy for hours.
    pub(super) fn read(hash: &PasswordHash) -> Result<Self, Unreadable> {
        let Hash { variant, cost, salt, digest } = match hash.scheme {
            PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => hash.text.parse(),
            PasswordScheme::BcryptSha256 => read_bcrypt_sha256(&hash.text),
        }
        .map_err(|NotAHash| Unreadable)?;
        let cost = Cost::new(cost.get()).ok_or(Unreadable)?;
        Ok(Self { scheme: hash.scheme, variant, cost, salt, digest })
    }

    /// The key that `password` becomes.
    pub(super) fn key(&self, password: &Password) -> Key {
        match self.scheme {
            PasswordScheme::Bcrypt => Key::of_password(password.as_bytes()),
            PasswordScheme::BcryptSha256 => sha256_key(password, &self.salt),
            PasswordScheme::BcryptTruncated => truncated_key(password, self.variant),
        }
    }

    /// Whether the right digest over [`StoredHash::key`] proves that `password` is the right one. It
    /// does not where the key leaves out a part of the password that the scheme never leaves out.
    pub(super) fn key_proves(&self, password: &Password) -> bool {
        match self.scheme {
            PasswordScheme::Bcrypt => fits_bcrypt(password),
            PasswordScheme::BcryptSha256 | PasswordScheme::BcryptTruncated => true,
        }
    }

    /// Whether a hash of `password` made today at cost `today` would be of another cost or form. A dearer
    /// one counts too: it would make the refusals of its user slower than those of others for ever.
    pub(super) fn is_outdated(&self, password: &Password, today: Cost) -> bool {
        self.cost != today || self.variant != Variant::B || self.scheme != scheme_of_new(password)
    }
}

/// The key that Node's `bcrypt` makes of a password, established by experiment with its version
/// 6.0.0: 72 bytes are kept, NULs are bytes like any other, and under `$2a$` the length with its
/// closing NUL is counted in eight bits, so that 255 bytes and more wrap around; a count of 0 is a
/// key of the first byte over and over. bcryptjs 3.0.3 agrees except that it never wraps.
fn truncated_key(password: &Password, variant: Variant) -> Key {
    let bytes = password.as_bytes();
    let wraps = variant == Variant::A && bytes.len() >= usize::from(u8::MAX);
    if !wraps {
        return Key::of_password(bytes);
    }
    let counted = (bytes.len() + 1) % 256;
    Key::cyclic(&bytes[..counted.clamp(1, MAX_KEY_BYTES)]).expect("1 to 72 bytes are a key")
}

/// `$bcrypt-sha256$v=2,t=2b,r=12$`, salt, `$`, digest.
fn read_bcrypt_sha256(text: &str) -> Result<Hash, NotAHash> {
    let mut fields = text.strip_prefix("$bcrypt-sha256$v=2,t=2b,r=").ok_or(NotAHash)?.split('$');
    let (Some(cost), Some(salt), Some(digest), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(NotAHash);
    };
    let is_number = matches!(cost.len(), 1..=2) && cost.bytes().all(|byte| byte.is_ascii_digit());
    let cost = cost.parse().ok().filter(|_| is_number).and_then(bcrypt_lanes::Cost::new).ok_or(NotAHash)?;
    Ok(Hash { variant: Variant::B, cost, salt: decode(salt)?, digest: decode(digest)? })
}
