//! Pooled connections: how they are made, when they are thrown away, and how long a statement may
//! take.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::PoolableConnection;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::StorageError;
use super::reachability::{Moment, Reachability};
use super::usage::PoolUsage;
use crate::budget::{Gate, Place};
use crate::domain::Party;

/// How a pool makes a connection.
type Connect<C> = Box<dyn Fn() -> BoxFuture<'static, Result<C, StorageError>> + Send + Sync>;

/// What a pool keeps to: how many connections, and how long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    /// The most connections open at a time.
    pub(super) connections: u32,
    /// How many calls wait for one of them at most.
    pub(super) queue: usize,
    /// The longest wait for one of them while the database answers.
    pub(super) turn: Duration,
    /// The longest that opening one may take.
    pub(super) connect: Duration,
    /// For how long none is tried after one could not be opened: a server that has no more room is not to be
    /// asked by every call.
    pub(super) rest: Duration,
    /// The longest that one statement may take, if there is a limit on this side.
    pub(super) statement: Option<Duration>,
}

/// A pool of connections behind a gate that shares them out fairly.
///
/// A call first takes a [`Place`] at the gate, and with that a connection. There are as many places as
/// connections, so whoever has a place waits for nobody but the database. bb8 itself lets newcomers race those
/// who wait.
pub(super) struct Pool<C: PoolableConnection + 'static> {
    connections: bb8::Pool<Manager<C>>,
    gate: Gate,
    limits: PoolLimits,
    database: Reachability,
    failures: Failures,
}

/// One connection, on loan from its pool until dropped.
pub(super) struct Loan<C: PoolableConnection + 'static> {
    connection: bb8::PooledConnection<'static, Manager<C>>,
    statement: Option<Duration>,
    /// Whether a statement failed, or was given up, since the connection was lent.
    failed: bool,
    database: Reachability,
    // Given back after the connection, so that the next one finds it.
    _place: Place,
}

/// Why the last attempt to open a connection failed. bb8 itself lets those who wait for one run into
/// its time limit, and does not tell them why.
type Failures = Arc<watch::Sender<String>>;

impl<C: PoolableConnection + 'static> Pool<C> {
    pub(super) fn new(
        limits: PoolLimits,
        max_lifetime: Option<Duration>,
        database: Reachability,
        connect: impl Fn() -> BoxFuture<'static, Result<C, StorageError>> + Send + Sync + 'static,
    ) -> Self {
        let failures = Failures::default();
        let manager = Manager {
            connect: Box::new(connect),
            limit: limits.connect,
            rest: limits.rest,
            statement: limits.statement,
            database: database.clone(),
            failures: failures.clone(),
            failed_at: Mutex::new(None),
            open: Arc::new(()),
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
        let gate = Gate::with_room_for_newcomers(limits.connections as usize, limits.queue, limits.turn);
        Self { connections, gate, limits, database, failures }
    }

    /// Waits for the right to one of the connections.
    ///
    /// # Errors
    /// [`StorageError::Busy`] when too many wait, or it took too long; [`StorageError::Unavailable`] when the
    /// database was found to be away while waiting.
    ///
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn enter(&self, party: Party) -> Result<Place, StorageError> {
        self.database.while_reachable(self.gate.enter(party)).await
    }

    /// As [`Pool::enter`], shared among tenants first.
    pub(super) async fn enter_by_group(&self, party: Party) -> Result<Place, StorageError> {
        self.database.while_reachable(self.gate.enter_by_group(party)).await
    }

    /// The connection that a place at the gate stands for, opened if need be.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when opening one takes longer than the limits allow, or fails while no
    /// other connection is open.
    pub(super) async fn loan(&self, place: Place) -> Result<Loan<C>, StorageError> {
        let mut failures = self.failures.subscribe();
        let mut getting = pin!(self.connections.get_owned());
        let connection = loop {
            tokio::select! {
                biased;
                connection = getting.as_mut() => {
                    break connection.map_err(|_| "no connection could be opened in time".to_owned());
                }
                // Whose attempt it was does not matter: all go to the same database. Where it takes no more
                // connections, one of those that are open will be free soon.
                _ = failures.changed() => {
                    if self.connections.state().connections == 0 {
                        break Err(failures.borrow().clone());
                    }
                }
            }
        };
        match connection {
            Ok(connection) => {
                let (statement, database) = (self.limits.statement, self.database.clone());
                Ok(Loan { connection, statement, failed: false, database, _place: place })
            }
            Err(why) => {
                self.database.failed();
                Err(StorageError::Unavailable(why))
            }
        }
    }

    /// How much of the pool is in use now.
    pub(super) fn usage(&self, name: &'static str) -> PoolUsage {
        PoolUsage { name, open: self.connections.state().connections, calls: self.gate.usage() }
    }

    /// Whether others wait for a connection.
    pub(super) fn is_awaited(&self) -> bool {
        self.gate.is_awaited()
    }

    /// Closes all connections, once those on loan have come back. From then on there are none to be
    /// had.
    pub(super) async fn close(&self) {
        self.gate.close().await;
        while self.connections.state().idle_connections > 0 {
            let Ok(mut connection) = self.connections.get_owned().await else { return };
            // The pool closes what it is given back in this state.
            connection.standing.abandoned = true;
        }
    }
}

