//! Entity tags: which version of something a caller has seen.

/// An entity tag as callers hold it (RFC 9110, 8.8.3): they compare it and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// The tag of a version.
    pub fn of(version: i64) -> Self {
        Self(format!("\"{version:x}\""))
    }

    /// The tag that a caller gave, if he gave one. Any text may be one; what this service never made matches
    /// nothing.
    pub fn given(text: String) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self(text)) }
    }

    /// Whether this is the tag of `version`.
    pub fn is_of(&self, version: i64) -> bool {
        *self == Self::of(version)
    }

    /// The tag as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_version_only() {
        let tag = Etag::given(Etag::of(255).into_string()).unwrap();
        assert!(tag.is_of(255) && !tag.is_of(256));
        assert_eq!(Etag::given(String::new()), None);
        for text in ["ff", "\"FF\"", "W/\"ff\"", "\"0ff\"", "*"] {
            assert!(!Etag::given(text.to_owned()).unwrap().is_of(255), "{text}");
        }
    }
}
