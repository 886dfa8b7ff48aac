//! Notices when a client takes nothing of what waits for it on its connection.
//!
//! A stream whose reply is not read is reset by its own task. Two things are beyond that: a reply that has
//! been handed to h2 as a whole, and a socket that takes no bytes, resets included. Both show in replies that
//! stay unwritten while none is written or given up at all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::admission::OpenConnection;

/// Watches one connection.
pub(super) struct Stall {
    after: Duration,
    /// Runs only while bytes are unwritten; how far the connection had come when it was set.
    timer: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Stall {
    /// A client is stalled when it took nothing for three times the `write_timeout`: after streams that nobody
    /// reads have been reset, which takes up to twice that time.
    pub(super) fn new(write_timeout: Duration) -> Self {
        Self { after: 3 * write_timeout, timer: None }
    }

    /// Ready when the client is stalled. To be polled after `connection` has written what it could.
    pub(super) fn poll(&mut self, connection: &OpenConnection, cx: &mut Context<'_>) -> Poll<()> {
        if connection.unwritten() == 0 {
            self.timer = None;
            return Poll::Pending;
        }
        loop {
            let progress = connection.progress();
            let (timer, then) = self.timer.get_or_insert_with(|| (Box::pin(sleep(self.after)), progress));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if *then == progress {
                return Poll::Ready(());
            }
            self.timer = None;
        }
    }
}
