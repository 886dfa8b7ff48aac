//! How many connections there may be, how long they last, and what their calls may hold.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::read::{Name, Reader};
use super::{DAY, MINUTE};

/// The connections to the port for gRPC.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionSettings {
    /// How many may be open, if there are descriptors for so many.
    pub max: NonZeroUsize,
    /// How many of them one source may have, in percent: 1 to 100.
    pub share: u32,
    /// How long one stays open on which nothing is called.
    pub idle: Duration,
    /// How old one may become, a tenth more or less.
    pub max_age: Duration,
    /// How long a client may take nothing of a reply that waits for it.
    pub write_timeout: Duration,
    /// How many bytes of headers and unread replies all calls together may hold.
    pub call_bytes: usize,
}

const LIMIT: Name = Name::with_flag("IDENTITY_CONNECTION_LIMIT", |flags| flags.connection_limit.as_deref());
const SHARE: Name = Name::with_flag("IDENTITY_CONNECTION_SHARE", |flags| flags.connection_share.as_deref());
const IDLE: Name = Name::with_flag("IDENTITY_CONNECTION_IDLE", |flags| flags.connection_idle.as_deref());
const MAX_AGE: Name =
    Name::with_flag("IDENTITY_CONNECTION_MAX_AGE", |flags| flags.connection_max_age.as_deref());
const WRITE_TIMEOUT: Name = Name::with_flag("IDENTITY_WRITE_TIMEOUT", |flags| flags.write_timeout.as_deref());
const CALL_MEMORY: Name = Name::with_flag("IDENTITY_CALL_MEMORY", |flags| flags.call_memory.as_deref());

/// Far below the usual limit of open files once raised, far above any mesh of services.
const DEFAULT_LIMIT: u32 = 10_000;
/// One source never takes the places of all others.
const DEFAULT_SHARE: u32 = 50;
/// Longer than a client that lives pauses, far shorter than draining may take.
const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// From a test to longer than any client waits.
const WRITE_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=MINUTE;
/// From a test to a day, which no load balancer waits for.
const AGE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// In MiB: a fourth, which one connection may have, has room for the largest reply.
const CALL_MEMORY_RANGE: RangeInclusive<u32> = 16..=16_384;
const DEFAULT_CALL_MEMORY: u32 = 64;
const MIB: usize = 1024 * 1024;

pub(super) fn read(reader: &mut Reader<'_>) -> ConnectionSettings {
    let max = reader.number(LIMIT, 1..=1_000_000).unwrap_or(DEFAULT_LIMIT);
    ConnectionSettings {
        max: NonZeroUsize::new(max as usize).unwrap_or(NonZeroUsize::MIN),
        share: reader.number(SHARE, 1..=100).unwrap_or(DEFAULT_SHARE),
        idle: reader.duration(IDLE, AGE_RANGE).unwrap_or(5 * MINUTE),
        max_age: reader.duration(MAX_AGE, AGE_RANGE).unwrap_or(30 * MINUTE),
        write_timeout: reader.duration(WRITE_TIMEOUT, WRITE_TIMEOUT_RANGE).unwrap_or(DEFAULT_WRITE_TIMEOUT),
        call_bytes: reader.number(CALL_MEMORY, CALL_MEMORY_RANGE).unwrap_or(DEFAULT_CALL_MEMORY) as usize
            * MIB,
    }
}
