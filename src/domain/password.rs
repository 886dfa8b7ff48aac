//! Passwords: what may be one, and the form in which they are kept.
//!
//! The rules are those of NIST SP 800-63B-4, 3.1.1.2: a least length, no composition rules, and
//! nothing that everybody tries first. How a [`PasswordHash`] is computed is not decided here.

use std::fmt;

use zeroize::Zeroizing;

use super::common_passwords;
use super::email::Email;

/// A password exactly as received: 1 to 1,024 bytes of UTF-8, erased when dropped.
/// `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

/// Why a text is not a password, whatever the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`Password::MAX_BYTES`].
    #[error("must have at most {} bytes", Password::MAX_BYTES)]
    TooLong,
}

impl Password {
    /// The most bytes a password has: far beyond any passphrase, and cheap to digest.
    pub const MAX_BYTES: usize = 1024;

    /// Takes `text` as it is: neither trimmed nor normalised, so that it verifies as it was sent.
    ///
    /// # Errors
    /// [`InvalidPassword`] names the rule that `text` breaks; a refused text is erased as well.
    pub fn new(text: String) -> Result<Self, InvalidPassword> {
        let text = Zeroizing::new(text);
        match text.len() {
            0 => Err(InvalidPassword::Empty),
            1..=Self::MAX_BYTES => Ok(Self(text)),
            _ => Err(InvalidPassword::TooLong),
        }
    }

    /// The password as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The password as the bytes of its UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a new password has to satisfy. Passwords that exist already are never held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    min_chars: usize,
}

/// The rule that a new password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    /// Fewer characters than the least that it carries.
    #[error("must have at least {0} characters")]
    TooShort(usize),
    /// On the embedded list of passwords that are tried first.
    #[error("must not be a commonly used password")]
    Common,
    /// The user's own address.
    #[error("must not be the e-mail address")]
    EqualsEmail,
}

impl PasswordPolicy {
    /// A policy that asks for at least `min_chars` characters (Unicode scalar values). The embedded
    /// list holds passwords of eight characters and more, so a smaller number weakens that rule.
    pub const fn new(min_chars: usize) -> Self {
        Self { min_chars }
    }

    /// Holds a new password against the rules; `email` is its user's address, where one is known.
    ///
    /// # Errors
    /// The first rule broken, as [`PasswordRefused`].
    pub fn check(&self, password: &Password, email: Option<&Email>) -> Result<(), PasswordRefused> {
        if password.as_str().chars().count() < self.min_chars {
            return Err(PasswordRefused::TooShort(self.min_chars));
        }
        let lower = Zeroizing::new(password.as_str().to_lowercase());
        if common_passwords::contains(&lower) {
            return Err(PasswordRefused::Common);
        }
        if email.is_some_and(|email| {
            *lower == email.as_given().to_lowercase() || lower.as_str() == email.as_normalized()
        }) {
            return Err(PasswordRefused::EqualsEmail);
        }
        Ok(())
    }
}

/// How a stored hash was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordScheme {
    /// bcrypt over the password itself, which has at most 72 bytes and no NUL.
    Bcrypt,
    /// bcrypt over a keyed digest of the password: version 2 of passlib's `bcrypt_sha256`.
    BcryptSha256,
    /// bcrypt by a system that cut the password at 72 bytes, as Node's `bcrypt` does.
    BcryptTruncated,
}

impl PasswordScheme {
    /// The scheme's name in storage: `bcrypt`, `bcrypt-sha256` or `bcrypt-truncated`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bcrypt => "bcrypt",
            Self::BcryptSha256 => "bcrypt-sha256",
            Self::BcryptTruncated => "bcrypt-truncated",
        }
    }

    /// The scheme of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Bcrypt, Self::BcryptSha256, Self::BcryptTruncated]
            .into_iter()
            .find(|scheme| scheme.as_str() == name)
    }
}

/// A hash as it is stored. `Debug` shows the scheme and nothing of the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// How `text` was computed.
    pub scheme: PasswordScheme,
    /// Cost, salt and digest, in the scheme's own notation.
    pub text: String,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, email: Option<&str>) -> Result<(), PasswordRefused> {
        let email = email.map(|text| Email::parse(text).unwrap());
        PasswordPolicy::new(8).check(&Password::new(text.to_owned()).unwrap(), email.as_ref())
    }

    #[test]
    fn a_password_has_1_to_1024_bytes() {
        assert_eq!(Password::new(String::new()), Err(InvalidPassword::Empty));
        assert!(Password::new("x".repeat(1024)).is_ok());
        assert_eq!(Password::new("x".repeat(1025)), Err(InvalidPassword::TooLong));
        assert_eq!(InvalidPassword::TooLong.to_string(), "must have at most 1024 bytes");
    }

    #[test]
    fn nothing_is_trimmed_or_normalised() {
        let text = " Zoe\u{308}\0 ";
        assert_eq!(Password::new(text.to_owned()).unwrap().as_bytes(), text.as_bytes());
    }

    #[test]
    fn length_counts_characters_and_not_bytes() {
        assert_eq!(check("\u{e9}t\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", None), Err(PasswordRefused::TooShort(8)));
        assert_eq!(check("\u{e9}t\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}!", None), Ok(()));
        assert_eq!(PasswordRefused::TooShort(8).to_string(), "must have at least 8 characters");
    }

    #[test]
    fn a_common_password_is_refused_in_any_case() {
        for text in ["password1", "PASSWORD1", "Iloveyou1", "qwertyuiop"] {
            assert_eq!(check(text, None), Err(PasswordRefused::Common), "{text}");
        }
        assert_eq!(check("correct horse battery staple", None), Ok(()));
    }

    #[test]
    fn the_address_is_refused_as_given_and_as_normalised() {
        let email = Some("Ada@B\u{fc}cher.example");
        for text in ["Ada@B\u{fc}cher.example", "ADA@B\u{dc}CHER.EXAMPLE", "ada@xn--bcher-kva.example"] {
            assert_eq!(check(text, email), Err(PasswordRefused::EqualsEmail), "{text}");
        }
        assert_eq!(check("ada@example.com!", Some("ada@example.com")), Ok(()));
        assert_eq!(check("ada@example.com", None), Ok(()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let password = Password::new("open sesame".to_owned()).unwrap();
        let hash = PasswordHash { scheme: PasswordScheme::Bcrypt, text: "$2b$04$secret".to_owned() };
        assert_eq!(format!("{password:?}"), "Password(…)");
        assert_eq!(format!("{hash:?}"), "PasswordHash { scheme: Bcrypt, .. }");
    }

    #[test]
    fn a_scheme_is_found_by_its_name() {
        for scheme in [PasswordScheme::Bcrypt, PasswordScheme::BcryptSha256, PasswordScheme::BcryptTruncated]
        {
            assert_eq!(PasswordScheme::from_name(scheme.as_str()), Some(scheme));
        }
        assert_eq!(PasswordScheme::from_name("argon2id"), None);
    }
}
