//! Points in time in a column of bytes: 8 bytes each, microseconds since the Unix epoch, big-endian.

use crate::domain::Timestamp;

/// The times that `bytes` hold; `None` when one of them is cut off.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Timestamp>> {
    let (times, rest) = bytes.as_chunks::<8>();
    let read = |time: &[u8; 8]| Timestamp::from_unix_micros(i64::from_be_bytes(*time));
    rest.is_empty().then(|| times.iter().map(read).collect())
}

/// The bytes for `times`.
pub(super) fn write(times: &[Timestamp]) -> Vec<u8> {
    times.iter().flat_map(|time| time.as_unix_micros().to_be_bytes()).collect()
}
