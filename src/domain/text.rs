//! Rules that all short texts share: names of people and of tenants.

use unicode_normalization::UnicodeNormalization;

/// Why a short text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing is left after trimming.
    #[error("must not be empty")]
    Empty,
    /// More characters than the limit that it carries.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// A control character, line separator or NUL.
    #[error("must not contain control characters")]
    Control,
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
    fn each_rule_is_named() {
        assert_eq!(short_text(" \t", 10), Err(InvalidText::Empty));
        assert_eq!(short_text("abcd", 3), Err(InvalidText::TooLong(3)));
        assert_eq!(short_text(&"a".repeat(10_000_000), 3), Err(InvalidText::TooLong(3)));
        assert_eq!(short_text("a\0b", 10), Err(InvalidText::Control));
        assert_eq!(short_text("a\u{2028}b", 10), Err(InvalidText::Control));
    }
}
