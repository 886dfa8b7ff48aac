//! Sessions: what a login opens.

use super::clock::Timestamp;
use super::id::{SessionId, TenantId, UserId};

/// An open session of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identifies the session for ever.
    pub id: SessionId,
    /// The tenant of its user.
    pub tenant_id: TenantId,
    /// Whose session it is.
    pub user_id: UserId,
    /// How often its refresh token was rotated, from 0.
    pub generation: u32,
    /// SHA-256 of the session's 256-bit secret, which only the refresh token carries.
    pub secret_digest: [u8; 32],
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub last_used_at: Timestamp,
    /// When it ends, however much it is used.
    pub expires_at: Timestamp,
}
