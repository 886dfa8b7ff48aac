//! Fingerprints: whether two requests say the same, without keeping what they say.

use std::fmt;

use aws_lc_rs::hmac;

use super::master_key::MasterKey;

/// Makes fingerprints under a key of its own, so that a copy of the database does not let anyone
/// find out by trying what a request said.
pub struct Fingerprinter(hmac::Key);

impl Fingerprinter {
    /// Fingerprints under a key derived from `master_key`.
    pub fn new(master_key: &MasterKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, master_key.derive("request fingerprint").as_bytes()))
    }

    /// HMAC-SHA256 over the fields in their order, each behind its length, so that no two lists of
    /// fields run together into the same text. Leave out what is too easy to guess even for an
    /// attacker who has the key, above all passwords.
    pub fn fingerprint(&self, fields: &[&str]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.0);
        for field in fields {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
        *mac.sign().as_ref().first_chunk().expect("HMAC-SHA256 has 32 bytes")
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_fields_in_the_same_order_have_the_same_fingerprint() {
        let prints = Fingerprinter::new(&MasterKey::generate());
        let print = prints.fingerprint(&["ab", "c"]);
        assert_eq!(prints.fingerprint(&["ab", "c"]), print);
        for fields in [&["a", "bc"][..], &["c", "ab"], &["abc"], &["ab", "c", ""], &[]] {
            assert_ne!(prints.fingerprint(fields), print, "{fields:?}");
        }
        assert_ne!(Fingerprinter::new(&MasterKey::generate()).fingerprint(&["ab", "c"]), print);
    }
}
