//! The embedded list of passwords that are tried first.
//!
//! `common_passwords.txt` is the list of Django 5.2 (`django/contrib/auth/common-passwords.txt.gz`
//! in the PyPI package `Django`, BSD-3-Clause; compiled by Royce Williams), lower-cased, without
//! entries of fewer than eight characters and those that are remains of a broken encoding (they
//! contain U+043F U+0457 U+0455), one a line, without doubles, sorted by the bytes of its UTF-8. To
//! remake it: `pip download --no-deps Django`, unpack the list, and apply these rules in order.

/// One entry a line; every line ends with a line feed.
const LIST: &str = include_str!("common_passwords.txt");

/// Whether `lower`, a password in lower case, is on the list. Takes some 13 comparisons and no
/// memory beyond the list, which stays in the program's read-only pages.
pub(super) fn contains(lower: &str) -> bool {
    let (mut rest, wanted) = (LIST.as_bytes(), lower.as_bytes());
    while !rest.is_empty() {
        let middle = rest.len() / 2;
        let start = rest[..middle].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let end = rest[start..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| start + at);
        match wanted.cmp(&rest[start..end]) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => rest = &rest[..start],
            std::cmp::Ordering::Greater => rest = rest.get(end + 1..).unwrap_or_default(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_lower_case_and_of_eight_characters_or_more() {
        let entries: Vec<&str> = LIST.lines().collect();
        assert!(entries.len() > 8_000);
        assert!(entries.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
        for entry in entries {
            assert_eq!(entry, entry.to_lowercase());
            assert!(entry.chars().count() >= 8, "{entry}");
        }
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for entry in LIST.lines() {
            assert!(contains(entry), "{entry}");
            assert!(!contains(&format!("{entry}\n")), "{entry}");
            assert!(!contains(&format!("{entry}\u{e9}")), "{entry}");
        }
        assert!(!contains(""));
    }
}
