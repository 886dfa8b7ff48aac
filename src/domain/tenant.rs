//! Tenants.

use super::clock::Timestamp;
use super::id::TenantId;
use super::text::{InvalidText, name, short_text};

/// A customer of the company. Users belong to exactly one, and see nothing of any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Identifies the tenant for ever.
    pub id: TenantId,
    /// What people call it.
    pub name: TenantName,
    /// Counts the changes, from 1; the source of the etag.
    pub version: i64,
    /// When it registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A tenant's name: 1 to 200 characters, in NFC, one of them visible, without control characters. Not unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantName(String);

impl TenantName {
    /// The most characters (Unicode scalar values) a name has.
    pub const MAX_CHARS: usize = 200;

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
