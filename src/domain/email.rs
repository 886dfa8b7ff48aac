//! E-mail addresses: which are accepted, and when two are the same.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::visible;

/// An e-mail address as its owner wrote it, and the form in which addresses are compared.
///
/// Normalised form: NFC, lower case, the domain as IDNA A-labels (UTS 46); nothing else, so dots
/// and `+tags` in the local part keep their meaning. `Debug` shows no part of the address.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    given: String,
    normalized: String,
}

/// Why a text is not an e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Longer than a mail path may be (RFC 5321, 4.5.3.1).
    #[error("must have at most 254 bytes, and at most 64 before the @")]
    TooLong,
    /// Not of the form `local@domain`.
    #[error("must be an e-mail address such as ada@example.com")]
    Malformed,
    /// With a character that nobody sees, so that two addresses could look alike.
    #[error("must not contain invisible characters")]
    Invisible,
}

impl Email {
    /// The most bytes an address has: a path of 256 less its angle brackets (RFC 5321, 4.5.3.1.3).
    pub const MAX_BYTES: usize = 254;
    /// The most bytes the part before the `@` has (RFC 5321, 4.5.3.1.1).
    const MAX_LOCAL_BYTES: usize = 64;

    /// Reads an address of the form `local@domain`: the local part a dot-atom (RFC 5322, 3.2.3),
    /// characters beyond ASCII allowed (RFC 6531); the domain a host name. Quoted local parts and
    /// address literals are refused, and invisible characters but for those that scripts and emoji need.
    ///
    /// # Errors
    /// [`InvalidEmail`] names the rule that `text` breaks; its message never quotes the text.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let email = Self::parse_existing(text)?;
        if visible::has_needless_invisible(text) { Err(InvalidEmail::Invisible) } else { Ok(email) }
    }

    /// Reads an address that a user may have: one that [`Email::parse`] accepts, or one with invisible characters
    /// that an earlier version accepted.
    ///
    /// # Errors
    /// As [`Email::parse`], but for [`InvalidEmail::Invisible`].
    pub fn parse_existing(text: &str) -> Result<Self, InvalidEmail> {
        if text.is_empty() {
            return Err(InvalidEmail::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidEmail::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail::Malformed)?;
        let local = normalize_local(local)?;
        let domain = normalize_domain(domain)?;
        let normalized = format!("{local}@{domain}");
        if normalized.len() > Self::MAX_BYTES {
            return Err(InvalidEmail::TooLong);
        }
        Ok(Self { given: text.to_owned(), normalized })
    }

    /// The address as its owner wrote it.
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// The form in which addresses are compared and looked up.
    pub fn as_normalized(&self) -> &str {
        &self.normalized
    }

    /// The domain in the form in which addresses are compared.
    pub fn domain(&self) -> &str {
        self.normalized.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// How an e-mail address begins, in the form in which addresses are compared. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailPrefix {
    ending: String,
    going_on: Option<String>,
}

impl EmailPrefix {
    /// Reads the beginning of an address, lower case or not. Of a domain beyond ASCII, the beginning is that of
    /// its A-labels.
    ///
    /// # Errors
    /// [`InvalidEmail`] for what no address begins with.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        if text.is_empty() {
            return Err(InvalidEmail::Empty);
        }
        if text.len() > Email::MAX_BYTES {
            return Err(InvalidEmail::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidEmail::Malformed);
        }
        let ending: String = text.to_lowercase().nfc().collect();
        // A capital sigma has two small forms, and which of them it is here depends on what follows.
        let going_on: String = format!("{text}a").to_lowercase().nfc().collect();
        let going_on = going_on.strip_suffix('a').filter(|going_on| *going_on != ending);
        Ok(Self { going_on: going_on.map(str::to_owned), ending })
    }

    /// Whether a normalised address begins so.
    pub fn begins(&self, normalized: &str) -> bool {
        self.forms().any(|form| normalized.starts_with(form))
    }

    /// The normalised addresses that begin so, as ranges by their bytes: from the first on, before the second.
    /// No address is in two of them.
    pub fn ranges(&self) -> Vec<(String, String)> {
        self.forms().map(|form| (form.to_owned(), end_of(form))).collect()
    }

    fn forms(&self) -> impl Iterator<Item = &str> {
        [Some(self.ending.as_str()), self.going_on.as_deref()].into_iter().flatten()
    }

    /// The beginning of the normalised addresses that are meant.
    pub fn as_str(&self) -> &str {
        &self.ending
    }

    /// Another beginning that is meant as well, when the last word may go on.
    pub fn going_on(&self) -> Option<&str> {
        self.going_on.as_deref()
    }
}

