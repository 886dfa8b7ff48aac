//! One pooled connection: what is known of it, and how long a statement on it may take.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use diesel::QueryResult;
use diesel_async::SimpleAsyncConnection;
use diesel_async::pooled_connection::PoolableConnection;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{StorageError, refuses_writes};
use super::postgres::{Interrupt, ServerError, ServerErrors, SqlState};
use super::reachability::{Moment, Reachability};

/// What a pool can hold.
pub(super) trait Pooled: PoolableConnection + SimpleAsyncConnection + 'static {}

impl<C: PoolableConnection + SimpleAsyncConnection + 'static> Pooled for C {}

/// A connection that was just opened, and what belongs to it.
pub(super) struct Opened<C> {
    pub(super) connection: C,
    /// The errors that the server sends on it, where they say more than diesel does.
    pub(super) errors: ServerErrors,
    /// Ends a statement that nobody waits for, where statements outlive those who wait.
    pub(super) interrupt: Option<Box<Interrupt>>,
}

/// How long a statement that nobody waits for may go on before the server is asked to end it. To ask takes a
/// connection, and most statements end by themselves before that is open.
const INTERRUPT_AFTER: Duration = Duration::from_millis(20);

/// How long it may take to ask.
const INTERRUPT_LIMIT: Duration = Duration::from_millis(500);

/// A connection with what the pool needs to know of it.
pub(super) struct Link<C> {
    inner: C,
    standing: Standing,
    _open: Arc<()>,
}

impl<C: Pooled> Link<C> {
    /// A connection that was just opened. Keeps `open` for as long as it is open itself.
    pub(super) fn new(opened: Opened<C>, answered_at: Moment, open: Arc<()>) -> Self {
        let Opened { connection, errors, interrupt } = opened;
        Self { inner: connection, standing: Standing::new(answered_at, errors, interrupt), _open: open }
    }

    /// The connection itself, and the limits that a statement on it is to be awaited under.
    pub(super) fn parts<'l>(
        &'l mut self,
        statement: Option<Duration>,
        failed: &'l mut bool,
        database: &'l Reachability,
    ) -> (&'l mut C, Limits<'l>) {
        (&mut self.inner, Limits { statement, standing: &mut self.standing, failed, database })
    }

    /// Has the pool close the connection when it is given back.
    pub(super) fn abandon(&mut self) {
        self.standing.abandoned = true;
    }

    /// As [`Link::abandon`], when the connection is older than `age`.
    pub(super) fn retire_after(&mut self, age: Duration) {
        self.standing.abandoned |= self.standing.opened_at.elapsed() >= age;
    }

    /// Notes whether a transaction may be open that the connection's own interface does not know of.
    pub(super) fn set_in_transaction(&mut self, is_open: bool) {
        self.standing.in_transaction = is_open;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.standing.abandoned
    }

    /// When the first statement began that has had no answer.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.standing.unanswered_since
    }

    /// When a statement was last answered, or the connection opened.
    pub(super) fn answered_at(&self) -> Moment {
        self.standing.answered_at
    }

    /// Whether another unit of work may be tried, none of whose statements may take longer than `limit`.
    pub(super) fn is_good(&self, limit: Option<Duration>) -> bool {
        self.standing.is_good(limit)
    }

    /// Whether the connection itself knows that it was lost.
    pub(super) fn is_broken(&mut self) -> bool {
        self.inner.is_broken()
    }

    /// Waits until the statement has ended that nobody waits for any more, and ends it if that takes long. Whether
    /// the connection can be used again.
    pub(super) async fn settle(&mut self, deadline: Instant) -> bool {
        let Self { inner, standing, .. } = self;
        // Is answered after everything that was sent before.
        let mut answer = pin!(inner.batch_execute(""));
        let mut outcome = timeout(INTERRUPT_AFTER, answer.as_mut()).await;
        if let (Err(_), Some(interrupt)) = (&outcome, &standing.interrupt) {
            standing.abandoned |= timeout(INTERRUPT_LIMIT, interrupt.send()).await.is_err();
            outcome = timeout_at(deadline, answer).await;
        }
        standing.errors.take();
        if outcome.is_err() {
            standing.abandoned = true;
            return false;
        }
        standing.unanswered_since = None;
        !standing.abandoned
    }
}

