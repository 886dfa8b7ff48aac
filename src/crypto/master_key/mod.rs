//! The master key: the one secret from which every other secret key comes.
//!
//! It is never used itself. [`MasterKey::derive`] makes a key for each purpose, so that a weakness
//! in the use of one says nothing of another; [`MasterKey::seal`] keeps private keys in the database.
//! Where the key comes from (environment, file, `JWT_SECRET`) is the configuration's to decide.

mod file;
mod seal;

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::{constant_time, hkdf};
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

pub use self::seal::Unsealable;
use super::random;

/// Standard base64 (RFC 4648, 4) whose padding may be missing.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// 32 secret bytes, erased when dropped. `Debug` shows nothing of them.
#[derive(Clone)]
pub struct MasterKey(Box<Zeroizing<[u8; MasterKey::BYTES]>>);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not base64 of 32 bytes.
    #[error("the master key must be the base64 of exactly 32 bytes")]
    Malformed,
    /// The file's content is not base64 of 32 bytes.
    #[error("{}: the master key must be the base64 of exactly 32 bytes", path.display())]
    MalformedFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the file's owner may read or change it.
    #[error("{path}: the master key must be readable by its owner only (or its group); run: chmod 600 {path}",
        path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or, where that was asked for, created.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl MasterKeyError {
    /// Whether there is no such file.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// A key for one purpose, made by [`MasterKey::derive`]. `Debug` shows nothing of it.
pub struct DerivedKey(Zeroizing<[u8; 32]>);

impl DerivedKey {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl MasterKey {
    /// How long the key is.
    pub const BYTES: usize = 32;

    /// A new random key.
    pub fn generate() -> Self {
        Self::filled_by(random::fill)
    }

    /// Reads standard or URL-safe base64 (RFC 4648, 4 and 5), padded or not, white space around it
    /// ignored.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`], which does not quote the text.
    pub fn from_base64(text: &str) -> Result<Self, MasterKeyError> {
        let text = Zeroizing::new(text.trim().replace('-', "+").replace('_', "/"));
        let bytes = Zeroizing::new(LENIENT_BASE64.decode(&*text).map_err(|_| MasterKeyError::Malformed)?);
        if bytes.len() != Self::BYTES {
            return Err(MasterKeyError::Malformed);
        }
        Ok(Self::filled_by(|key| key.copy_from_slice(&bytes)))
    }

    /// The key in standard base64, padded: 44 characters.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// Whether both are the same key, in a time that does not depend on where they differ.
    pub fn is(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_slice(), other.0.as_slice()).is_ok()
    }

    /// The key that belongs to a token secret, for an installation that has no other secret. Whoever
    /// changes the secret changes this key and all that hangs on it.
    pub fn from_jwt_secret(secret: &[u8]) -> Self {
        Self::filled_by(|key| derive(secret, "identity master key from JWT_SECRET", key))
    }

    /// The key for the purpose that `label` names: HKDF-SHA256 (RFC 5869) without salt, the label as
    /// `info`. The same label gives the same key for ever, so each purpose has one of its own.
    pub fn derive(&self, label: &str) -> DerivedKey {
        let mut key = DerivedKey(Zeroizing::default());
        derive(self.0.as_slice(), label, key.0.as_mut_slice());
        key
    }

    fn filled_by(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut key = Self(Box::default());
        fill(key.0.as_mut_slice());
        key
    }
}

/// HKDF-SHA256 of `secret` under `label`, as long as `out`: at most 8,160 bytes (RFC 5869, 2.3).
pub(super) fn derive(secret: &[u8], label: &str, out: &mut [u8]) {
    struct Length(usize);

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    hkdf::Salt::none(hkdf::HKDF_SHA256)
        .extract(secret)
        .expand(&[label.as_bytes()], Length(out.len()))
        .and_then(|key| key.fill(out))
        .expect("keys are far shorter than what HKDF can give");
}

/// The master key, and others that count as well while they are exchanged.
#[derive(Clone, Debug)]
pub struct MasterKeys {
    /// Under which everything new is made.
    pub current: MasterKey,
    /// Under which what was made before still counts.
    pub previous: Vec<MasterKey>,
}

impl MasterKeys {
    /// Decrypts what [`MasterKey::seal`] made under any of the keys.
    ///
    /// # Errors
    /// [`Unsealable`] when none opens it.
    pub fn open(&self, purpose: &str, key_id: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        keys.find_map(|key| key.open(purpose, key_id, sealed).ok()).ok_or(Unsealable)
    }
}

impl From<MasterKey> for MasterKeys {
    fn from(current: MasterKey) -> Self {
        Self { current, previous: Vec::new() }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes whose base64 differs between the two alphabets.
    fn key() -> MasterKey {
        MasterKey::filled_by(|key| key.fill(0xfb))
    }

    #[test]
    fn either_alphabet_is_read_with_and_without_padding() {
        let standard = key().to_base64().to_string();
        let url_safe = standard.replace('+', "-").replace('/', "_");
        assert_ne!(standard, url_safe);
        for text in [&standard, &url_safe, standard.trim_end_matches('='), &format!(" {url_safe}\n")] {
            assert_eq!(MasterKey::from_base64(text).unwrap().to_base64(), key().to_base64(), "{text}");
        }
    }

    #[test]
    fn anything_but_32_bytes_is_refused() {
        for text in ["", "secret", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33]), &"!".repeat(44)] {
            assert!(matches!(MasterKey::from_base64(text), Err(MasterKeyError::Malformed)), "{text}");
        }
    }

    #[test]
    fn derivation_is_hkdf_sha256() {
        // RFC 5869, A.3: 22 bytes of 0x0b, neither salt nor info.
        let mut out = [0; 42];
        derive(&[0x0b; 22], "", &mut out);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(out.map(|byte| format!("{byte:02x}")).concat(), expected);
    }

    #[test]
    fn every_label_has_its_own_key() {
        assert_eq!(key().derive("a").as_bytes(), key().derive("a").as_bytes());
        assert_ne!(key().derive("a").as_bytes(), key().derive("b").as_bytes());
        assert_ne!(key().derive("a").as_bytes(), MasterKey::generate().derive("a").as_bytes());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?} {:?}", key(), key().derive("a")), "MasterKey(…) DerivedKey(…)");
    }
}
