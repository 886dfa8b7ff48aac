//! Whose share of a budget a call takes.

use super::id::{TenantId, UserId};
use super::source::Source;

/// One of those among whom budgets are shared out.
///
/// The end user's address where a trusted service states it, else the user, else the peer's address. Nothing
/// in it is a caller's free choice, such as an e-mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// A host: the end user's, or that of a caller without an access token.
    Address(Source),
    /// A user whose access token was verified.
    User(TenantId, UserId),
    /// All users of a tenant together.
    Tenant(TenantId),
    /// The service itself, and its operators.
    System,
}

impl Party {
    /// The larger party that this one belongs to: a user's tenant, else the party itself.
    #[must_use]
    pub const fn group(self) -> Self {
        match self {
            Self::User(tenant_id, _) => Self::Tenant(tenant_id),
            Self::Address(_) | Self::Tenant(_) | Self::System => self,
        }
    }
}

impl Default for Party {
    fn default() -> Self {
        Self::Address(Source::Unknown)
    }
}
