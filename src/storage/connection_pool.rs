//! A pool of connections: how they are made, shared out, lent, and thrown away.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::error::StorageError;
use super::link::{Limits, Link, Opened, Pooled};
use super::reachability::Reachability;
use super::usage::PoolUsage;
use crate::budget::{Gate, Place};
use crate::domain::Party;

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
            connection.abandon();
        }
    }
}

impl<C: Pooled> Loan<C> {
    /// The connection itself, and the limits that a statement on it is to be awaited under.
    pub(super) fn parts(&mut self) -> (&mut C, Limits<'_>) {
        let held = self.held.as_mut().expect("only dropping takes the connection");
        held.connection.parts(self.statement, &mut self.failed, &self.database)
    }

    fn link(&mut self) -> &mut Link<C> {
        &mut self.held.as_mut().expect("only dropping takes the connection").connection
    }

    /// Has the connection closed rather than used again when it is older than `age`.
    pub(super) fn retire_after(&mut self, age: Duration) {
        self.link().retire_after(age);
    }

    /// Notes whether a transaction may be open that the connection's own interface does not know of.
    pub(super) fn set_in_transaction(&mut self, is_open: bool) {
        self.link().set_in_transaction(is_open);
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
        let Some(since) = held.connection.unanswered_since() else { return };
        let (Some(limit), false) = (self.statement, held.connection.is_abandoned()) else { return };
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
        connected.map(|opened| Link::new(opened, self.database.answered(), Arc::clone(&self.open)))
    }

    /// Asks what is known on this side only: a lost TCP connection is noticed without a query.
    async fn is_valid(&self, link: &mut Link<C>) -> Result<(), StorageError> {
        // One that was idle while another fell silent is not tried: where the way to the server has forgotten
        // one, it may have forgotten all.
        if self.has_broken(link) || self.database.is_suspect(link.answered_at()) {
            return Err(StorageError::Unavailable("the connection was lost".into()));
        }
        Ok(())
    }

    fn has_broken(&self, link: &mut Link<C>) -> bool {
        let is_good = link.is_good(self.statement);
        if let (false, Some(since)) = (is_good, link.unanswered_since()) {
            self.database.suspect(since);
        }
        !is_good || link.is_broken()
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

fn too_slow() -> StorageError {
    StorageError::Unavailable("no connection could be opened in time".into())
}
