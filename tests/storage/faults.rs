//! Which failures of a database pass by themselves, and which do not.

use identity::domain::{Source, TenantName};
use identity::storage::{self, Lane, StorageError, migrate};
use tokio::task::block_in_place;

use crate::fixture::{Fixture, open, user};
use crate::support::postgres::Cluster;
use crate::support::service::{Engine, TestDatabase, on_both_databases};

on_both_databases!(a_column_that_is_missing_is_no_outage,);

/// The cause of an error that waiting does not heal.
fn lasting<T: std::fmt::Debug>(outcome: Result<T, StorageError>) -> String {
    let Err(StorageError::Refused(cause)) = outcome else { panic!("{outcome:?}") };
    cause
}

async fn a_column_that_is_missing_is_no_outage(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.outside().await.run("ALTER TABLE signing_keys RENAME COLUMN kid TO other").await;
    let mut conn = fixture.storage.read().await.unwrap();
    let cause = lasting(storage::signing_keys::list(&mut conn).await);
    assert!(cause.contains("kid"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_that_the_encoding_lacks_is_no_outage() {
    let postgres = block_in_place(|| Cluster::shared().create_database_from("template0 ENCODING 'LATIN1'"));
    let url = postgres.url.clone();
    let database = TestDatabase { url, folder: tempfile::tempdir().unwrap(), postgres: Some(postgres) };
    migrate::run(&database.parsed()).await.unwrap();
    let storage = open(&database, 1);
    let mut tx = storage.begin("test").await.unwrap();
    let mut tenant = user(1).tenant;
    tenant.name = TenantName::parse("株式会社").unwrap();
    let cause = lasting(storage::tenants::insert(&mut tx, &tenant).await);
    assert!(cause.contains("22P05"), "{cause}");
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
    let cause = lasting(storage::tenants::insert(&mut tx, &user(1).tenant).await);
    assert!(cause.contains("42501"), "{cause}");
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
    assert!(matches!(stale, Err(StorageError::Unavailable(_))), "{stale:?}");
    let (mut first, mut second) = (reader().await, reader().await);
    for conn in [&mut first, &mut second] {
        storage::signing_keys::list(conn).await.unwrap();
    }
}
