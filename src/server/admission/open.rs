//! One open connection: what is called on it, since when nothing is, and whether it has to go.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{AdmissionSettings, Closed};
use crate::server::budgets::{ConnectionBytes, CutShort};

/// A connection that is open, as everybody sees it who has to do with it.
#[derive(Debug)]
pub(in crate::server) struct OpenConnection {
    bytes: ConnectionBytes,
    opened: Instant,
    calls: AtomicUsize,
    /// Those of the calls that end only when their client wants.
    watches: AtomicUsize,
    /// When the last call ended, in milliseconds after `opened`.
    last_call_ended: AtomicU64,
    /// Bytes of replies that are not written yet.
    unwritten: AtomicUsize,
    /// Changes whenever bytes of a reply are written or given up.
    progress: AtomicUsize,
    resets: Mutex<Resets>,
    told: Mutex<Option<Told>>,
    has_resets_to_spare: AtomicBool,
    /// Told together with `told`.
    notice: Notify,
}

/// A connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Told {
    pub(in crate::server) reason: Closed,
    /// Without a moment to say goodbye.
    pub(in crate::server) at_once: bool,
}

/// How far a connection is from being in use, the most dispensable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Nothing is called.
    Idle,
    /// Nothing but Watches.
    Watched,
    /// Calls.
    Called,
}

impl OpenConnection {
    pub(super) fn new(bytes: ConnectionBytes, settings: &AdmissionSettings) -> Self {
        let now = Instant::now();
        Self {
            bytes,
            opened: now,
            calls: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            last_call_ended: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            progress: AtomicUsize::new(0),
            resets: Mutex::new(Resets::new(settings, now)),
            told: Mutex::new(None),
            has_resets_to_spare: AtomicBool::new(true),
            notice: Notify::new(),
        }
    }

    pub(in crate::server) fn bytes(&self) -> &ConnectionBytes {
        &self.bytes
    }

    /// Notes that a call begins.
    pub(in crate::server) fn call_began(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// Notes that a call is one that ends only when its client wants.
    pub(in crate::server) fn watch_began(&self) {
        self.watches.fetch_add(1, Relaxed);
    }

    /// Notes that a call has ended.
    pub(in crate::server) fn call_ended(&self, is_watch: bool) {
        let after = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_call_ended.store(after, Relaxed);
        self.watches.fetch_sub(usize::from(is_watch), Relaxed);
        self.calls.fetch_sub(1, Relaxed);
    }

    /// Since when nothing is called on it; `None` while something is.
    pub(in crate::server) fn idle_since(&self) -> Option<Instant> {
        (self.usage() == Use::Idle).then(|| self.last_call())
    }

    /// When the last call ended, or the connection was opened.
    pub(super) fn last_call(&self) -> Instant {
        self.opened + Duration::from_millis(self.last_call_ended.load(Relaxed))
    }

    pub(super) fn usage(&self) -> Use {
        let calls = self.calls.load(Relaxed);
        match calls.saturating_sub(self.watches.load(Relaxed)) {
            0 if calls == 0 => Use::Idle,
            0 => Use::Watched,
            _ => Use::Called,
        }
    }

    /// Notes that bytes of a reply wait to be written.
    pub(in crate::server) fn reply_waits(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Relaxed);
    }

    /// Notes that bytes of a reply were written.
    pub(in crate::server) fn reply_written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Relaxed);
        self.progress.fetch_add(1, Relaxed);
    }

    /// Notes that bytes of a reply will never be written.
    pub(in crate::server) fn reply_dropped(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Relaxed);
        self.progress.fetch_add(1, Relaxed);
    }

    /// How many bytes of replies the client has not taken yet, as far as is known.
    pub(in crate::server) fn unwritten(&self) -> usize {
        self.unwritten.load(Relaxed)
    }

    /// A number that changes whenever bytes of a reply are written or given up.
    pub(in crate::server) fn progress(&self) -> usize {
        self.progress.load(Relaxed)
    }

    /// Notes that a stream ended before its reply was complete. Beyond its limit of resets by the client,
    /// the connection has to go.
    pub(in crate::server) fn stream_cut_short(&self, cause: CutShort) {
        self.bytes.budgets().count_cut_short(cause);
        if cause == CutShort::ByClient
            && !self.resets.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
        {
            self.has_resets_to_spare.store(false, Relaxed);
            self.notice.notify_one();
        }
    }

    /// Whether its client has reset no more streams than it may.
    pub(in crate::server) fn has_resets_to_spare(&self) -> bool {
        self.has_resets_to_spare.load(Relaxed)
    }

    /// Tells it to go; false when it has been told before.
    pub(super) fn tell_to_go(&self, reason: Closed) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some() {
            return false;
        }
        *told = Some(Told { reason, at_once: false });
        self.notice.notify_one();
        true
    }

    /// Tells it, after it was told to go, not to linger.
    pub(super) fn tell_to_go_now(&self) {
        if let Some(told) = &mut *self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            told.at_once = true;
            self.notice.notify_one();
        }
    }

    /// What it was told, if it was.
    pub(in crate::server) fn told(&self) -> Option<Told> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something new in [`OpenConnection::told`] or
    /// [`OpenConnection::has_resets_to_spare`]. One may wait.
    pub(in crate::server) async fn noticed(&self) {
        self.notice.notified().await;
    }
}

/// How many streams a client may still reset: a bucket that fills with time.
#[derive(Debug)]
struct Resets {
    left: f64,
    filled: Instant,
    burst: f64,
    per_second: f64,
}

impl Resets {
    fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        let burst = f64::from(settings.reset_burst);
        Self { left: burst, filled: now, burst, per_second: f64::from(settings.resets_per_second) }
    }

    /// Takes one reset, if one is left.
    fn take(&mut self, now: Instant) -> bool {
        let since = now.duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * self.per_second).min(self.burst);
        self.filled = now;
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_reset_a_burst_of_streams_and_then_so_many_a_second() {
        let settings =
            AdmissionSettings { reset_burst: 10, resets_per_second: 2, ..AdmissionSettings::default() };
        let mut resets = Resets::new(&settings, Instant::now());
        let mut taken = || (0..20).take_while(|_| resets.take(Instant::now())).count();
        assert_eq!(taken(), 10);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(taken(), 6);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(taken(), 10);
    }
}
