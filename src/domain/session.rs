//! Sessions: what a login opens.

use std::net::IpAddr;

use super::clock::Timestamp;
use super::id::{SessionId, TenantId, UserId};
use super::text::{InvalidText, short_text};

/// A session of one user.
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
    /// Where the user logged in, as a trusted service stated it.
    pub opened_by: EndUser,
    /// When it was ended before its time, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When its refresh token was rotated lately, the last first: at most [`Session::MAX_ROTATIONS`].
    pub rotations: Vec<Timestamp>,
}

impl Session {
    /// How many rotations are remembered: more than anybody does within a grace of seconds.
    pub const MAX_ROTATIONS: usize = 16;

    /// When the refresh token of `generation` was replaced, if that is remembered.
    pub fn rotated_at(&self, generation: u32) -> Option<Timestamp> {
        let later = self.generation.checked_sub(generation)?.checked_sub(1)?;
        self.rotations.get(usize::try_from(later).ok()?).copied()
    }
}

/// On whose behalf a service calls, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndUser {
    /// The device, in the service's words.
    pub device: Option<DeviceLabel>,
    /// The address.
    pub address: Option<IpAddr>,
}

/// What people recognise a device by, such as "Firefox on Linux": 1 to 200 characters without control
/// characters, in NFC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLabel(String);

impl DeviceLabel {
    /// The most characters (Unicode scalar values) of a label.
    pub const MAX_CHARS: usize = 200;

    /// Reads a label; white space around it is removed.
    ///
    /// # Errors
    /// The first rule broken, as [`InvalidText`].
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        short_text(text, Self::MAX_CHARS).map(Self)
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
