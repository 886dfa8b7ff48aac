//! Which failures of a database pass by themselves, and which do not.

use identity::domain::{Source, TenantName};
use identity::storage::{self, Inspection, Lane, StorageError, migrate};
use tokio::task::block_in_place;

use crate::fixture::{Fixture, LONG, insert_tenant, open, user};
use crate::support::postgres::Cluster;
use crate::support::service::{Engine, TestDatabase, on_both_databases};

on_both_databases!(
    a_column_that_is_missing_is_no_outage,
    a_migrated_database_is_in_order,
    a_migration_of_a_newer_release_is_told,
    a_migration_that_was_edited_after_it_ran_is_noticed,
);

/// The cause of an error that waiting does not heal.
fn lasting<T: std::fmt::Debug>(outcome: Result<T, StorageError>) -> String {
    let Err(StorageError::Refused(cause) | StorageError::Unsuitable(cause)) = outcome else {
        panic!("{outcome:?}")
    };
    cause
}

async fn a_column_that_is_missing_is_no_outage(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.outside().await.run("ALTER TABLE signing_keys RENAME COLUMN kid TO other").await;
    let mut conn = fixture.storage.read().await.unwrap();
    let cause = lasting(storage::signing_keys::list(&mut conn).await);
    assert!(cause.contains("kid"), "{cause}");
    drop(conn);
    let cause = lasting(fixture.storage.inspect().await);
    assert!(cause.contains("not this program's") && cause.contains("kid"), "{cause}");
}

async fn a_migrated_database_is_in_order(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert_eq!(fixture.storage.inspect().await.unwrap(), Inspection::default());
}

async fn a_migration_of_a_newer_release_is_told(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')";
    fixture.outside().await.run(sql).await;
    let found = Inspection { unknown: vec!["29991231000000".to_owned()], edited: Vec::new() };
    assert_eq!(fixture.storage.inspect().await.unwrap(), found);
}

async fn a_migration_that_was_edited_after_it_ran_is_noticed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut outside = fixture.outside().await;
    let recorded = "SELECT count(*) FROM __diesel_schema_migrations WHERE length(checksum) = 64";
    let all = "SELECT count(*) FROM __diesel_schema_migrations";
    let counts =
        outside.texts(&format!("SELECT CASE ({recorded}) WHEN ({all}) THEN 'all' END AS cell")).await;
    assert_eq!(counts, ["all"]);
    outside
        .run("UPDATE __diesel_schema_migrations SET checksum = 'another' WHERE version = '20261123000000'")
        .await;
    let edited = vec!["2026-11-23-000000_initial".to_owned()];
    assert_eq!(fixture.storage.inspect().await.unwrap(), Inspection { unknown: Vec::new(), edited });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_that_the_encoding_lacks_is_no_outage() {
    let postgres = block_in_place(|| Cluster::shared().create_database_from("template0 ENCODING 'LATIN1'"));
    let url = postgres.url.clone();
    let database = TestDatabase { url, folder: tempfile::tempdir().unwrap(), postgres: Some(postgres) };
    migrate::run(&database.parsed(), LONG).await.unwrap();
    let storage = open(&database, 1);
    let mut tx = storage.begin("test").await.unwrap();
    let mut tenant = user(1).tenant;
    tenant.name = TenantName::parse("株式会社").unwrap();
    let cause = lasting(insert_tenant(&mut tx, &tenant).await);
    assert!(cause.contains("22P05"), "{cause}");
    drop(tx);
    let cause = lasting(storage.inspect().await);
    assert!(cause.contains("LATIN1") && cause.contains("ENCODING 'UTF8'"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privilege_that_was_revoked_is_no_outage() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut outside = fixture.outside().await;
    let name = outside.texts("SELECT current_database() AS cell").await.remove(0);
    outside
        .run(&format!(
            "CREATE ROLE {name}_poor LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}_poor; \
             REVOKE INSERT ON tenants FROM {name}_poor"
        ))
        .await;
    let url = fixture.database.url.replacen("identity@", &format!("{name}_poor@"), 1);
    let storage = open(&TestDatabase { url, ..fixture.database.again() }, 1);
    let mut tx = storage.begin("test").await.unwrap();
    let cause = lasting(insert_tenant(&mut tx, &user(1).tenant).await);
    assert!(cause.contains("42501"), "{cause}");
    drop(tx);
    let cause = lasting(storage.inspect().await);
    assert!(cause.ends_with("grant it INSERT on tenants"), "{cause}");
    drop(storage);
    outside.run(&format!("DROP OWNED BY {name}_poor")).await;
}

/// A migration may change the columns of statements that are prepared on every connection.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_a_migration_made_stale_fail_once_and_are_prepared_anew() {
    let fixture = Fixture::with_connections(Engine::Postgres, 2).await;
    let party = identity::domain::Party::Address(Source::of(None));
    let reader = async || fixture.storage.reader(Lane::Reads, party).await.unwrap();
    let (mut first, mut second) = (reader().await, reader().await);
    for conn in [&mut first, &mut second] {
        storage::signing_keys::list(conn).await.unwrap();
    }
    drop((first, second));
    fixture.outside().await.run("ALTER TABLE signing_keys ALTER COLUMN kid TYPE varchar").await;
    let stale = storage::signing_keys::list(&mut reader().await).await;
    assert!(matches!(stale, Err(StorageError::Stale(_))), "{stale:?}");
    let (mut first, mut second) = (reader().await, reader().await);
    for conn in [&mut first, &mut second] {
        storage::signing_keys::list(conn).await.unwrap();
    }
}