/// What is known of the statements on a connection.
struct Standing {
    /// A statement was given up for good while the server may still be busy with it.
    abandoned: bool,
    /// A transaction may be open.
    in_transaction: bool,
    /// When the first statement began that has had no answer. It may have been dropped by a caller
    /// who did not wait for long.
    unanswered_since: Option<Instant>,
    /// When a statement was last answered, or the connection opened.
    answered_at: Moment,
    opened_at: Instant,
    errors: ServerErrors,
    interrupt: Option<Box<Interrupt>>,
}

impl Standing {
    fn new(answered_at: Moment, errors: ServerErrors, interrupt: Option<Box<Interrupt>>) -> Self {
        let opened_at = Instant::now();
        Self {
            abandoned: false,
            in_transaction: false,
            unanswered_since: None,
            answered_at,
            opened_at,
            errors,
            interrupt,
        }
    }

    /// Whether another unit of work may be tried, none of whose statements may take longer than `limit`.
    ///
    /// Callers in a hurry never see that limit pass. So a connection that has been silent for half of
    /// it is not used again: its other end may be gone without a trace.
    fn is_good(&self, limit: Option<Duration>) -> bool {
        let silence = self.unanswered_since.map_or(Duration::ZERO, |since| since.elapsed());
        !self.abandoned && !self.in_transaction && limit.is_none_or(|limit| silence < limit / 2)
    }
}

/// What one statement is held to.
pub(super) struct Limits<'l> {
    statement: Option<Duration>,
    standing: &'l mut Standing,
    failed: &'l mut bool,
    database: &'l Reachability,
}

impl Limits<'_> {
    /// Awaits `statement` within the time limit. A connection whose statement did not end in time
    /// is not used again, not even to roll back: closing it does that.
    ///
    /// Dropping the future leaves the statement to the server; the next one has to wait for it, and
    /// shares its time limit.
    pub(super) async fn hold<T>(
        self,
        statement: impl Future<Output = QueryResult<T>>,
    ) -> Result<T, StorageError> {
        self.hold_all(&AtomicUsize::new(0), statement).await
    }

    /// As [`Limits::hold`], for several statements that were sent together: each has the time limit for itself.
    /// `answers` counts those that were answered.
    pub(super) async fn hold_all<T>(
        mut self,
        answers: &AtomicUsize,
        statements: impl Future<Output = QueryResult<T>>,
    ) -> Result<T, StorageError> {
        if self.standing.abandoned {
            return Err(StorageError::Unavailable("the connection was given up".into()));
        }
        // The one before was left by whoever waited for it.
        if let (Some(_), Some(interrupt)) = (self.standing.unanswered_since, &self.standing.interrupt) {
            // Whatever becomes of it, the limit of both statements stays the same. Nobody knows which statement a
            // request meets that is still on its way.
            self.standing.abandoned |= timeout(INTERRUPT_LIMIT, interrupt.send()).await.is_err();
        }
        // Until it is known to have succeeded, and so for good when the future is dropped.
        let failed_before = std::mem::replace(self.failed, true);
        let outcome = match self.statement {
            Some(limit) => {
                let mut statements = pin!(statements);
                let mut since = *self.standing.unanswered_since.get_or_insert_with(Instant::now);
                let mut answered = 0;
                loop {
                    let outcome = timeout_at(since + limit, statements.as_mut()).await;
                    if outcome.is_ok() || answers.load(Relaxed) == answered {
                        break outcome;
                    }
                    answered = answers.load(Relaxed);
                    since = Instant::now();
                    self.standing.unanswered_since = Some(since);
                }
            }
            None => Ok(statements.await),
        };
        let Ok(answer) = outcome else {
            self.standing.abandoned = true;
            self.standing.unanswered_since.into_iter().for_each(|since| self.database.suspect(since));
            self.database.failed();
            return Err(StorageError::Unavailable("a statement took too long".into()));
        };
        self.standing.unanswered_since = None;
        let server = self.standing.errors.take();
        let value = answer.map_err(|error| {
            if let Some(error) = server {
                self.renew_after(error);
            }
            if refuses_writes(&error, server) {
                self.database.refused_write();
            }
            StorageError::of_statement(error, server)
        })?;
        *self.failed = failed_before;
        self.standing.answered_at = self.database.answered();
        Ok(value)
    }

    /// Gives connections up that a server's error shows to be of no more use.
    fn renew_after(&mut self, error: ServerError) {
        // The server is no longer the primary; the next connection may lead to the one that is.
        self.standing.abandoned |= error.state == SqlState::READ_ONLY;
        if error.is_stale_plan {
            // The statements that the others have prepared are stale as well.
            self.standing.abandoned = true;
            self.database.suspect(Instant::now());
        }
    }
}
