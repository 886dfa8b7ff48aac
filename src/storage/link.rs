//! Pooled connections: how they are made, when they are thrown away, and how long a statement may
//! take.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::QueryResult;
use diesel_async::SimpleAsyncConnection;
use diesel_async::pooled_connection::PoolableConnection;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{StorageError, refuses_writes};
use super::postgres::{Interrupt, ServerError, ServerErrors, SqlState};
use super::reachability::{Moment, Reachability};
use super::usage::PoolUsage;
use crate::budget::{Gate, Place};
use crate::domain::Party;

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

/// How a pool makes a connection.
type Connect<C> = Box<dyn Fn() -> BoxFuture<'static, Result<Opened<C>, StorageError>> + Send + Sync>;

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
pub(super) struct Pool<C: Pooled> {
    connections: bb8::Pool<Manager<C>>,
    gate: Gate,
    limits: PoolLimits,
    database: Reachability,
    failures: Failures,
}

/// One connection, on loan from its pool until dropped.
///
/// One that is dropped in the middle of a statement is given back when the statement has ended, and its place with
/// it: the server never has more to do than there are connections.
pub(super) struct Loan<C: Pooled> {
    // Empty only while dropped.
    held: Option<Held<C>>,
    statement: Option<Duration>,
    /// Whether a statement failed, or was given up, since the connection was lent.
    failed: bool,
    database: Reachability,
}

struct Held<C: Pooled> {
    connection: bb8::PooledConnection<'static, Manager<C>>,
    // Given back after the connection, so that the next one finds it.
    _place: Place,
}

/// How long a statement that nobody waits for may go on before the server is asked to end it. To ask takes a
/// connection, and most statements end by themselves before that is open.
const INTERRUPT_AFTER: Duration = Duration::from_millis(20);

/// How long it may take to ask.
const INTERRUPT_LIMIT: Duration = Duration::from_millis(500);

/// Why the last attempt to open a connection failed. bb8 itself lets those who wait for one run into
/// its time limit, and does not tell them why.
type Failures = Arc<watch::Sender<StorageError>>;

impl<C: Pooled> Pool<C> {
    pub(super) fn new(
        limits: PoolLimits,
        max_lifetime: Option<Duration>,
        database: Reachability,
        connect: impl Fn() -> BoxFuture<'static, Result<Opened<C>, StorageError>> + Send + Sync + 'static,
    ) -> Self {
        let failures = Arc::new(watch::Sender::new(too_slow()));
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
    /// other connection is open; [`StorageError::Unsuitable`] when it fails for a reason that does not pass.
    pub(super) async fn loan(&self, place: Place) -> Result<Loan<C>, StorageError> {
        let mut failures = self.failures.subscribe();
        let mut getting = pin!(self.connections.get_owned());
        let connection = loop {
            tokio::select! {
                biased;
                connection = getting.as_mut() => {
                    break connection.map_err(|_| too_slow());
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
                let held = Some(Held { connection, _place: place });
                Ok(Loan { held, statement, failed: false, database })
            }
            Err(error) => {
                self.database.failed();
                Err(error)
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

impl<C: Pooled> Loan<C> {
    /// The connection itself, and the limits that a statement on it is to be awaited under.
    pub(super) fn parts(&mut self) -> (&mut C, Limits<'_>) {
        let held = self.held.as_mut().expect("only dropping takes the connection");
        let Link { inner, standing, .. } = &mut *held.connection;
        let failed = &mut self.failed;
        (inner, Limits { statement: self.statement, standing, failed, database: &self.database })
    }

    /// Has the connection closed rather than used again when it is older than `age`.
    pub(super) fn retire_after(&mut self, age: Duration) {
        let (_, limits) = self.parts();
        limits.standing.abandoned |= limits.standing.opened_at.elapsed() >= age;
    }

    /// Notes whether a transaction may be open that the connection's own interface does not know of.
    pub(super) fn set_in_transaction(&mut self, is_open: bool) {
        self.parts().1.standing.in_transaction = is_open;
    }

    /// Notes that something was written.
    pub(super) fn note_written(&self) {
        self.database.wrote();
    }

    /// Whether a statement failed, or was given up, since the connection was lent.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }
}

impl<C: Pooled> Drop for Loan<C> {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let Some(since) = held.connection.standing.unanswered_since else { return };
        let (Some(limit), false) = (self.statement, held.connection.standing.abandoned) else { return };
        let database = self.database.clone();
        // Without a runtime the connection is dropped as it is.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if !held.connection.settle(since + limit).await {
                    database.suspect(since);
                    database.failed();
                }
                drop(held);
            });
        }
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

fn too_slow() -> StorageError {
    StorageError::Unavailable("no connection could be opened in time".into())
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
}

impl<C: Pooled> Link<C> {
    /// Waits until the statement has ended that nobody waits for any more, and ends it if that takes long. Whether
    /// the connection can be used again.
    async fn settle(&mut self, deadline: Instant) -> bool {
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

impl Standing {
    /// Whether another unit of work may be tried, none of whose statements may take longer than `limit`.
    ///
    /// Callers in a hurry never see that limit pass. So a connection that has been silent for half of
    /// it is not used again: its other end may be gone without a trace.
    fn is_good(&self, limit: Option<Duration>) -> bool {
        let silence = self.unanswered_since.map_or(Duration::ZERO, |since| since.elapsed());
        !self.abandoned && !self.in_transaction && limit.is_none_or(|limit| silence < limit / 2)
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

impl<C: Pooled> bb8::ManageConnection for Manager<C> {
    type Connection = Link<C>;
    type Error = StorageError;

    async fn connect(&self) -> Result<Link<C>, StorageError> {
        let connected = match self.last_failure() {
            Some(error) => Err(error),
            None => self.try_connect().await,
        };
        if let Err(error) = &connected {
            self.failures.send_replace(error.clone());
        }
        connected.map(|Opened { connection, errors, interrupt }| {
            let standing = Standing::new(self.database.answered(), errors, interrupt);
            Link { inner: connection, standing, _open: Arc::clone(&self.open) }
        })
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
    async fn try_connect(&self) -> Result<Opened<C>, StorageError> {
        let connected = timeout(self.limit, (self.connect)())
            .await
            .unwrap_or_else(|_| Err(StorageError::Unavailable("connecting took too long".into())));
        let failed_at = connected.is_err().then(Instant::now);
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = failed_at;
        connected
    }

    /// Why opening a connection failed a moment ago, if it did. Without any that is open, each call tries
    /// anew: the database may be back.
    fn last_failure(&self) -> Option<StorageError> {
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
