//! Threads on which SQLite's statements run, so that none runs, and blocks, on the runtime's.
//!
//! tokio's own blocking threads are woken one for each statement, which costs more than most
//! statements do. A few threads that share a queue work off what has gathered each time they wake.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use diesel_async::sync_connection_wrapper::SpawnBlocking;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

/// On Linux each thread has a nice value of its own; this one gives it a tenth of a core that others want too.
#[cfg(target_os = "linux")]
const LOW_NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads with one queue. Cheap to clone; the threads end when the last clone is dropped and
/// the queue is empty.
#[derive(Clone)]
pub(super) struct BlockingThreads(Arc<Handle>);

/// Ends the threads when dropped.
struct Handle(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ended: bool,
}

impl BlockingThreads {
    /// Starts `count` threads of that name.
    pub(super) fn start(name: &str, count: usize, urgency: Urgency) -> std::io::Result<Self> {
        let threads = Self(Arc::new(Handle(Arc::new(Queue::default()))));
        for _ in 0..count {
            let queue = Arc::clone(&threads.0.0);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                urgency.apply();
                queue.work();
            })?;
        }
        Ok(threads)
    }
}

/// How soon the system runs a thread that is ready, beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Like any other.
    Usual,
    /// After others, as far as the system knows of that.
    Low,
}

impl Urgency {
    /// Gives the calling thread this urgency.
    fn apply(self) {
        #[cfg(target_os = "linux")]
        if self == Self::Low {
            let nice = rustix::process::nice(LOW_NICE);
            if let Err(error) = nice {
                tracing::debug!(%error, "a thread keeps its usual priority");
            }
        }
    }
}

impl Queue {
    // A job that panics does so outside of the lock, so the state behind a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // Its caller learns of a panic by the reply that does not come; the thread goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    /// The oldest job, waited for; `None` when there will be no more.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl SpawnBlocking for BlockingThreads {
    /// Queues `task`. Dropping the future waits until it has run: the connection must not be handed
    /// on while a statement runs on it.
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queue = &self.0.0;
        queue.lock().jobs.push_back(Box::new(move || {
            // Nobody waits any more: the caller was dropped.
            let _ = reply.send(task());
        }));
        queue.changed.notify_one();
        Running { answer: Some(answer) }.boxed()
    }

    /// One thread. Only for connections that the wrapper opens by itself, which ours are not.
    fn get_runtime() -> Self {
        Self::start("sqlite", 1, Urgency::Usual).expect("the system starts threads")
    }
}

/// A task that was queued, and has to be waited for.
struct Running<R> {
    /// Empty once the answer has come.
    answer: Option<oneshot::Receiver<R>>,
}

impl<R> Future for Running<R> {
    type Output = Result<R, Box<dyn Error + Send + Sync + 'static>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(Err("polled after its end".into())) };
        let answer = std::task::ready!(answer.poll_unpin(context));
        self.answer = None;
        Poll::Ready(answer.map_err(|_| "a statement panicked".into()))
    }
}

impl<R> Drop for Running<R> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            // Lets the runtime move this thread's other work elsewhere meanwhile.
            let _ = tokio::task::block_in_place(|| answer.blocking_recv());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_panics_fails_alone() {
        let mut threads = BlockingThreads::start("test", 1, Urgency::Usual).unwrap();
        let failed = threads.spawn_blocking(|| panic!("on purpose")).await;
        assert!(failed.is_err());
        assert_eq!(threads.spawn_blocking(|| 1).await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropping_a_future_waits_for_its_task() {
        let mut threads = BlockingThreads::start("test", 1, Urgency::Usual).unwrap();
        let (begin, begun) = std::sync::mpsc::channel();
        let ended = Arc::new(Mutex::new(false));
        let marker = Arc::clone(&ended);
        let running = threads.spawn_blocking(move || {
            begun.recv().unwrap();
            *marker.lock().unwrap() = true;
        });
        begin.send(()).unwrap();
        drop(running);
        assert!(*ended.lock().unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_queued_runs_although_the_threads_were_let_go() {
        let mut threads = BlockingThreads::start("test", 1, Urgency::Usual).unwrap();
        let answers: Vec<_> = (0..100).map(|n| threads.spawn_blocking(move || n)).collect();
        drop(threads);
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap(), n);
        }
    }
}
