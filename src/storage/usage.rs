//! How much of the pools is in use, for those who watch.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A snapshot of one pool of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Which pool of the database's: `main` on PostgreSQL, `write` and `read` on SQLite.
    pub name: &'static str,
    /// Connections that are open.
    pub open: u32,
    /// Those of them that somebody uses.
    pub in_use: u32,
    /// The most that may be open.
    pub limit: u32,
    /// Who waits for one while all are in use.
    pub waiting: u32,
}

/// How many wait right now.
#[derive(Debug, Default)]
pub(super) struct Queue(AtomicU32);

/// One who waits, until it is dropped.
pub(super) struct Waiting<'q>(&'q Queue);

impl Queue {
    pub(super) fn enter(&self) -> Waiting<'_> {
        self.0.fetch_add(1, Relaxed);
        Waiting(self)
    }

    pub(super) fn length(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
