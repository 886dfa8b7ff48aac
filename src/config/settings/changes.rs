//! How much a user may change.

use super::{Name, Reader};

/// How much a user may change. All users of a tenant together, and each service, have ten times that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeSettings {
    /// How many changes at once after a pause: 1 to 1,000,000.
    pub burst: u32,
    /// How many a second come back: 1 to 100,000.
    pub per_second: u32,
}

const CHANGE_BURST: Name = Name::with_flag("IDENTITY_CHANGE_BURST", |flags| flags.change_burst.as_deref());
const CHANGE_RATE: Name = Name::with_flag("IDENTITY_CHANGE_RATE", |flags| flags.change_rate.as_deref());

/// A large team, set up by hand or by a script.
const DEFAULT_BURST: u32 = 1_000;
/// More than a person does; an audit log grows by some kilobytes a second at most.
const DEFAULT_PER_SECOND: u32 = 20;

pub(super) fn read(reader: &mut Reader<'_>) -> ChangeSettings {
    ChangeSettings {
        burst: reader.number(CHANGE_BURST, 1..=1_000_000).unwrap_or(DEFAULT_BURST),
        per_second: reader.number(CHANGE_RATE, 1..=100_000).unwrap_or(DEFAULT_PER_SECOND),
    }
}
