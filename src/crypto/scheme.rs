//! The three ways in which a password hash is computed, as pure functions around one primitive.
//!
//! Every scheme ends in bcrypt: a cost, 16 bytes of salt, and a key of 1 to 72 bytes give a digest
//! of 23 bytes. This module says which key a password becomes and reads and writes the notations.
//! When that computation runs, and where, is up to [`super::hasher`].

use std::fmt;

use aws_lc_rs::hmac;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use base64::engine::{Engine, GeneralPurpose};
use zeroize::Zeroizing;

use super::hasher::Cost;
use crate::domain::{Password, PasswordHash, PasswordScheme};

/// bcrypt's own base64. Some systems leave bits set behind the last byte of a salt or a digest,
/// which every bcrypt ignores, so they are read; they are never written.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// The most bytes of a key that bcrypt looks at: the 18 words of Blowfish's P-array.
const MAX_KEY_BYTES: usize = 72;
/// Characters of 16 bytes of salt and of 23 bytes of digest.
const SALT_CHARS: usize = 22;
const DIGEST_CHARS: usize = 31;

/// What bcrypt is salted with.
pub(super) type Salt = [u8; 16];
/// What bcrypt yields: 24 bytes less the last, which no implementation keeps.
pub(super) type Digest = [u8; 23];

/// The key of one bcrypt computation, 1 to 72 bytes that are used over and over; erased on drop.
pub(super) struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The first 72 bytes of `bytes` and the NUL that ends a C string, as far as it fits.
    fn of_c_string(bytes: &[u8]) -> Self {
        let mut key = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES));
        key.extend_from_slice(&bytes[..bytes.len().min(MAX_KEY_BYTES)]);
        if key.len() < MAX_KEY_BYTES {
            key.push(0);
        }
        Self(key)
    }

    /// The key as bytes, at least one.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The key that no password has, for computations whose result nobody reads.
pub(super) fn dummy_key() -> Key {
    Key::of_c_string(b"dummy")
}

/// The scheme in which a new hash of `password` is written.
pub(super) fn scheme_of_new(password: &Password) -> PasswordScheme {
    if fits_bcrypt(password) { PasswordScheme::Bcrypt } else { PasswordScheme::BcryptSha256 }
}

/// The key of a new hash of `password`, in [`scheme_of_new`].
pub(super) fn key_of_new(password: &Password, salt: &Salt) -> Key {
    match scheme_of_new(password) {
        PasswordScheme::BcryptSha256 => sha256_key(password, salt),
        PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => Key::of_c_string(password.as_bytes()),
    }
}

/// Writes the hash of `password` that a computation over [`key_of_new`] ended in.
pub(super) fn write_new(password: &Password, cost: Cost, salt: &Salt, digest: &Digest) -> PasswordHash {
    let scheme = scheme_of_new(password);
    let (cost, salt, digest) = (cost.get(), BASE64.encode(salt), BASE64.encode(digest));
    let text = match scheme {
        PasswordScheme::BcryptSha256 => format!("$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${digest}"),
        PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => format!("$2b${cost:02}${salt}{digest}"),
    };
    PasswordHash { scheme, text }
}

/// bcrypt sees the whole password: nothing is cut off, and no NUL makes two passwords one (a key is
/// used over and over, so "a" and "a\0a" are the same to it).
fn fits_bcrypt(password: &Password) -> bool {
    password.as_bytes().len() <= MAX_KEY_BYTES && !password.as_bytes().contains(&0)
}

/// passlib's `bcrypt_sha256`, version 2: base64 (RFC 4648, 4) of HMAC-SHA256, keyed with the salt as
/// it is written, over the password.
fn sha256_key(password: &Password, salt: &Salt) -> Key {
    let mac_key = hmac::Key::new(hmac::HMAC_SHA256, BASE64.encode(salt).as_bytes());
    let tag = hmac::sign(&mac_key, password.as_bytes());
    Key::of_c_string(Zeroizing::new(STANDARD.encode(tag)).as_bytes())
}

/// The prefix of a bcrypt hash. All three mean the same, except where [`truncated_key`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    A,
    B,
    Y,
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
    digest: Digest,
}

impl StoredHash {
    /// Takes `hash` apart. A cost beyond [`Cost::MAX`] is [`Unreadable`]: whoever can write a hash
    /// must not be able to keep a core busy for hours.
    pub(super) fn read(hash: &PasswordHash) -> Result<Self, Unreadable> {
        let (variant, cost, salt, digest) = match hash.scheme {
            PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => split_bcrypt(&hash.text),
            PasswordScheme::BcryptSha256 => split_bcrypt_sha256(&hash.text),
        }
        .ok_or(Unreadable)?;
        let cost = Cost::new(cost.parse().map_err(|_| Unreadable)?).ok_or(Unreadable)?;
        Ok(Self { scheme: hash.scheme, variant, cost, salt: decode(salt)?, digest: decode(digest)? })
    }

    /// The key that `password` becomes.
    pub(super) fn key(&self, password: &Password) -> Key {
        match self.scheme {
            PasswordScheme::Bcrypt => Key::of_c_string(password.as_bytes()),
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

    /// Whether `digest` is the stored one, in a time that does not depend on where they differ.
    pub(super) fn has_digest(&self, digest: &Digest) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.digest, digest).is_ok()
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
        return Key::of_c_string(bytes);
    }
    let counted = (bytes.len() + 1) % 256;
    Key(Zeroizing::new(bytes[..counted.clamp(1, MAX_KEY_BYTES)].to_vec()))
}

type Parts<'a> = (Variant, &'a str, &'a str, &'a str);

/// `$2b$12$` and 53 characters: variant, cost in two digits, salt, digest.
fn split_bcrypt(text: &str) -> Option<Parts<'_>> {
    let mut fields = text.strip_prefix('$')?.split('$');
    let variant = match fields.next()? {
        "2a" => Variant::A,
        "2b" => Variant::B,
        "2y" => Variant::Y,
        // `$2x$` marks hashes of a faulty implementation, which no right one can check.
        _ => return None,
    };
    let (cost, rest) = (fields.next()?, fields.next()?);
    if fields.next().is_some() || cost.len() != 2 || !is_decimal(cost) {
        return None;
    }
    let (salt, digest) = rest.split_at_checked(SALT_CHARS)?;
    Some((variant, cost, salt, digest))
}

/// `$bcrypt-sha256$v=2,t=2b,r=12$`, salt, `$`, digest.
fn split_bcrypt_sha256(text: &str) -> Option<Parts<'_>> {
    let mut fields = text.strip_prefix("$bcrypt-sha256$v=2,t=2b,r=")?.split('$');
    let parts = (Variant::B, fields.next()?, fields.next()?, fields.next()?);
    (fields.next().is_none() && is_decimal(parts.1)).then_some(parts)
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], Unreadable> {
    const { assert!((N * 8).div_ceil(6) == SALT_CHARS || (N * 8).div_ceil(6) == DIGEST_CHARS) };
    BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Unreadable)
}
