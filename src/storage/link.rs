//! Pooled connections: how they are made, when they are thrown away, and how long a statement may
//! take.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::PoolableConnection;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::StorageError;
use super::usage::{PoolUsage, Queue};

/// How a pool makes a connection.
type Connect<C> = Box<dyn Fn() -> BoxFuture<'static, Result<C, StorageError>> + Send + Sync>;

/// What a pool keeps to: how many connections, and how long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    /// The most connections open at a time.
    pub(super) connections: u32,
    /// The longest wait for one of them while the database answers.
    pub(super) turn: Duration,
    /// The longest that opening one may take.
    pub(super) connect: Duration,
    /// The longest that one statement may take, if there is a limit on this side.
    pub(super) statement: Option<Duration>,
}

/// A pool of connections behind a first-come, first-served queue.
///
/// bb8 lets newcomers race those who wait; the semaphore in front of it keeps the order, so that
/// under load everybody waits about equally long.
pub(super) struct Pool<C: PoolableConnection + 'static> {
    connections: bb8::Pool<Manager<C>>,
    turns: Arc<Semaphore>,
    queue: Queue,
    limits: PoolLimits,
    away: Away,
    failures: Failures,
}

/// One connection, on loan from its pool until dropped.
pub(super) struct Loan<C: PoolableConnection + 'static> {
    connection: bb8::PooledConnection<'static, Manager<C>>,
    statement: Option<Duration>,
    /// Whether a statement failed, or was given up, since the connection was lent.
    failed: bool,
    away: Away,
    // Given back after the connection, so that whoever is next finds it.
    _turn: OwnedSemaphorePermit,
}

/// Whether the database was found not to answer. Those who queue for a connection learn of it at
/// once; those whose turn it is still try.
#[derive(Clone)]
struct Away(Arc<watch::Sender<bool>>);

/// Why the last attempt to open a connection failed. bb8 itself lets those who wait for one run into
/// its time limit, and does not tell them why.
type Failures = Arc<watch::Sender<String>>;

impl<C: PoolableConnection + 'static> Pool<C> {
    pub(super) fn new(
        limits: PoolLimits,
        max_lifetime: Option<Duration>,
        connect: impl Fn() -> BoxFuture<'static, Result<C, StorageError>> + Send + Sync + 'static,
    ) -> Self {
        let away = Away(Arc::new(watch::Sender::new(false)));
        let failures = Failures::default();
        let manager = Manager {
            connect: Box::new(connect),
            limit: limits.connect,
            statement: limits.statement,
            failures: failures.clone(),
        };
        let connections = bb8::Pool::builder()
            .max_size(limits.connections)
            .max_lifetime(max_lifetime)
            .idle_timeout(None)
            // Costs no round trip: see `Manager::is_valid`.
            .test_on_check_out(true)
            .retry_connection(false)
            .connection_timeout(limits.connect)
            .error_sink(Box::new(LogSink))
            .build_unchecked(manager);
        let turns = Arc::new(Semaphore::new(limits.connections as usize));
        Self { connections, turns, queue: Queue::default(), limits, away, failures }
    }

    /// The next free connection, opened if need be.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the wait or the opening takes longer than the limits
    /// allow, or the database was found to be away while waiting.
    ///
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn loan(&self) -> Result<Loan<C>, StorageError> {
        let turn = self.turn().await?;
        let mut failures = self.failures.subscribe();
        let connection = tokio::select! {
            biased;
            connection = self.connections.get_owned() => {
                connection.map_err(|_| "no connection could be opened in time".to_owned())
            }
            // Whose attempt it was does not matter: all go to the same database.
            _ = failures.changed() => Err(failures.borrow().clone()),
        };
        match connection {
            Ok(connection) => {
                let statement = self.limits.statement;
                Ok(Loan { connection, statement, failed: false, away: self.away.clone(), _turn: turn })
            }
            Err(why) => {
                self.away.set(true);
                Err(StorageError::Unavailable(why))
            }
        }
    }

    /// Notes that the database answers: whoever queues for a connection shall wait for it.
    pub(super) fn note_answer(&self) {
        self.away.set(false);
    }

    /// How much of the pool is in use now.
    pub(super) fn usage(&self, name: &'static str) -> PoolUsage {
        let bb8::State { connections: open, idle_connections: idle, .. } = self.connections.state();
        let (limit, waiting) = (self.limits.connections, self.queue.length());
        PoolUsage { name, open, in_use: open.saturating_sub(idle), limit, waiting }
    }

    /// Closes all connections, once those on loan have come back. From then on there are none to be
    /// had.
    pub(super) async fn close(&self) {
        // The queue is fair: whoever stands in it already is served before.
        let Ok(_turns) = self.turns.acquire_many(self.limits.connections).await else { return };
        self.turns.close();
        while self.connections.state().idle_connections > 0 {
            let Ok(mut connection) = self.connections.get_owned().await else { return };
            // The pool closes what it is given back in this state.
            connection.standing.abandoned = true;
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        let turns = self.turns.clone();
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let _waiting = self.queue.enter();
        let queued = async {
            tokio::select! {
                // Whoever found the database away gives a turn back right after the news: to take it
                // would be to wait as long again.
                turn = turns.acquire_owned() => turn.ok().filter(|_| !self.away.is_known()),
                () = self.away.found() => None,
            }
        };
        match timeout(self.limits.turn, queued).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) => Err(StorageError::Unavailable("the database does not answer".into())),
            Err(_) => Err(StorageError::Unavailable("all connections are busy".into())),
        }
    }
}

