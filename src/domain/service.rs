//! Other services of the company: how they are called, and what one of their tokens may do.

use super::clock::Timestamp;
use super::id::ServiceTokenId;
use super::spiffe::SpiffeId;

/// What a service is called: the name on its token, 1 to 100 characters of `a-z A-Z 0-9 . _ - / :`, the
/// first a letter or a digit; or the SPIFFE ID in its certificate, which has no others but may be longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName(String);

/// The text is no name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {} letters, digits and . _ - / : and begin with a letter or a digit",
    ServiceName::MAX_CHARS
)]
pub struct InvalidServiceName;

impl ServiceName {
    /// The most characters of a name on a token.
    pub const MAX_CHARS: usize = 100;

    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidServiceName`] for anything that could be mistaken for something else in a log.
    pub fn parse(text: &str) -> Result<Self, InvalidServiceName> {
        let permitted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
        let is_name = text.len() <= Self::MAX_CHARS
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(permitted);
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidServiceName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&SpiffeId> for ServiceName {
    fn from(id: &SpiffeId) -> Self {
        Self(id.as_str().to_owned())
    }
}

/// Which RPCs a service may call, of those that services may call at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedRpcs {
    /// All of them.
    All,
    /// These, by full name: `package.Service/Method`.
    Only(Vec<String>),
}

impl AllowedRpcs {
    /// Whether `rpc`, a full name, is one of them.
    pub fn contain(&self, rpc: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == rpc),
        }
    }
}

/// A credential of a service, as it is kept: the secret itself is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceToken {
    /// Identifies the token for ever.
    pub id: ServiceTokenId,
    /// Whose it is. Several tokens may have the same name, so that one can replace the other.
    pub name: ServiceName,
    /// SHA-256 of the token's 256-bit secret.
    pub secret_digest: [u8; 32],
    /// What it may call.
    pub allowed: AllowedRpcs,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself, if it does.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

impl ServiceToken {
    /// Whether it counts at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_few_characters() {
        for name in ["billing", "a", "team-a/mail_2.eu", &"x".repeat(100)] {
            assert_eq!(ServiceName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", " billing", "-billing", "bil ling", "b\u{fc}ro", "a\n", &"x".repeat(101)] {
            assert_eq!(ServiceName::parse(name), Err(InvalidServiceName), "{name:?}");
        }
    }

    #[test]
    fn a_token_may_call_what_it_names() {
        assert!(AllowedRpcs::All.contain("a.B/C"));
        let only = AllowedRpcs::Only(vec!["a.B/C".to_owned()]);
        assert!(only.contain("a.B/C"));
        assert!(!only.contain("a.B/D") && !only.contain("C") && !only.contain(""));
    }
}
