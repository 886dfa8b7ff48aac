//! A database that answers and is not one to work with: told at the start, and no outage later.

use tokio::task::block_in_place;
use tokio_postgres::NoTls;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt as _;

use super::clients::{Health, eventually, soon, variables};
use crate::support::pooler::Pooler;
use crate::support::postgres::Cluster;
use crate::support::process::{Process, identity};
use crate::support::service::{Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration};

on_both_databases!(
    a_column_that_is_missing_is_an_internal_error_and_nothing_to_retry,
    a_column_that_is_missing_ends_the_start,
    a_migration_of_a_newer_release_is_told_at_the_start,
);

async fn a_column_that_is_missing_is_an_internal_error_and_nothing_to_retry(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
    service.database.execute("ALTER TABLE users RENAME COLUMN first_name TO given_name");
    let refused = client.get_user(Some(&token), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    assert!(refused.get_details_retry_info().is_none(), "{refused:?}");
}

/// The server does not come up on `url`, says `words`, and does not wait for anything.
async fn assert_start_ends(url: &str, words: &[&str]) {
    let (code, _, err) = soon("the start ends", identity(&[], &variables(url, &[]))).await;
    assert_eq!(code, Some(1), "{err}");
    let told = err.lines().find(|line| line.starts_with("identity: ")).expect(&err);
    assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
}

async fn a_column_that_is_missing_ends_the_start(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    database.execute("ALTER TABLE users RENAME COLUMN first_name TO given_name");
    assert_start_ends(&database.url, &["schema", "first_name"]).await;
}

async fn a_migration_of_a_newer_release_is_told_at_the_start(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')");
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let log = process.log();
    assert!(log.contains("migrated by a newer release") && log.contains("29991231000000"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_other_than_utf8_ends_the_start() {
    let database =
        block_in_place(|| Cluster::shared().create_database_from("template0 ENCODING 'SQL_ASCII'"));
    assert_start_ends(&database.url, &["SQL_ASCII", "UTF8"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_ends_the_start() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    assert_start_ends(&format!("{}_absent", database.url), &["no database of this name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_connections_by_transaction_ends_the_start_with_what_to_do() {
    let migrated = TestDatabase::migrated(Engine::Postgres).await;
    let empty = TestDatabase::empty(Engine::Postgres);
    for database in [&migrated, &empty] {
        for query in ["", "?schema=public"] {
            let name = database.postgres.as_ref().unwrap().name();
            let pooler = Pooler::start(Cluster::shared().addr(), name).await;
            let url = format!("postgres://identity@{}/{name}{query}", pooler.addr());
            assert_start_ends(&url, &["pooler", "pool_mode to session"]).await;
        }
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'users'";
    assert_eq!(empty.number(tables), 0, "nothing was migrated through it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_refuses_options_of_the_url_ends_the_start_with_what_to_do() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let name = database.postgres.as_ref().unwrap().name();
    let pooler = Pooler::start(Cluster::shared().addr(), name).await;
    let url = format!("postgres://identity@{}/{name}?options=-c%20search_path%3Dpublic", pooler.addr());
    assert_start_ends(&url, &["pooler", "`options`", "ALTER ROLE"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_say_that_they_wait_for_another_process_that_migrates() {
    let database = TestDatabase::empty(Engine::Postgres);
    let (blocker, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = i64::from_be_bytes(*b"identity");
    blocker.batch_execute(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Process::start(variables(&database.url, &[])).await);
    }
    for process in &processes {
        let says_so = async || process.log().contains("another process migrates the database");
        eventually("it says so", says_so).await;
        let health = Health::of(process.address).await;
        assert_eq!(health.check("liveness").await.unwrap(), ServingStatus::Serving);
        assert_eq!(health.check("readiness").await.unwrap(), ServingStatus::NotServing);
    }
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually("both wait", async || database.number(waiting) == 2).await;
    blocker.batch_execute(&format!("SELECT pg_advisory_unlock({lock})")).await.unwrap();
    for process in &mut processes {
        soon("the server is ready", process.examples()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_another_process_that_migrates_no_longer_than_it_is_told() {
    let database = TestDatabase::empty(Engine::Postgres);
    let (blocker, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = i64::from_be_bytes(*b"identity");
    blocker.batch_execute(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();
    let variables = [("DATABASE_URL", database.url.as_str()), ("IDENTITY_MIGRATION_WAIT", "1s")];
    let migrate = async || soon("the command ends", identity(&["migrate", "run"], &variables)).await;
    let (code, _, err) = migrate().await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("another process has held the lock for migrations for 1s"), "{err}");
    blocker.batch_execute(&format!("SELECT pg_advisory_unlock({lock})")).await.unwrap();
    let (code, _, err) = migrate().await;
    assert_eq!(code, Some(0), "{err}");
}

/// A migration of a newer release may change columns while an older server serves.
#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_prepared_statements_a_migration_made_stale_succeed() {
    let service = TestService::start(Engine::Postgres).await;
    let client = service.client();
    let registered = client.register(registration("ada@example.com")).await.unwrap();
    let (token, mut refresh_token) = (registered.access_token, registered.refresh_token);
    for column_type in ["varchar", "text", "varchar"] {
        for _ in 0..2 {
            client.get_user(Some(&token), "").await.unwrap();
            client.login("ada@example.com", PASSWORD).await.unwrap();
            refresh_token = client.refresh(&refresh_token).await.unwrap().refresh_token;
        }
        service.database.execute(&format!(
            "ALTER TABLE users ALTER COLUMN first_name TYPE {column_type},
                               ALTER COLUMN last_name TYPE {column_type};
             ALTER TABLE passwords ALTER COLUMN hash TYPE {column_type}"
        ));
    }
}
