//! What of a text a reader sees.
//!
//! Invisible characters make two different texts look alike, or leave nothing to see at all. Some scripts and
//! emoji need a few of them between others; see [`has_needless_invisible`]. The properties are Unicode's.

use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, EmojiModifier, ExtendedPictographic, GeneralCategory,
    JoiningType, NoncharacterCodePoint,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_normalization::UnicodeNormalization as _;

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Asks for the colourful form of the emoji before it.
const EMOJI_STYLE: char = '\u{fe0f}';
/// A letter of Braille without dots: a symbol to Unicode, a blank to readers.
const BRAILLE_BLANK: char = '\u{2800}';

/// Whether a reader sees anything of `text`.
pub(super) fn shows_anything(text: &str) -> bool {
    text.chars().any(|c| !is_invisible(c) && !c.is_whitespace())
}

/// Whether `text` has an invisible character other than those that scripts and emoji need: joiners where
/// RFC 5892, A.1 and A.2, allows them, joiners between two emoji, and the emoji style behind one (UTS 51).
pub(super) fn has_needless_invisible(text: &str) -> bool {
    if text.is_ascii() {
        return text.contains(|c: char| c.is_ascii_control());
    }
    // The rules are about neighbours, so equivalent texts have to be spelled alike.
    let characters: Vec<char> = text.nfc().collect();
    characters.iter().enumerate().any(|(at, &c)| {
        is_invisible(c) && !is_needed(&characters[..at], c, characters.get(at + 1..).unwrap_or_default())
    })
}

/// Whether `c` turns the direction of the text around it: the explicit marks of the bidirectional algorithm
/// (UAX 9, 2.1 to 2.5). The implicit ones, which names in Arabic and Hebrew may need, do not.
pub(super) fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether `c` will never be a character.
pub(super) fn is_noncharacter(c: char) -> bool {
    CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
}

/// Whether `c` shows nothing, or nothing that two systems would agree on. White space is another matter.
fn is_invisible(c: char) -> bool {
    c == BRAILLE_BLANK
        || is_noncharacter(c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || matches!(
            CodePointMapData::<GeneralCategory>::new().get(c),
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        )
}

fn is_needed(before: &[char], c: char, after: &[char]) -> bool {
    match c {
        ZERO_WIDTH_NON_JOINER => follows_virama(before) || is_between_joining(before, after),
        ZERO_WIDTH_JOINER => follows_virama(before) || is_between_emoji(before, after),
        EMOJI_STYLE => before.last().is_some_and(|c| is_emoji(*c)),
        _ => false,
    }
}

fn follows_virama(before: &[char]) -> bool {
    let class = CodePointMapData::<CanonicalCombiningClass>::new();
    before.last().is_some_and(|c| class.get(*c) == CanonicalCombiningClass::Virama)
}

/// Whether the letters on both sides would be joined to each other.
fn is_between_joining(before: &[char], after: &[char]) -> bool {
    let joining = |c: &char| CodePointMapData::<JoiningType>::new().get(*c);
    let is_letter = |kind: &JoiningType| *kind != JoiningType::Transparent;
    let last = before.iter().rev().map(joining).find(is_letter);
    let next = after.iter().map(joining).find(is_letter);
    matches!(last, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(next, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

fn is_between_emoji(before: &[char], after: &[char]) -> bool {
    let is_modifier = |c: char| c == EMOJI_STYLE || CodePointSetData::new::<EmojiModifier>().contains(c);
    let base = match before {
        [rest @ .., last] if is_modifier(*last) => rest.last(),
        all => all.last(),
    };
    base.is_some_and(|c| is_emoji(*c)) && after.first().is_some_and(|c| is_emoji(*c))
}

fn is_emoji(c: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind: zero width space, soft hyphen, word joiner, byte order mark, direction marks, fillers,
    /// variation selector, tag, noncharacters, private use, blank Braille, a NUL.
    const INVISIBLE: [char; 22] = [
        '\u{200b}',
        '\u{ad}',
        '\u{2060}',
        '\u{feff}',
        '\u{200e}',
        '\u{202e}',
        '\u{2066}',
        '\u{61c}',
        '\u{115f}',
        '\u{3164}',
        '\u{ffa0}',
        '\u{34f}',
        '\u{180e}',
        '\u{fe00}',
        '\u{e0061}',
        '\u{fdd0}',
        '\u{10ffff}',
        '\u{e000}',
        '\u{f0000}',
        '\u{2800}',
        '\u{fff9}',
        '\0',
    ];

    /// Words that need what is invisible: Persian, Hindi, Sinhala, families and flags.
    const NEEDED: [&str; 8] = [
        "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}",
        "\u{915}\u{94d}\u{200d}\u{937}",
        "\u{915}\u{94d}\u{200c}\u{937}",
        "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}",
        "\u{1f469}\u{200d}\u{1f4bb}",
        "\u{1f469}\u{1f3fd}\u{200d}\u{1f4bb}",
        "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
        "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
    ];

    #[test]
    fn nothing_is_seen_of_invisible_characters() {
        for c in INVISIBLE {
            assert!(!shows_anything(&format!("{c} {c}\u{200d}\u{3000}")), "{c:?}");
            assert!(shows_anything(&format!("{c}x")), "{c:?}");
        }
        for text in ["\u{301}", "\u{6dd}a", "\u{378}", "\u{fffd}", "\u{1f600}"] {
            assert!(shows_anything(text), "{text:?}");
        }
    }

    #[test]
    fn an_invisible_character_is_needless_unless_its_script_needs_it() {
        for c in INVISIBLE {
            assert!(has_needless_invisible(&format!("a{c}da")), "{c:?}");
        }
        for text in NEEDED {
            assert!(!has_needless_invisible(text), "{text:?}");
            assert!(shows_anything(text), "{text:?}");
        }
        for text in [
            "a\u{200d}b",
            "a\u{200c}b",
            "\u{200d}\u{1f4bb}",
            "\u{1f469}\u{200d}",
            "a\u{fe0f}",
            "\u{627}\u{200c}\u{627}",
        ] {
            assert!(has_needless_invisible(text), "{text:?}");
        }
    }

    #[test]
    fn equivalent_texts_are_judged_alike() {
        // A mark between the letter and its virama, in either order.
        for text in ["\u{915}\u{93c}\u{94d}\u{200d}\u{937}", "\u{915}\u{94d}\u{93c}\u{200d}\u{937}"] {
            assert!(!has_needless_invisible(text), "{text:?}");
        }
    }

    #[test]
    fn only_explicit_marks_turn_the_direction() {
        assert!(['\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'].into_iter().all(turns_direction));
        assert!(!['\u{200e}', '\u{200f}', '\u{61c}', 'a'].into_iter().any(turns_direction));
    }
}
