//! The compact serialisation of a signed text: three parts in base64url (RFC 7515, 3.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::verifying_key::VerifyingKey;

/// A JWS whose signature may be anything. Which key it should be of, its header tells, which is read
/// elsewhere.
#[derive(Clone, Copy)]
pub struct Jws<'a> {
    /// The header, encoded.
    pub header: &'a str,
    payload: &'a str,
    /// The two with the dot between them, which is what is signed.
    message: &'a str,
    signature: &'a str,
}

/// Why there is no payload to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidJws {
    /// It is not in the one form that it should have.
    Malformed,
    /// The signature is not the key's.
    WrongSignature,
}

impl<'a> Jws<'a> {
    /// Takes the text apart.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        Some(Self { header, payload, message, signature })
    }

    /// What `key` has signed. Base64url with padding, or with bits that mean nothing, is refused, so that
    /// a JWS has one text.
    ///
    /// # Errors
    /// [`InvalidJws`].
    pub fn payload_signed_with(&self, key: &VerifyingKey) -> Result<Vec<u8>, InvalidJws> {
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidJws::Malformed);
        let signature = decode(self.signature)?;
        if !key.has_signed(self.message.as_bytes(), &signature) {
            return Err(InvalidJws::WrongSignature);
        }
        decode(self.payload)
    }
}
