//! `$2b$12$` and 53 characters: how hashes are written.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

use crate::job::{Cost, Digest, Job, Key, Salt};

/// bcrypt's own base64. Some systems leave bits set behind the last byte of a salt or a digest,
/// which every bcrypt ignores, so they are read; they are never written.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// Characters of 16 bytes of salt.
const SALT_CHARS: usize = 22;

/// The prefix of a hash. All three mean the same computation.
///
/// `$2x$`, which marks hashes of a faulty implementation, is not among them: no right one can check
/// those. Nor is the countermeasure of crypt_blowfish against such hashes under `$2a$`, which other
/// implementations lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `$2a$`.
    A,
    /// `$2b$`, what new hashes are written with.
    B,
    /// `$2y$`.
    Y,
}

/// A hash in the notation of crypt(3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    /// Its prefix.
    pub variant: Variant,
    /// The cost it was computed at.
    pub cost: Cost,
    /// Its salt.
    pub salt: Salt,
    /// What the computation yielded.
    pub digest: Digest,
}

impl Hash {
    /// The job of checking `password` against this hash, as all three prefixes ask: cut off after 72
    /// bytes.
    pub fn check(&self, password: &[u8]) -> Job {
        Job::check(Key::of_password(password), self.salt, self.cost, self.digest)
    }
}

/// A text is not a bcrypt hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a bcrypt hash of the form $2b$12$… with 53 characters at the end")
    }
}

impl std::error::Error for NotAHash {}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut fields = text.strip_prefix('$').ok_or(NotAHash)?.split('$');
        let (Some(variant), Some(cost), Some(rest), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(NotAHash);
        };
        let variant = match variant {
            "2a" => Variant::A,
            "2b" => Variant::B,
            "2y" => Variant::Y,
            _ => return Err(NotAHash),
        };
        let is_number = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost = cost.parse().ok().filter(|_| is_number).and_then(Cost::new).ok_or(NotAHash)?;
        let (salt, digest) = rest.split_at_checked(SALT_CHARS).ok_or(NotAHash)?;
        Ok(Self { variant, cost, salt: decode(salt)?, digest: decode(digest)? })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self.variant {
            Variant::A => "2a",
            Variant::B => "2b",
            Variant::Y => "2y",
        };
        let (salt, digest) = (encode(&self.salt), encode(&self.digest));
        write!(f, "${variant}${:02}${salt}{digest}", self.cost.get())
    }
}

/// Shows the cost alone: the rest is what an attacker wants to have.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash").field("cost", &self.cost.get()).finish_non_exhaustive()
    }
}

/// `bytes` in bcrypt's base64.
pub fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The `N` bytes that `text` stands for in bcrypt's base64.
///
/// # Errors
/// [`NotAHash`] for other characters or another length.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotAHash> {
    BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotAHash)
}