impl<C: PoolableConnection + 'static> Loan<C> {
    /// The connection itself, and the limits that a statement on it is to be awaited under.
    pub(super) fn parts(&mut self) -> (&mut C, Limits<'_>) {
        let Link { inner, standing } = &mut *self.connection;
        let failed = &mut self.failed;
        (inner, Limits { statement: self.statement, standing, failed, away: &self.away })
    }

    /// Whether a statement failed, or was given up, since the connection was lent.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }
}

/// What one statement is held to.
pub(super) struct Limits<'l> {
    statement: Option<Duration>,
    standing: &'l mut Standing,
    failed: &'l mut bool,
    away: &'l Away,
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
        if self.standing.abandoned {
            return Err(StorageError::Unavailable("the connection was given up".into()));
        }
        // Until it is known to have succeeded, and so for good when the future is dropped.
        let failed_before = std::mem::replace(self.failed, true);
        let outcome = match self.statement {
            Some(limit) => {
                let since = *self.standing.unanswered_since.get_or_insert_with(Instant::now);
                timeout_at(since + limit, statement).await
            }
            None => Ok(statement.await),
        };
        let Ok(answer) = outcome else {
            self.standing.abandoned = true;
            self.away.set(true);
            return Err(StorageError::Unavailable("a statement took too long".into()));
        };
        self.standing.unanswered_since = None;
        // The server is no longer the primary; the next connection may lead to the one that is.
        self.standing.abandoned |= answer.as_ref().is_err_and(is_read_only);
        let value = answer?;
        *self.failed = failed_before;
        self.away.set(false);
        Ok(value)
    }
}

fn is_read_only(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))
}

impl Away {
    fn set(&self, away: bool) {
        self.0.send_if_modified(|was| std::mem::replace(was, away) != away);
    }

    fn is_known(&self) -> bool {
        *self.0.borrow()
    }

    async fn found(&self) {
        // The sender lives in `self`, so the wait can only end by the value.
        let _ = self.0.subscribe().wait_for(|away| *away).await;
    }
}

/// A connection with what the pool needs to know of it.
pub(super) struct Link<C> {
    inner: C,
    standing: Standing,
}

/// What is known of the statements on a connection.
#[derive(Default)]
struct Standing {
    /// A statement was given up for good while the server may still be busy with it.
    abandoned: bool,
    /// When the first statement began that has had no answer. It may have been dropped by a caller
    /// who did not wait for long.
    unanswered_since: Option<Instant>,
}

impl Standing {
    /// Whether another statement may be tried, none of which may take longer than `limit`.
    ///
    /// Callers in a hurry never see that limit pass. So a connection that has been silent for half of
    /// it is not used again: its other end may be gone without a trace.
    fn is_good(&self, limit: Option<Duration>) -> bool {
        let silence = self.unanswered_since.map_or(Duration::ZERO, |since| since.elapsed());
        !self.abandoned && limit.is_none_or(|limit| silence < limit / 2)
    }
}

pub(super) struct Manager<C> {
    connect: Connect<C>,
    limit: Duration,
    statement: Option<Duration>,
    failures: Failures,
}

impl<C: PoolableConnection + 'static> bb8::ManageConnection for Manager<C> {
    type Connection = Link<C>;
    type Error = StorageError;

    async fn connect(&self) -> Result<Link<C>, StorageError> {
        let connected = timeout(self.limit, (self.connect)())
            .await
            .unwrap_or_else(|_| Err(StorageError::Unavailable("connecting took too long".into())));
        if let Err(error) = &connected {
            self.failures.send_replace(error.cause().to_owned());
        }
        connected.map(|inner| Link { inner, standing: Standing::default() })
    }

    /// Asks what is known on this side only: a lost TCP connection is noticed without a query.
    async fn is_valid(&self, link: &mut Link<C>) -> Result<(), StorageError> {
        if self.has_broken(link) {
            return Err(StorageError::Unavailable("the connection was lost".into()));
        }
        Ok(())
    }

    fn has_broken(&self, link: &mut Link<C>) -> bool {
        !link.standing.is_good(self.statement) || link.inner.is_broken()
    }
}

/// Where bb8 reports connections that it could not open or found lost. Whoever wanted one is told
/// why, so this is for the curious.
#[derive(Clone, Copy, Debug)]
struct LogSink;

impl bb8::ErrorSink<StorageError> for LogSink {
    fn sink(&self, error: StorageError) {
        tracing::debug!(error = %error, "a database connection was lost or could not be opened");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<StorageError>> {
        Box::new(*self)
    }
}
