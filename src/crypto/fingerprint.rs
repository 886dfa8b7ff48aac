//! Fingerprints: whether two requests say the same, without keeping what they say.

use std::fmt;

use aws_lc_rs::hmac;

use super::mac_keys::MacKeys;
use super::master_key::MasterKeys;

/// Makes fingerprints under a key of its own, so that a copy of the database does not let anyone
/// find out by trying what a request said.
pub struct Fingerprinter(MacKeys);

impl Fingerprinter {
    /// Fingerprints of requests, under a key derived from the current master key. Those under the previous ones
    /// are recognised.
    pub fn of_requests(master_keys: &MasterKeys) -> Self {
        Self(MacKeys::new(master_keys, "request fingerprint"))
    }

    /// Fingerprints of who tried, and whom, likewise.
    pub fn of_attempts(master_keys: &MasterKeys) -> Self {
        Self(MacKeys::new(master_keys, "attempt fingerprint"))
    }

    /// Takes the keys of other master keys from now on.
    pub fn exchange(&self, master_keys: &MasterKeys) {
        self.0.exchange(master_keys);
    }

    /// HMAC-SHA256 over the fields in their order, each behind its length, so that no two lists of
    /// fields run together into the same text. Leave out what is too easy to guess even for an
    /// attacker who has the key, above all passwords.
    pub fn fingerprint(&self, fields: &[&str]) -> [u8; 32] {
        self.0.with_current(|key| fingerprint(key, fields))
    }

    /// Whether `known` was made of the same fields.
    pub fn matches(&self, fields: &[&str], known: &[u8; 32]) -> bool {
        self.0.any(|key| fingerprint(key, fields) == *known)
    }
}

fn fingerprint(key: &hmac::Key, fields: &[&str]) -> [u8; 32] {
    let mut mac = hmac::Context::with_key(key);
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field.as_bytes());
    }
    *mac.sign().as_ref().first_chunk().expect("HMAC-SHA256 has 32 bytes")
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::MasterKey;
    use super::*;

    #[test]
    fn only_the_same_fields_in_the_same_order_have_the_same_fingerprint() {
        let key = MasterKeys::from(MasterKey::generate());
        let prints = Fingerprinter::of_requests(&key);
        let print = prints.fingerprint(&["ab", "c"]);
        assert_eq!(prints.fingerprint(&["ab", "c"]), print);
        for fields in [&["a", "bc"][..], &["c", "ab"], &["abc"], &["ab", "c", ""], &[]] {
            assert_ne!(prints.fingerprint(fields), print, "{fields:?}");
        }
        let of_another = Fingerprinter::of_requests(&MasterKey::generate().into());
        for others in [of_another, Fingerprinter::of_attempts(&key)] {
            assert_ne!(others.fingerprint(&["ab", "c"]), print);
        }
    }

    #[test]
    fn what_was_made_under_the_previous_master_key_is_recognised() {
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let print = Fingerprinter::of_requests(&old.clone().into()).fingerprint(&["ab", "c"]);
        assert!(!Fingerprinter::of_requests(&new.clone().into()).matches(&["ab", "c"], &print));
        let both = Fingerprinter::of_requests(&MasterKeys { current: new, previous: vec![old] });
        assert!(both.matches(&["ab", "c"], &print) && !both.matches(&["a", "bc"], &print));
        assert!(both.matches(&["ab", "c"], &both.fingerprint(&["ab", "c"])));
    }
}
