//! How a server starts: before its database is there, beside others, and not at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use identity::domain::SystemClock;
use tokio::task::block_in_place;
use tokio_postgres::NoTls;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, assert_unavailable, eventually, soon, variables};
use crate::support::postgres::Cluster;
use crate::support::process::{Process, identity};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};

on_both_databases!(several_servers_that_start_at_once_share_one_schema_and_one_signing_key);

async fn several_servers_that_start_at_once_share_one_schema_and_one_signing_key(engine: Engine) {
    let database = TestDatabase::empty(engine);
    // On SQLite, they also make one master key between them.
    let variables: Vec<_> = variables(&database.url, &[])
        .into_iter()
        .filter(|(name, _)| engine == Engine::Postgres || *name != "IDENTITY_MASTER_KEY")
        .collect();
    let mut processes =
        futures_util::future::join_all((0..4).map(|_| Process::start(variables.clone()))).await;
    for process in &mut processes {
        soon("each server is ready", process.examples()).await;
    }
    let migrations = fs::read_dir("migrations/sqlite")
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
    let migrations = i64::try_from(migrations.count()).unwrap();
    assert_eq!(database.number("SELECT count(*) FROM __diesel_schema_migrations"), migrations);
    assert_eq!(database.number("SELECT count(*) FROM signing_keys"), 1);

    let clients: Vec<_> =
        processes.iter().map(|process| Client::new(&format!("http://{}", process.address))).collect();
    let token = clients[0].register(registration("ada@example.com")).await.unwrap().access_token;
    for client in &clients {
        client.get_user(Some(&token), "").await.unwrap();
        client.login("ada@example.com", PASSWORD).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_for_a_postgresql_that_is_not_up_yet() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    block_in_place(|| cluster.stop());
    let url = database.url.clone();
    let database = TestDatabase { url, folder: tempfile::tempdir().unwrap(), postgres: Some(database) };
    let service = TestService::launch(database, &[], Arc::new(SystemClock));

    let health = Health::of(service.server.address()).await;
    let mut readiness = health.watch("readiness").await;
    readiness.becomes(ServingStatus::NotServing).await;
    health.assert(ServingStatus::NotServing).await;
    let client = service.client();
    assert_unavailable(&client.register(registration("ada@example.com")).await.unwrap_err());
    assert_unavailable(&client.login("ada@example.com", PASSWORD).await.unwrap_err());
    assert_unavailable(&client.get_user(None, "").await.unwrap_err());

    block_in_place(|| cluster.restart());
    readiness.becomes(ServingStatus::Serving).await;
    health.assert(ServingStatus::Serving).await;
    client.register(registration("ada@example.com")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_its_database_stops_at_once() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    block_in_place(|| cluster.stop());
    let process = Process::start(variables(&database.url, &[("IDENTITY_DRAIN_TIMEOUT", "60s")])).await;
    eventually("it waits", async || process.log().contains("waiting for it")).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_and_stops_while_a_migration_takes_long() {
    let database = TestDatabase::empty(Engine::Postgres);
    // Another session holds what the first migration needs.
    let (blocker, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    blocker
        .batch_execute(
            "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, \
             run_on timestamp NOT NULL DEFAULT now())",
        )
        .await
        .unwrap();
    blocker
        .batch_execute("BEGIN; LOCK TABLE __diesel_schema_migrations IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let process = Process::start(variables(&database.url, &[("IDENTITY_DRAIN_TIMEOUT", "60s")])).await;
    // The server has other databases, of other tests.
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database \
                   WHERE datname = current_database() AND NOT granted AND locktype = 'relation'";
    eventually("the migration waits", async || database.number(waiting) == 1).await;

    for _ in 0..2 {
        let health = soon("a new connection is served", Health::of(process.address)).await;
        soon("health answers", health.assert(ServingStatus::NotServing)).await;
    }
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_during_a_migration_is_waited_for() {
    let database = TestDatabase::empty(Engine::Postgres);
    let (blocker, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    // The migration makes a table of this name, and waits for whether there is one already.
    blocker.batch_execute("BEGIN; CREATE TABLE tenants (a int)").await.unwrap();
    let mut process = Process::start(variables(&database.url, &[])).await;
    let waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let count = format!("SELECT count(*) {waiting}");
    eventually("the migration waits", async || database.number(&count) == 1).await;

    assert_eq!(database.number(&format!("SELECT count(pg_terminate_backend(pid)) {waiting}")), 1);
    eventually("it is told", async || process.log().contains("waiting for it")).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    soon("the server is ready", process.examples()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_postgresql_is_named_in_the_log_and_shown_nowhere() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    block_in_place(|| {
        cluster.admin("CREATE ROLE service LOGIN SUPERUSER PASSWORD 'right'");
        let rules = "host all service 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
        fs::write(cluster.folder().join("data/pg_hba.conf"), rules).unwrap();
        cluster.stop();
    });
    let url = format!("postgres://service:hunter2@{}/{}", cluster.addr(), database.name());
    let mut process = Process::start(variables(&url, &[("IDENTITY_LOG", "trace")])).await;
    let said = async |text: &str| {
        eventually(text, async || process.log().contains(text)).await;
    };
    said("the database server refuses connections").await;
    // The cause is another now, and the log says so.
    block_in_place(|| cluster.restart());
    said("the database server does not let this user in").await;
    assert!(!process.log().contains("hunter2"), "{}", process.log());

    block_in_place(|| cluster.admin("ALTER ROLE service PASSWORD 'hunter2'"));
    soon("the server is ready", process.examples()).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert!(status.success() && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_cannot_be_used_ends_the_start_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let no_database = folder.path().join("no-database");
    fs::write(&no_database, "This is a text, and long enough to be taken for a header.".repeat(20)).unwrap();
    let a_file = folder.path().join("file");
    fs::write(&a_file, "").unwrap();
    for path in [
        folder.path().join("no/such/folder/identity.db"),
        no_database,
        a_file.join("identity.db"),
        // Nobody may write there, root included.
        Path::new("/proc/identity.db").to_owned(),
        folder.path().to_owned(),
    ] {
        let url = format!("sqlite:{}", path.display());
        for others in [&[("IDENTITY_MASTER_KEY", crate::support::service::MASTER_KEY)][..], &[]] {
            let variables = [&[("DATABASE_URL", url.as_str()), ("IDENTITY_LOG", "warn")], others].concat();
            for command in ["serve", "migrate"] {
                if command == "migrate" && !others.is_empty() {
                    continue;
                }
                let arguments = if command == "serve" { vec!["serve"] } else { vec!["migrate", "run"] };
                let (code, _, err) = soon("the command ends", identity(&arguments, &variables)).await;
                assert_eq!(code, Some(1), "{command} {url}: {err}");
                let told = err.lines().find(|line| line.starts_with("identity: ")).expect(&err);
                let named = [path.as_path(), path.parent().unwrap()];
                assert!(named.iter().any(|path| told.contains(path.to_str().unwrap())), "{url}: {err}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_ends_the_start_with_the_address() {
    let database = TestDatabase::empty(Engine::Sqlite);
    let first = Process::start(variables(&database.url, &[])).await;
    let address = first.address.to_string();
    let (code, out, err) = identity(&[], &variables(&database.url, &[("IDENTITY_LISTEN", &address)])).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains(&format!("cannot listen on {address} (IDENTITY_LISTEN): ")), "{err}");
}
