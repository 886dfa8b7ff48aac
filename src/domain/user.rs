//! Users.

use super::clock::Timestamp;
use super::email::Email;
use super::id::UserId;
use super::role::Role;
use super::tenant::Tenant;
use super::text::{InvalidText, name, short_text};

/// A person who can log in, with the tenant that the person belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identifies the user for ever.
    pub id: UserId,
    /// The tenant that the user belongs to.
    pub tenant: Tenant,
    /// What is said of the user.
    pub profile: Profile,
    /// What the user may do.
    pub role: Role,
    /// Whether the user may do anything at all.
    pub state: UserState,
    /// Counts the changes, from 1; the source of the etag.
    pub version: i64,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
}

/// What is said of a user, by those who create the user and those who change them. Has no say in what the
/// user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Unique across the service, compared in normalised form.
    pub email: Email,
    /// Given name.
    pub first_name: PersonName,
    /// Family name.
    pub last_name: PersonName,
    /// The user's id in another system of the company, unique within the tenant.
    pub external_id: Option<ExternalId>,
}

impl Profile {
    /// Each field, by its name in the contract.
    pub fn fields(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("email", Some(self.email.as_given())),
            ("first_name", Some(self.first_name.as_str())),
            ("last_name", Some(self.last_name.as_str())),
            ("external_id", self.external_id.as_ref().map(ExternalId::as_str)),
        ]
    }
}

/// Whether a user may log in and call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserState {
    /// May log in.
    Active,
    /// May neither log in nor use a token that was handed out before.
    Disabled,
}

impl UserState {
    /// The state's name in storage: `active` or `disabled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }

    /// The state of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Disabled].into_iter().find(|state| state.as_str() == name)
    }
}

/// A given or a family name: 1 to 100 characters, in NFC, one of them visible, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonName(String);

impl PersonName {
    /// The most characters (Unicode scalar values) a name has.
    pub const MAX_CHARS: usize = 100;

    /// Trims and normalises `text`.
    ///
    /// # Errors
    /// [`InvalidText`] names the rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        name(text, Self::MAX_CHARS).map(Self)
    }

    /// Reads a name that was stored, maybe by a version that accepted names of which nothing can be seen.
    ///
    /// # Errors
    /// [`InvalidText`] names the rule that `text` has always broken.
    pub fn parse_stored(text: &str) -> Result<Self, InvalidText> {
        short_text(text, Self::MAX_CHARS).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user's id in another system of the company: 1 to 255 characters, in NFC, one of them visible, without
/// control characters, and without white space around them. Compared character by character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalId(String);

impl ExternalId {
    /// The most characters (Unicode scalar values) an external id has.
    pub const MAX_CHARS: usize = 255;

    /// Normalises `text`.
    ///
    /// # Errors
    /// [`InvalidText`] names the rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let id = name(text, Self::MAX_CHARS)?;
        if text.trim().len() < text.len() { Err(InvalidText::Surrounded) } else { Ok(Self(id)) }
    }

    /// The external id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_id_is_composed_but_never_trimmed() {
        let parse = |text: &str| ExternalId::parse(text).map(|id| id.as_str().to_owned());
        assert_eq!(parse("Zoe\u{308} 7"), Ok("Zo\u{eb} 7".to_owned()));
        assert_eq!(parse(&"\u{1f980}".repeat(255)), Ok("\u{1f980}".repeat(255)));
        assert_eq!(parse(&"x".repeat(256)), Err(InvalidText::TooLong(255)));
        for text in [" 7", "7\t", "\u{3000}7"] {
            assert_eq!(parse(text), Err(InvalidText::Surrounded), "{text:?}");
        }
        assert_eq!(parse("  "), Err(InvalidText::Empty));
        assert_eq!(parse("7\u{0}7"), Err(InvalidText::Control));
        assert_eq!(parse("\u{200b}"), Err(InvalidText::Invisible));
    }
}