impl fmt::Debug for EmailPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailPrefix(…)")
    }
}

/// The first text, by bytes, behind all addresses that begin with `prefix`.
fn end_of(prefix: &str) -> String {
    let mut characters: Vec<char> = prefix.chars().collect();
    // Nothing comes behind the last character there is; what comes behind the one before it is behind both.
    while let Some(last) = characters.pop() {
        // In UTF-8 the bytes are in the order of the characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return characters.into_iter().collect();
        }
    }
    // Longer than any address.
    char::MAX.to_string().repeat(Email::MAX_BYTES)
}

fn normalize_local(local: &str) -> Result<String, InvalidEmail> {
    if local.len() > Email::MAX_LOCAL_BYTES {
        return Err(InvalidEmail::TooLong);
    }
    // Decomposed, since some characters are canonically equivalent to ASCII that is refused, or to
    // such a character with a mark.
    if local.split('.').any(|atom| atom.is_empty() || !atom.nfd().all(is_atom_character)) {
        return Err(InvalidEmail::Malformed);
    }
    // Lower case first: some lower-case mappings yield sequences that NFC composes.
    Ok(local.to_lowercase().nfc().collect())
}

/// `atext` of RFC 5322, 3.2.3, with the characters that RFC 6531 adds.
fn is_atom_character(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_' | '`' | '{'
        | '|' | '}' | '~' => true,
        _ => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
    }
}

fn normalize_domain(domain: &str) -> Result<String, InvalidEmail> {
    use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

    Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify)
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| InvalidEmail::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(text: &str) -> String {
        Email::parse(text).unwrap().as_normalized().to_owned()
    }

    #[test]
    fn addresses_that_differ_in_case_or_composition_are_the_same() {
        assert_eq!(normalized("Ada@Example.COM"), "ada@example.com");
        assert_eq!(normalized("zoe\u{308}@example.com"), normalized("ZO\u{cb}@example.com"));
        assert_eq!(normalized("info@B\u{fc}cher.example"), "info@xn--bcher-kva.example");
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for text in ["Ada@Example.COM", "\u{130}x@example.com", "\u{3a3}\u{391}\u{3a3}@b\u{fc}cher.example"] {
            let once = normalized(text);
            assert_eq!(normalized(&once), once, "{text}");
        }
    }

    #[test]
    fn a_prefix_may_end_within_a_word_or_with_it() {
        let forms = |text: &str| {
            let prefix = EmailPrefix::parse(text).unwrap();
            (prefix.as_str().to_owned(), prefix.going_on().map(str::to_owned))
        };
        assert_eq!(forms("ADA"), ("ada".to_owned(), None));
        assert_eq!(forms("\u{391}\u{3a3}"), ("\u{3b1}\u{3c2}".to_owned(), Some("\u{3b1}\u{3c3}".to_owned())));
        assert_eq!(
            forms("\u{391}\u{3a3}."),
            ("\u{3b1}\u{3c2}.".to_owned(), Some("\u{3b1}\u{3c3}.".to_owned()))
        );
        assert_eq!(forms("\u{391}\u{3a3}@"), ("\u{3b1}\u{3c2}@".to_owned(), None));
        assert_eq!(forms("\u{3b1}\u{3c3}"), ("\u{3b1}\u{3c3}".to_owned(), None));
    }

    #[test]
    fn the_range_of_a_prefix_has_what_begins_so_and_nothing_else() {
        let last = char::MAX;
        let texts = ["a", "a\u{d7ff}", "a\u{10fffe}", &format!("a{last}"), &format!("{last}"), "\u{d7ff}"];
        for prefix in texts {
            let parsed = EmailPrefix::parse(prefix).unwrap();
            let [(from, end)] = &parsed.ranges()[..] else { panic!("{prefix:?} has one form") };
            for rest in ["", "@x", "a", "\u{e000}", &format!("{last}"), &format!("{last}{last}@x")] {
                let address = format!("{prefix}{rest}");
                assert!(*from <= address && address < *end && parsed.begins(&address), "{address:?}");
            }
            for other in ["\u{60}", "b", "a\u{e001}x", "\u{d7fe}", &format!("{last}").repeat(3), ""] {
                let is_within = from.as_str() <= other && other < end.as_str();
                assert_eq!(is_within, parsed.begins(other), "{prefix:?} {other:?}");
            }
        }
    }

    #[test]
    fn dots_and_tags_keep_their_meaning() {
        assert_ne!(normalized("a.da@example.com"), normalized("ada@example.com"));
        assert_ne!(normalized("ada+x@example.com"), normalized("ada@example.com"));
    }

    #[test]
    fn the_address_is_kept_as_given() {
        assert_eq!(Email::parse("Ada@Example.COM").unwrap().as_given(), "Ada@Example.COM");
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "ada",
            "@",
            "ada@",
            "@example.com",
            "a b@example.com",
            "a@b@example.com",
            "ada@exa mple.com",
            ".ada@example.com",
            "ada.@example.com",
            "a..b@example.com",
            "\"a b\"@example.com",
            "ada@[127.0.0.1]",
            "a\0da@example.com",
            "ada@example\0.com",
            "ada@-example.com",
            "ada@example..com",
            "ada@.",
            " ada@example.com",
            "ada@example.com\n",
            "ada@exam_ple.com",
            "<ada@example.com>",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::Malformed), "{text:?}");
        }
        assert_eq!(Email::parse(""), Err(InvalidEmail::Empty));
    }

    #[test]
    fn an_address_with_invisible_characters_is_refused_unless_a_user_has_it() {
        for c in
            ['\u{200b}', '\u{2060}', '\u{feff}', '\u{202e}', '\u{ad}', '\u{200d}', '\u{fffe}', '\u{e000}']
        {
            let text = format!("a{c}da@example.com");
            assert_eq!(Email::parse(&text), Err(InvalidEmail::Invisible), "{text:?}");
            assert_eq!(Email::parse_existing(&text).unwrap().as_given(), text);
        }
        for text in ["ada@exam\u{200b}ple.com", "ada@exam\u{ad}ple.com"] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::Invisible), "{text:?}");
            assert_eq!(Email::parse_existing(text).unwrap().as_normalized(), "ada@example.com");
        }
        for local in ["\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}", "\u{1f469}\u{200d}\u{1f4bb}"] {
            assert!(Email::parse(&format!("{local}@example.com")).is_ok(), "{local:?}");
        }
    }

    #[test]
    fn canonically_equivalent_texts_are_accepted_or_refused_together() {
        // The Greek question mark is equivalent to a semicolon, the negated signs to `<` and `>`
        // with a stroke.
        for text in ["a\u{37e}b", "a;b", "a\u{226e}b", "a<\u{338}b", "a\u{226f}b", "a>\u{338}b"] {
            let parsed = Email::parse(&format!("{text}@example.com"));
            assert_eq!(parsed, Err(InvalidEmail::Malformed), "{text:?}");
        }
        assert_eq!(normalized("a\u{2260}b@example.com"), normalized("a=\u{338}b@example.com"));
        assert_eq!(normalized("a\u{1fef}b@example.com"), normalized("a`b@example.com"));
    }

    #[test]
    fn the_limits_of_a_mail_path_hold() {
        let local = "a".repeat(64);
        assert!(Email::parse(&format!("{local}@example.com")).is_ok());
        assert_eq!(Email::parse(&format!("{local}a@example.com")), Err(InvalidEmail::TooLong));
        assert_eq!(Email::parse(&"a".repeat(10_000_000)), Err(InvalidEmail::TooLong));
    }

    #[test]
    fn debug_shows_no_address() {
        assert_eq!(format!("{:?}", Email::parse("ada@example.com").unwrap()), "Email(…)");
    }
}
