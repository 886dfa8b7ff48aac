//! Recognises what is no file of JSON lines by its first bytes.

use super::{FORMAT, VERSION};

/// Compressed files, and what reads them.
const COMPRESSED: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip", "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
];

/// How text begins in encodings other than UTF-8: with a byte order mark, or with `{`. UTF-32 begins as UTF-16 does.
const ENCODED: [(&[u8], &str); 8] = [
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"{\0\0\0", "UTF-32LE"),
    (b"\0\0\0{", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"{\0", "UTF-16LE"),
    (b"\0{", "UTF-16BE"),
];

/// Why a file is no export, whose first line that is not blank is `line`.
pub(super) fn problem(position: u64, line: &[u8]) -> String {
    if let Some((_, name, command)) = COMPRESSED.iter().find(|(start, ..)| line.starts_with(start)) {
        return format!("it is compressed by {name}: `{command} FILE | identity import jsonl -` reads it");
    }
    if let Some((_, name)) = ENCODED.iter().find(|(start, _)| line.starts_with(start)) {
        return format!(
            "it is in {name} and must be in UTF-8: `iconv -f {name} -t UTF-8 FILE | identity import jsonl -` reads it"
        );
    }
    format!(r#"line {position} must be {{"type":"{FORMAT}","version":{VERSION}}}"#)
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn what_a_file_is_instead_is_named() {
        for (line, words) in [
            (&b"\x1f\x8b\x08\0"[..], "by gzip: `gzip -dc FILE |"),
            (b"PK\x03\x04", "by zip"),
            (b"\xff\xfe{\0", "in UTF-16 and must be in UTF-8"),
            (b"\xfe\xff\0{", "in UTF-16 and"),
            (b"{\0\"\0", "in UTF-16LE and"),
            (b"\0{\0\"", "in UTF-16BE and"),
            (b"\xff\xfe\0\0", "in UTF-32 and"),
            (b"{\0\0\0", "in UTF-32LE and"),
            (b"{}", "line 3 must be {\"type\":\"identity-export\",\"version\":1}"),
            (b"", "line 3 must be"),
        ] {
            assert!(problem(3, line).contains(words), "{}", problem(3, line));
        }
    }
}
