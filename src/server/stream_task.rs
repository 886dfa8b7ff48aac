//! The task of each stream: resets a stream whose reply nobody reads.
//!
//! hyper polls nothing of a reply while the peer's window is closed, so a timer within the reply would never
//! fire. It hands the future of each stream to its executor right after it has called the service for it, in
//! the same poll of the connection. So [`StreamExecutor`] knows which call a future belongs to, and runs it
//! beside a timer. Dropping the future resets the stream (RST_STREAM, CANCEL), and h2 drops what it had
//! buffered of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::budgets::CutShort;
use super::call::Call;

/// Runs the streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor(Arc<Streams>);

#[derive(Debug)]
struct Streams {
    /// The call whose stream comes next.
    next: Mutex<Option<Arc<Call>>>,
    write_timeout: Duration,
}

impl StreamExecutor {
    /// Resets a stream when its client takes nothing of the reply for `write_timeout`, at the latest when that
    /// has passed twice: only at the end of a period does it show whether there was progress.
    pub(super) fn new(write_timeout: Duration) -> Self {
        Self(Arc::new(Streams { next: Mutex::new(None), write_timeout }))
    }

    /// Says which call the next stream is for.
    pub(super) fn expect(&self, call: Arc<Call>) {
        *self.0.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    fn next(&self) -> Option<Arc<Call>> {
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    /// The one other thing that hyper executes is a connection upgraded by CONNECT, which the edge never
    /// grants.
    fn execute(&self, stream: F) {
        match self.next() {
            Some(call) => {
                let write_timeout = self.0.write_timeout;
                tokio::spawn(StreamTask { stream: Some(stream), call, write_timeout, timer: None });
            }
            None => {
                tokio::spawn(stream);
            }
        }
    }
}

/// When to look at an unread reply again, and how far it had come.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    progress: usize,
}

pin_project! {
    /// One stream, which ends with its future, or earlier when its reply is not read in time.
    struct StreamTask<F> {
        #[pin]
        stream: Option<F>,
        call: Arc<Call>,
        write_timeout: Duration,
        // Only a call whose reply waits for its client has one.
        timer: Option<Timer>,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if stream.poll(cx).is_ready() {
            if !this.call.has_replied() {
                this.call.connection().stream_cut_short(CutShort::ByClient);
            }
            return Poll::Ready(());
        }
        // Without bytes that wait, the edge keeps the deadline, and answers.
        if this.call.unwritten() == 0 {
            *this.timer = None;
            return Poll::Pending;
        }
        let cut_short = loop {
            let progress = this.call.progress();
            let timer = this.timer.get_or_insert_with(|| Timer {
                sleep: Box::pin(sleep_until(due(this.call, *this.write_timeout))),
                progress,
            });
            if timer.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if this.call.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                break CutShort::Deadline;
            }
            if timer.progress == progress {
                break CutShort::WriteTimeout;
            }
            *this.timer = None;
        };
        this.call.connection().stream_cut_short(cut_short);
        this.stream.set(None);
        Poll::Ready(())
    }
}

fn due(call: &Call, write_timeout: Duration) -> Instant {
    let timeout = Instant::now() + write_timeout;
    call.deadline().map_or(timeout, |deadline| deadline.min(timeout))
}
