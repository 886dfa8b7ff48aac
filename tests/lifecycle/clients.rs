//! What these tests ask of a server and its database from outside.

use std::net::SocketAddr;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::BigInt;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

use crate::support::service::{Engine, MASTER_KEY, PATIENT_STATEMENTS, TestDatabase, reason};
pub(crate) use crate::support::wait::eventually;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The names whose health follows the database.
pub(crate) const FOLLOWING: [&str; 5] = [
    "",
    "readiness",
    "identity.v1.IdentityService",
    "identity.v1.DirectoryService",
    "identity.v1.AuditService",
];

/// `future`'s result, which must be there within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// The health service of one server.
pub(crate) struct Health(HealthClient<Channel>);

impl Health {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(HealthClient::new(endpoint.connect().await.unwrap()))
    }

    pub(crate) async fn check(&self, name: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: name.into() };
        self.0.clone().check(request).await.map(|response| response.get_ref().status())
    }

    /// Asserts what `liveness` says (always the same) and all others.
    pub(crate) async fn assert(&self, following: ServingStatus) {
        assert_eq!(self.check("liveness").await.unwrap(), ServingStatus::Serving);
        for name in FOLLOWING {
            assert_eq!(self.check(name).await.unwrap(), following, "{name:?}");
        }
    }

    pub(crate) async fn watch(&self, name: &str) -> Watch {
        let request = HealthCheckRequest { service: name.into() };
        Watch(self.0.clone().watch(request).await.unwrap().into_inner())
    }
}

/// An open Watch.
pub(crate) struct Watch(Streaming<HealthCheckResponse>);

impl Watch {
    /// Waits for the next change, which must be to `expected`.
    pub(crate) async fn becomes(&mut self, expected: ServingStatus) {
        let change = soon(expected.as_str_name(), self.0.message()).await.unwrap();
        assert_eq!(change.map(|response| response.status()), Some(expected));
    }

    /// Asserts that nothing changes for so long.
    pub(crate) async fn stays(&mut self, time: Duration) {
        let change = timeout(time, self.0.message()).await;
        assert!(change.is_err(), "{change:?}");
    }

    /// Waits for the end of the stream.
    pub(crate) async fn ends(&mut self) {
        assert!(matches!(soon("the watch ends", self.0.message()).await, Ok(None) | Err(_)));
    }
}

/// Asserts that the call may be repeated, and that the reply says when.
pub(crate) fn assert_unavailable(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, "UNAVAILABLE"), "{status:?}");
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| !delay.is_zero()), "{status:?}");
}

/// The environment of a real server on `database`, with the cheapest passwords.
pub(crate) fn variables<'v>(
    url: &'v str,
    others: &[(&'static str, &'v str)],
) -> Vec<(&'static str, &'v str)> {
    let shared = [
        ("DATABASE_URL", url),
        ("IDENTITY_BCRYPT_COST", "4"),
        ("IDENTITY_MASTER_KEY", MASTER_KEY),
        PATIENT_STATEMENTS,
    ];
    [&shared, others].concat()
}

impl TestDatabase {
    /// The number that `sql` returns.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            number: i64,
        }
        block_in_place(|| match &self.postgres {
            Some(database) => database.admin(sql)[0][0].as_ref().unwrap().parse().unwrap(),
            None => {
                let sql = format!("SELECT ({sql}) AS number");
                diesel::sql_query(sql).get_result::<Row>(&mut self.sqlite()).unwrap().number
            }
        })
    }

    /// Runs SQL that returns nothing.
    pub(crate) fn execute(&self, sql: &str) {
        block_in_place(|| match &self.postgres {
            Some(database) => drop(database.admin(sql)),
            None => self.sqlite().batch_execute(sql).unwrap(),
        });
    }

    fn sqlite(&self) -> SqliteConnection {
        let path = self.folder.path().join("identity.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        connection
    }
}

/// Keeps every session from being written, for as long as it lives.
pub(crate) enum Barrier {
    Sqlite(SqliteConnection),
    Postgres { _client: tokio_postgres::Client },
}

impl Barrier {
    pub(crate) async fn raise(database: &TestDatabase) -> Self {
        let Some(postgres) = &database.postgres else {
            let mut connection = block_in_place(|| database.sqlite());
            return spawn_blocking(move || {
                connection.batch_execute("BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(connection)
            })
            .await
            .unwrap();
        };
        let (client, connection) =
            tokio_postgres::connect(&postgres.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE sessions IN EXCLUSIVE MODE").await.unwrap();
        Self::Postgres { _client: client }
    }

    pub(crate) fn lower(self) {
        if let Self::Sqlite(mut connection) = self {
            connection.batch_execute("ROLLBACK").unwrap();
        }
    }
}

/// Hashes that take a second, so that a barrier can be raised while they are computed; and all are admitted, on
/// however busy a machine.
pub(crate) const SLOW_HASHES: [(&str, &str); 2] =
    [("IDENTITY_BCRYPT_COST", "14"), ("IDENTITY_HASH_MAX_WAIT", "10m")];

/// Waits until so many password checks are under way: what comes next of each login is its session.
pub(crate) async fn checks_under_way(database: &TestDatabase, number: i64) {
    let sql = "SELECT coalesce(sum(length(pending)), 0) FROM attempts";
    eventually("passwords are checked", async || database.number(sql) == 8 * number).await;
}

/// What the log, at level debug, has when a write waits behind a [`Barrier`].
pub(crate) fn waiting_write(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        // In JSON.
        Engine::Postgres => r#"INSERT INTO \"sessions\""#,
    }
}

/// The database's files, besides the main one, that are there.
pub(crate) fn sqlite_leftovers(database: &TestDatabase) -> Vec<String> {
    assert!(database.postgres.is_none());
    let files = std::fs::read_dir(database.folder.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with("-wal") || name.ends_with("-shm")).collect()
}

/// The sessions that clients have open on a PostgreSQL database, `sql` asking from outside aside.
pub(crate) fn backends(database: &TestDatabase) -> i64 {
    assert_ne!(Engine::Sqlite, if database.postgres.is_some() { Engine::Postgres } else { Engine::Sqlite });
    database.number(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
}
