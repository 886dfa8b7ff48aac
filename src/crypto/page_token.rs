//! Page tokens: where a list goes on, in a form that only this service can make.
//!
//! A token is, in base64url without padding (RFC 4648, 5), a version byte (1), the cursor, and the first
//! 16 bytes of HMAC-SHA256 over the list's scope and both of these. The scope (which list, whose, under
//! which filter) is not in the token: one that was made for another list is refused.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::mac_keys::MacKeys;
use super::master_key::MasterKeys;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
/// Longer than any cursor needs; nothing longer is looked at.
const MAX_CHARS: usize = 1024;

/// The text is no page token of this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_page_token of the same list")]
pub struct InvalidPageToken;

/// Makes page tokens and tells them from made-up ones.
pub struct PageTokens(MacKeys);

impl PageTokens {
    /// Tokens under a key derived from the current master key. Those under the previous ones are
    /// accepted.
    pub fn new(master_keys: &MasterKeys) -> Self {
        Self(MacKeys::new(master_keys, "page token"))
    }

    /// Takes the keys of other master keys from now on.
    pub fn exchange(&self, master_keys: &MasterKeys) {
        self.0.exchange(master_keys);
    }

    /// The token by which the list `scope` goes on behind `cursor`.
    pub fn issue(&self, scope: &[impl AsRef<[u8]>], cursor: &[u8]) -> String {
        let mut token = vec![VERSION];
        token.extend_from_slice(cursor);
        let mac = self.0.with_current(|key| mac(key, scope, &token));
        token.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The cursor in a token that was issued for the list `scope`.
    ///
    /// # Errors
    /// [`InvalidPageToken`] for everything else.
    pub fn parse(&self, scope: &[impl AsRef<[u8]>], text: &str) -> Result<Vec<u8>, InvalidPageToken> {
        if text.len() > MAX_CHARS {
            return Err(InvalidPageToken);
        }
        let token = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPageToken)?;
        let (body, mac) = token.split_last_chunk::<MAC_BYTES>().ok_or(InvalidPageToken)?;
        let is_under = |key: &hmac::Key| {
            constant_time::verify_slices_are_equal(&self::mac(key, scope, body), mac).is_ok()
        };
        if !self.0.any(is_under) {
            return Err(InvalidPageToken);
        }
        body.strip_prefix(&[VERSION]).map(<[u8]>::to_vec).ok_or(InvalidPageToken)
    }
}

/// Over each part of the scope behind its length, so that no two scopes run together.
fn mac(key: &hmac::Key, scope: &[impl AsRef<[u8]>], body: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = hmac::Context::with_key(key);
    mac.update(&(scope.len() as u64).to_be_bytes());
    for part in scope.iter().map(AsRef::as_ref).chain([body]) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    *mac.sign().as_ref().first_chunk().expect("HMAC-SHA256 has 32 bytes")
}

impl fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageTokens(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::MasterKey;
    use super::*;

    const SCOPE: [&[u8]; 2] = [b"sessions", b"ada"];

    #[test]
    fn a_token_goes_on_where_its_list_was() {
        let tokens = PageTokens::new(&MasterKey::generate().into());
        for cursor in [&b""[..], b"behind this"] {
            assert_eq!(tokens.parse(&SCOPE, &tokens.issue(&SCOPE, cursor)).unwrap(), cursor);
        }
    }

    #[test]
    fn a_token_is_good_for_its_list_and_service_only() {
        let tokens = PageTokens::new(&MasterKey::generate().into());
        let token = tokens.issue(&SCOPE, b"behind this");
        let scopes: [&[&[u8]]; 4] = [&[b"sessions", b"eve"], &[b"sessions"], &[b"sessionsada"], &[]];
        for scope in scopes {
            assert_eq!(tokens.parse(scope, &token), Err(InvalidPageToken));
        }
        let others = PageTokens::new(&MasterKey::generate().into());
        assert_eq!(others.parse(&SCOPE, &token), Err(InvalidPageToken));
    }

    #[test]
    fn a_token_under_the_previous_master_key_is_accepted() {
        let [old, new] = [(); 2].map(|()| MasterKey::generate());
        let token = PageTokens::new(&old.clone().into()).issue(&SCOPE, b"behind this");
        let tokens = PageTokens::new(&MasterKeys { current: new, previous: vec![old.clone()] });
        assert_eq!(tokens.parse(&SCOPE, &token).unwrap(), b"behind this");
        let issued = tokens.issue(&SCOPE, b"behind this");
        assert_eq!(PageTokens::new(&old.into()).parse(&SCOPE, &issued), Err(InvalidPageToken));
    }

    #[test]
    fn no_changed_character_goes_unnoticed() {
        let tokens = PageTokens::new(&MasterKey::generate().into());
        let token = tokens.issue(&SCOPE, b"behind this");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(tokens.parse(&SCOPE, &changed), Err(InvalidPageToken), "character {at}");
            assert_eq!(tokens.parse(&SCOPE, &token[..at]), Err(InvalidPageToken), "cut at {at}");
        }
        assert_eq!(tokens.parse(&SCOPE, &"A".repeat(100_000)), Err(InvalidPageToken));
    }
}
