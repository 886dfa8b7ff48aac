//! How the server stops: finish what is in flight, within a bound.
//!
//! hyper's graceful shutdown waits without bound for a peer that does not answer. `InFlight`
//! knows when the last call has ended, after which a connection has a moment to say goodbye.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::call::Call;

/// How long a connection without a call may take to close by itself: the round trip of a GOAWAY,
/// over a slow link. Calls that were on their way when the GOAWAY left arrive within it.
const GOODBYE: Duration = Duration::from_millis(500);

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// How many calls had not ended when the time was up, and were cut off.
    pub cut_off: usize,
}

impl Drained {
    /// Whether every call that was in flight ended by itself.
    pub const fn is_clean(self) -> bool {
        self.cut_off == 0
    }
}

/// Marks, in a response's extensions, a stream that ends only when its client wants: nobody waits
/// for it when the server stops, and cutting it off loses nothing.
#[derive(Clone, Copy, Debug)]
pub struct OpenEnded;

/// The calls and connections that exist right now, and the signals that end them.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    calls: TaskTracker,
    pub(super) connections: TaskTracker,
    /// Told to finish what is in flight and take nothing new.
    pub(super) finish: CancellationToken,
    /// Told to close at once.
    pub(super) close: CancellationToken,
}

impl InFlight {
    /// Nothing in flight; `finish` is what connections take as the signal to finish.
    pub(super) fn new(finish: CancellationToken) -> Self {
        Self {
            calls: TaskTracker::new(),
            connections: TaskTracker::new(),
            finish,
            close: CancellationToken::new(),
        }
    }

    /// Counts one call for as long as the token lives.
    pub(super) fn call(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Waits until all calls have ended, `timeout` at most, then closes the connections that
    /// remain. `finish` has been signalled before.
    pub(super) async fn drain(self, timeout: Duration) -> Drained {
        let deadline = Instant::now() + timeout;
        self.calls.close();
        self.connections.close();
        tokio::select! {
            () = self.connections_then_calls() => {}
            () = self.calls_then_goodbye() => {}
            () = sleep_until(deadline) => {}
        }
        let drained = Drained { cut_off: self.calls.len() };
        self.close.cancel();
        self.connections.wait().await;
        drained
    }

    /// A connection that is done may be so a moment before the last call on it is dropped.
    async fn connections_then_calls(&self) {
        self.connections.wait().await;
        self.calls.wait().await;
    }

    async fn calls_then_goodbye(&self) {
        self.calls.wait().await;
        sleep(GOODBYE).await;
    }
}

pin_project! {
    /// A response body that counts as a call in flight until it is dropped, and tells the call when all of
    /// it has been given.
    pub(super) struct Counted<B> {
        #[pin]
        inner: B,
        call: Arc<Call>,
        token: Option<TaskTrackerToken>,
    }
}

impl<B: Body> Counted<B> {
    pub(super) fn new(inner: B, call: Arc<Call>, token: Option<TaskTrackerToken>) -> Self {
        if inner.is_end_stream() {
            call.set_replied();
        }
        Self { inner, call, token }
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let is_last = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || this.inner.is_end_stream(),
            Some(Err(_)) => true,
        };
        if is_last {
            this.call.set_replied();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
