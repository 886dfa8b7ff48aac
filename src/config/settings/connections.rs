//! How many connections there may be, how long they last, and what their calls may hold.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::declared::{
    IDENTITY_CALL_MEMORY, IDENTITY_CONNECTION_IDLE, IDENTITY_CONNECTION_LIMIT, IDENTITY_CONNECTION_MAX_AGE,
    IDENTITY_CONNECTION_SHARE, IDENTITY_WRITE_TIMEOUT,
};
use crate::config::read::Reader;

const MIB: usize = 1024 * 1024;

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

pub(super) fn read(reader: &mut Reader<'_>) -> ConnectionSettings {
    ConnectionSettings {
        max: reader.get(&IDENTITY_CONNECTION_LIMIT),
        share: reader.get(&IDENTITY_CONNECTION_SHARE),
        idle: reader.get(&IDENTITY_CONNECTION_IDLE),
        max_age: reader.get(&IDENTITY_CONNECTION_MAX_AGE),
        write_timeout: reader.get(&IDENTITY_WRITE_TIMEOUT),
        call_bytes: reader.get(&IDENTITY_CALL_MEMORY) as usize * MIB,
    }
}
