//! The pools of a PostgreSQL server: one for each lane, and the health probe's connection.

use std::time::Duration;

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use futures_util::FutureExt as _;

use crate::storage::connection_pool::{Pool, PoolLimits};
use crate::storage::error::StorageError;
use crate::storage::lane::Lane;
use crate::storage::link::Opened;
use crate::storage::postgres::{Connector, Session};
use crate::storage::query_log::QueryLog;
use crate::storage::reachability::Reachability;
use crate::storage::settings::StorageSettings;
use crate::storage::url::PostgresTarget;
use crate::storage::usage::PoolUsage;

/// A caller is told within two seconds that the database is away: opening a
/// connection and running a statement are each given somewhat less. Where it goes away between the
/// two, both limits add up.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);

/// How long no connection is tried after one could not be opened.
const REST: Duration = Duration::from_millis(200);

/// How long a statement is waited for that the server ends after `limit`. Then the connection is given
/// up. The server comes first, so that a statement which only waited for a lock costs no connection
/// and is not taken for a server that does not answer.
fn statement_wait(limit: Duration) -> Duration {
    limit + limit / 5
}

/// How long a statement waits for a lock: less than a statement may take, and than a caller waits.
fn lock_wait(limit: Duration) -> Duration {
    limit * 2 / 3
}

/// The longest that a transaction may sit between statements: this process was stopped, or is gone.
const IDLE_IN_TRANSACTION_MILLIS: u32 = 10_000;

/// Connections are replaced now and then, so that load spreads over what is behind a balancer.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

pub(super) struct PostgresPools {
    reads: Pool<AsyncPgConnection>,
    writes: Pool<AsyncPgConnection>,
    lists: Pool<AsyncPgConnection>,
    operators: Pool<AsyncPgConnection>,
    pub(super) probe: Pool<AsyncPgConnection>,
}

impl PostgresPools {
    pub(super) fn new(
        target: &PostgresTarget,
        settings: &StorageSettings,
        reachability: &Reachability,
    ) -> Result<Self, StorageError> {
        let limit = settings.statement_limit;
        let connector = Connector::new(target)?;
        let pool = |connections, queue| {
            let connector = connector.clone();
            let (turn, statement) = (settings.queue_limit, Some(statement_wait(limit)));
            let limits =
                PoolLimits { connections, queue, turn, connect: CONNECT_LIMIT, rest: REST, statement };
            Pool::new(limits, Some(MAX_LIFETIME), reachability.clone(), move || {
                connect(connector.clone(), limit).boxed()
            })
        };
        let lane = |lane: Lane| pool(settings.connections.get(lane), lane.queue());
        Ok(Self {
            reads: lane(Lane::Reads),
            writes: lane(Lane::Writes),
            lists: lane(Lane::Lists),
            operators: lane(Lane::Operators),
            probe: pool(1, 1),
        })
    }

    pub(super) fn of(&self, lane: Lane) -> &Pool<AsyncPgConnection> {
        match lane {
            Lane::Reads => &self.reads,
            Lane::Writes => &self.writes,
            Lane::Lists => &self.lists,
            Lane::Operators => &self.operators,
        }
    }

    pub(super) fn usage(&self) -> Vec<PoolUsage> {
        Lane::ALL.into_iter().map(|lane| self.of(lane).usage(lane.name())).collect()
    }

    pub(super) async fn close(&self) {
        for lane in Lane::ALL {
            self.of(lane).close().await;
        }
        self.probe.close().await;
    }
}

async fn connect(connector: Connector, limit: Duration) -> Result<Opened<AsyncPgConnection>, StorageError> {
    let Session { mut connection, errors, interrupt } = connector.connect_within(CONNECT_LIMIT).await?;
    // The server ends what takes too long, and transactions that nobody ends.
    connection
        .batch_execute(&format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MILLIS}",
            limit = limit.as_millis(),
            lock = lock_wait(limit).as_millis(),
        ))
        .await
        .map_err(|error| StorageError::of_statement(error, errors.take()))?;
    connection.set_instrumentation(QueryLog);
    Ok(Opened { connection, errors, interrupt: Some(Box::new(interrupt)) })
}
