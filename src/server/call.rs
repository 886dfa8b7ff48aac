//! One call, from its headers to the last byte of its reply: what it holds, and when it has to end.
//!
//! The bytes of a reply count from the moment it is encoded until they are in the buffer that is written to
//! the socket, which is bounded for each connection, or until its stream is gone. Neither hyper nor h2 tells
//! of that, but both pass [`ReplyBytes`] on as they are: h2 advances them as it writes them, and drops them
//! when the stream is reset. So what h2 buffers counts as well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::admission::OpenConnection;
use super::budgets::{Exhausted, StreamKind, StreamSlot};

/// What an unread reply costs beside its bytes: the stream as h2 and hyper keep it, its task, and the
/// headers of the reply.
pub(super) const REPLY_OVERHEAD_BYTES: usize = 4 * 1024;

/// A call in flight. Ends when nothing of it is left: neither its handler, nor its stream, nor its reply.
#[derive(Debug)]
pub(super) struct Call {
    connection: Arc<OpenConnection>,
    /// Bytes of its headers, and of its refusal while that is held back.
    header_bytes: AtomicUsize,
    /// Bytes of the reply that are not written yet.
    unwritten: AtomicUsize,
    /// Bytes of the reply that have been written; wraps around.
    written: AtomicUsize,
    has_replied: AtomicBool,
    is_open_ended: AtomicBool,
    deadline: OnceLock<Instant>,
}

/// A call in the extensions of its request, for the edge.
#[derive(Clone, Debug)]
pub(super) struct CallHandle(pub(super) Arc<Call>);

impl Call {
    /// A call that begins on `connection`.
    pub(super) fn begin(connection: Arc<OpenConnection>) -> Arc<Self> {
        connection.call_began();
        Arc::new(Self {
            connection,
            header_bytes: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            has_replied: AtomicBool::new(false),
            is_open_ended: AtomicBool::new(false),
            deadline: OnceLock::new(),
        })
    }

    pub(super) fn connection(&self) -> &OpenConnection {
        &self.connection
    }

    /// Charges the headers of the request, once, until they are released or the call ends.
    pub(super) fn charge_headers(&self, bytes: usize) -> Result<(), Exhausted> {
        self.connection.bytes().take(bytes)?;
        self.header_bytes.store(bytes, Relaxed);
        Ok(())
    }

    /// Charges `bytes` of the reply, until they are written or dropped.
    pub(super) fn charge_reply(self: &Arc<Self>, bytes: Bytes) -> Result<ReplyBytes, Exhausted> {
        let amount = bytes.len() + REPLY_OVERHEAD_BYTES;
        self.connection.bytes().take(amount)?;
        self.unwritten.fetch_add(bytes.len(), Relaxed);
        self.connection.reply_waits(bytes.len());
        let charge = Charge { call: Arc::clone(self), bytes: bytes.len(), overhead: REPLY_OVERHEAD_BYTES };
        Ok(ReplyBytes { bytes, charge: Some(charge) })
    }

    /// How long the refusal of the call is to be held back, if it is and there is room for that.
    pub(super) fn hold_refusal(&self) -> Option<Duration> {
        let bytes = self.connection.bytes();
        let delay = Some(bytes.refusal_delay()).filter(|delay| !delay.is_zero())?;
        bytes.take(REPLY_OVERHEAD_BYTES).ok()?;
        bytes.budgets().count_held_back();
        self.header_bytes.fetch_add(REPLY_OVERHEAD_BYTES, Relaxed);
        let left = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Some(left.map_or(delay, |left| left.min(delay)))
    }

    /// Gives the headers back, which nobody holds any more.
    pub(super) fn release_headers(&self) {
        self.connection.bytes().give_back(self.header_bytes.swap(0, Relaxed));
    }

    /// Takes room for a stream that stays open.
    pub(super) fn open_stream(&self, kind: StreamKind) -> Result<StreamSlot, Exhausted> {
        self.connection.bytes().open_stream(kind)
    }

    /// Says when the call has to have ended. Only the first time counts.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Says that the call ends only when its client wants.
    pub(super) fn set_open_ended(&self) {
        if !self.is_open_ended.swap(true, Relaxed) {
            self.connection.watch_began();
        }
    }

    /// Says that the whole reply has been handed to hyper.
    pub(super) fn set_replied(&self) {
        self.has_replied.store(true, Relaxed);
    }

    pub(super) fn has_replied(&self) -> bool {
        self.has_replied.load(Relaxed)
    }

    /// How many bytes of the reply the client has not taken yet, as far as is known.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Relaxed)
    }

    /// A number that changes whenever bytes of the reply are written.
    pub(super) fn progress(&self) -> usize {
        self.written.load(Relaxed)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.bytes().give_back(*self.header_bytes.get_mut());
        self.connection.call_ended(*self.is_open_ended.get_mut());
    }
}

/// Room that bytes of a reply hold, given back as they are written or dropped.
#[derive(Debug)]
struct Charge {
    call: Arc<Call>,
    bytes: usize,
    overhead: usize,
}

impl Charge {
    /// The room for the first `bytes`, without the overhead, which the rest keeps.
    fn split_to(&mut self, bytes: usize) -> Self {
        self.bytes -= bytes;
        Self { call: Arc::clone(&self.call), bytes, overhead: 0 }
    }

    fn written(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.call.unwritten.fetch_sub(bytes, Relaxed);
        self.call.written.fetch_add(bytes, Relaxed);
        self.call.connection.reply_written(bytes);
        self.call.connection.bytes().give_back(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.call.unwritten.fetch_sub(self.bytes, Relaxed);
        self.call.connection.reply_dropped(self.bytes);
        self.call.connection.bytes().give_back(self.bytes + self.overhead);
    }
}

/// Bytes of a reply, which count as unread until they are written or dropped.
#[derive(Debug)]
pub struct ReplyBytes {
    bytes: Bytes,
    charge: Option<Charge>,
}

impl ReplyBytes {
    /// Bytes that count nowhere.
    pub(super) fn uncounted(bytes: Bytes) -> Self {
        Self { bytes, charge: None }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the first `length` bytes off, and the room for them.
    pub(super) fn split_to(&mut self, length: usize) -> Self {
        Self {
            bytes: self.bytes.split_to(length),
            charge: self.charge.as_mut().map(|charge| charge.split_to(length)),
        }
    }
}

impl Buf for ReplyBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(charge) = &mut self.charge {
            charge.written(count);
        }
    }
}