impl<C: PoolableConnection + 'static> Loan<C> {
    /// The connection itself, and the limits that a statement on it is to be awaited under.
    pub(super) fn parts(&mut self) -> (&mut C, Limits<'_>) {
        let Link { inner, standing, .. } = &mut *self.connection;
        let failed = &mut self.failed;
        (inner, Limits { statement: self.statement, standing, failed, database: &self.database })
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
            self.standing.unanswered_since.into_iter().for_each(|since| self.database.suspect(since));
            self.database.failed();
            return Err(StorageError::Unavailable("a statement took too long".into()));
        };
        self.standing.unanswered_since = None;
        // The server is no longer the primary; the next connection may lead to the one that is.
        self.standing.abandoned |= answer.as_ref().is_err_and(is_read_only);
        let value = answer?;
        *self.failed = failed_before;
        self.standing.answered_at = self.database.answered();
        Ok(value)
    }
}

fn is_read_only(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))
}

/// A connection with what the pool needs to know of it.
pub(super) struct Link<C> {
    inner: C,
    standing: Standing,
    _open: Arc<()>,
}

/// What is known of the statements on a connection.
struct Standing {
    /// A statement was given up for good while the server may still be busy with it.
    abandoned: bool,
    /// When the first statement began that has had no answer. It may have been dropped by a caller
    /// who did not wait for long.
    unanswered_since: Option<Instant>,
    /// When a statement was last answered, or the connection opened.
    answered_at: Moment,
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
    rest: Duration,
    statement: Option<Duration>,
    database: Reachability,
    failures: Failures,
    /// When opening one failed last.
    failed_at: Mutex<Option<Instant>>,
    /// Held by each open connection as well.
    open: Arc<()>,
}

impl<C: PoolableConnection + 'static> bb8::ManageConnection for Manager<C> {
    type Connection = Link<C>;
    type Error = StorageError;

    async fn connect(&self) -> Result<Link<C>, StorageError> {
        let connected = match self.last_failure() {
            Some(why) => Err(StorageError::Unavailable(why)),
            None => self.try_connect().await,
        };
        if let Err(error) = &connected {
            self.failures.send_replace(error.cause().to_owned());
        }
        let connected_at = |inner| {
            let answered_at = self.database.answered();
            let standing = Standing { abandoned: false, unanswered_since: None, answered_at };
            Link { inner, standing, _open: Arc::clone(&self.open) }
        };
        connected.map(connected_at)
    }

    /// Asks what is known on this side only: a lost TCP connection is noticed without a query.
    async fn is_valid(&self, link: &mut Link<C>) -> Result<(), StorageError> {
        // One that was idle while another fell silent is not tried: where the way to the server has forgotten
        // one, it may have forgotten all.
        if self.has_broken(link) || self.database.is_suspect(link.standing.answered_at) {
            return Err(StorageError::Unavailable("the connection was lost".into()));
        }
        Ok(())
    }

    fn has_broken(&self, link: &mut Link<C>) -> bool {
        let is_good = link.standing.is_good(self.statement);
        if let (false, Some(since)) = (is_good, link.standing.unanswered_since) {
            self.database.suspect(since);
        }
        !is_good || link.inner.is_broken()
    }
}

impl<C> Manager<C> {
    async fn try_connect(&self) -> Result<C, StorageError> {
        let connected = timeout(self.limit, (self.connect)())
            .await
            .unwrap_or_else(|_| Err(StorageError::Unavailable("connecting took too long".into())));
        let failed_at = connected.is_err().then(Instant::now);
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = failed_at;
        connected
    }

    /// Why opening a connection failed a moment ago, if it did. Without any that is open, each call tries
    /// anew: the database may be back.
    fn last_failure(&self) -> Option<String> {
        if Arc::strong_count(&self.open) == 1 {
            return None;
        }
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.filter(|at| at.elapsed() < self.rest).map(|_| self.failures.borrow().clone())
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
