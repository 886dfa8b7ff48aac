//! How long the audit log is kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{DAY, Name, Reader};

const AUDIT_RETENTION: Name =
    Name::with_flag("IDENTITY_AUDIT_RETENTION", |flags| flags.audit_retention.as_deref());

/// A month is the least in which an attack may go unnoticed; a hundred years are for ever.
pub(super) const RETENTION_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(30 * DAY.as_secs())..=Duration::from_secs(36_500 * DAY.as_secs());

/// How long audit events are kept; for ever when none is given.
pub(super) fn retention(reader: &mut Reader<'_>) -> Option<Duration> {
    reader.duration(AUDIT_RETENTION, RETENTION_RANGE)
}
