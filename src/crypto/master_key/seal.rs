//! Secrets that are kept outside of the process, under the master key.
//!
//! Sealed form: a version byte (1), a 96-bit random nonce, then ciphertext and tag of AES-256-GCM.
//! What is sealed is bound to its purpose and to the id of the key it is, so that no sealed value
//! opens in another's place. A random nonce is safe for 2^32 values (NIST SP 800-38D, 8.3); there
//! will be some hundred.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::MasterKey;
use crate::crypto::random;

const VERSION: u8 = 1;

/// The sealed value was changed, was sealed for something else or under another master key, or is
/// none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open under this master key for this purpose")]
pub struct Unsealable;

impl MasterKey {
    /// Encrypts `plaintext`, 29 bytes longer, so that only [`MasterKey::open`] with the same key,
    /// `purpose` and `key_id` gets it back. Two calls give two different results.
    pub fn seal(&self, purpose: &str, key_id: &str, plaintext: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        // The plaintext is never in the buffer that is returned: growing it could leave a copy behind.
        let mut in_out = Zeroizing::new(plaintext.to_vec());
        let tag = self
            .sealing_key()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                context(purpose, key_id),
                &mut in_out,
            )
            .expect("AES-GCM seals anything below 64 GiB");
        [&[VERSION], nonce.as_slice(), &in_out, tag.as_ref()].concat()
    }

    /// Decrypts what [`MasterKey::seal`] made.
    ///
    /// # Errors
    /// [`Unsealable`], which does not say which of its causes it was.
    pub fn open(&self, purpose: &str, key_id: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (nonce, ciphertext) = sealed
            .strip_prefix(&[VERSION])
            .and_then(|rest| rest.split_first_chunk::<NONCE_LEN>())
            .ok_or(Unsealable)?;
        let mut in_out = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .sealing_key()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), context(purpose, key_id), &mut in_out)
            .map_err(|_| Unsealable)?
            .len();
        in_out.truncate(length);
        Ok(in_out)
    }

    fn sealing_key(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.derive("sealed values").as_bytes())
            .expect("AES-256 takes every key of 32 bytes");
        LessSafeKey::new(key)
    }
}

/// Purpose and key id, each behind its length, so that no two pairs look alike.
fn context(purpose: &str, key_id: &str) -> Aad<Vec<u8>> {
    let mut context = vec![VERSION];
    for part in [purpose, key_id] {
        context.extend_from_slice(&(part.len() as u64).to_be_bytes());
        context.extend_from_slice(part.as_bytes());
    }
    Aad::from(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens() {
        let key = MasterKey::generate();
        for plaintext in [&b""[..], b"private key"] {
            let sealed = key.seal("signing key", "k1", plaintext);
            assert_eq!(sealed.len(), plaintext.len() + 29);
            assert_eq!(key.open("signing key", "k1", &sealed).unwrap().as_slice(), plaintext);
        }
    }

    #[test]
    fn it_opens_for_nothing_else() {
        let key = MasterKey::generate();
        let sealed = key.seal("signing key", "k1", b"private key");
        assert_eq!(MasterKey::generate().open("signing key", "k1", &sealed), Err(Unsealable));
        for (purpose, key_id) in [("signing key", "k2"), ("other", "k1"), ("signing keyk", "1"), ("", "")] {
            assert_eq!(key.open(purpose, key_id, &sealed), Err(Unsealable), "{purpose} {key_id}");
        }
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let key = MasterKey::generate();
        let sealed = key.seal("signing key", "k1", b"private key");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open("signing key", "k1", &changed), Err(Unsealable), "byte {at}");
            assert_eq!(key.open("signing key", "k1", &sealed[..at]), Err(Unsealable), "cut at {at}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let key = MasterKey::generate();
        assert_ne!(key.seal("p", "k", b"x"), key.seal("p", "k", b"x"));
    }
}
