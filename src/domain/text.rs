//! Rules that all short texts share: names of people and of tenants.

use unicode_normalization::UnicodeNormalization;

use super::visible;

/// Why a short text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing is left after trimming.
    #[error("must not be empty")]
    Empty,
    /// More characters than the limit that it carries.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// A control character, line separator, NUL or noncharacter, or one that turns the direction of writing.
    #[error("must not contain control characters")]
    Control,
    /// White space at its beginning or its end.
    #[error("must not begin or end with white space")]
    Surrounded,
    /// Nothing of it can be seen.
    #[error("must have a visible character")]
    Invisible,
}

/// The text of a name: as [`short_text`] has it, with something to see, and without characters that change how
/// the text around it looks. Invisible characters beside visible ones stay: many scripts have them in names.
///
/// # Errors
/// The first rule broken, as [`InvalidText`].
pub(super) fn name(text: &str, max: usize) -> Result<String, InvalidText> {
    let name = short_text(text, max)?;
    if name.chars().any(|c| visible::turns_direction(c) || visible::is_noncharacter(c)) {
        return Err(InvalidText::Control);
    }
    if !visible::shows_anything(&name) {
        return Err(InvalidText::Invisible);
    }
    Ok(name)
}

/// The text in NFC without white space around it: 1 to `max` characters (Unicode scalar values),
/// none of them a control character.
///
/// # Errors
/// The first rule broken, as [`InvalidText`].
pub(super) fn short_text(text: &str, max: usize) -> Result<String, InvalidText> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(InvalidText::Empty);
    }
    // NFC can make a text shorter but never needs more than a few times its characters, so what is
    // far too long is refused before it is normalised.
    if trimmed.len() > max * 16 {
        return Err(InvalidText::TooLong(max));
    }
    let normalized: String = trimmed.nfc().collect();
    if normalized.chars().count() > max {
        return Err(InvalidText::TooLong(max));
    }
    if normalized.chars().any(is_control) {
        return Err(InvalidText::Control);
    }
    Ok(normalized)
}

fn is_control(c: char) -> bool {
    // U+2028 and U+2029 break lines in logs and terminals as control characters do.
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_trimmed_and_composed() {
        assert_eq!(short_text("  Zoe\u{308} ", 10), Ok("Zo\u{eb}".to_owned()));
    }

    #[test]
    fn a_name_has_something_to_see() {
        for text in ["\u{200b}", "\u{2060} \u{feff}", "\u{3164}", "\u{200d}", "\u{e000}", "\u{2800}"] {
            assert_eq!(name(text, 10), Err(InvalidText::Invisible), "{text:?}");
        }
        for text in ["a\u{202e}b", "\u{2066}a\u{2069}", "a\u{fffe}"] {
            assert_eq!(name(text, 10), Err(InvalidText::Control), "{text:?}");
        }
        // Emoji, Persian, a Japanese name with a variant of a character, a Hebrew one with a mark.
        for text in [
            "\u{1f469}\u{200d}\u{1f4bb}",
            "\u{645}\u{647}\u{200c}\u{627}",
            "\u{845b}\u{e0100}",
            "\u{5d0}\u{200f}!",
        ] {
            assert_eq!(name(text, 10).as_deref(), Ok(text), "{text:?}");
        }
    }

    #[test]
    fn each_rule_is_named() {
        assert_eq!(short_text(" \t", 10), Err(InvalidText::Empty));
        assert_eq!(short_text("abcd", 3), Err(InvalidText::TooLong(3)));
        assert_eq!(short_text(&"a".repeat(10_000_000), 3), Err(InvalidText::TooLong(3)));
        assert_eq!(short_text("a\0b", 10), Err(InvalidText::Control));
        assert_eq!(short_text("a\u{2028}b", 10), Err(InvalidText::Control));
    }
}
