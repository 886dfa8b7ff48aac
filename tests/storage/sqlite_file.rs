//! The SQLite file, or what lies beside it, goes away while it is in use.

use std::fs;
use std::path::{Path, PathBuf};

use identity::storage::{StorageError, migrate};

use crate::fixture::{Fixture, LONG, open, register, user};
use crate::support::service::{Engine, TestDatabase};

fn path(database: &TestDatabase) -> PathBuf {
    database.folder.path().join("identity.db")
}

/// The file beside the database's whose name ends so.
fn beside(database: &TestDatabase, suffix: &str) -> PathBuf {
    database.folder.path().join(format!("identity.db{suffix}"))
}

#[track_caller]
fn assert_unavailable<T>(outcome: Result<T, StorageError>, expected: &str) {
    match outcome {
        Err(StorageError::Unavailable(why)) => assert!(why.contains(expected), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was acknowledged"),
    }
}

/// Asserts that nothing is begun, nothing is read once the probe has looked, and nothing is made.
async fn assert_lost(fixture: &Fixture, expected: &str) {
    assert_unavailable(fixture.storage.begin("test").await, expected);
    assert_unavailable(fixture.storage.probe().await, expected);
    assert_unavailable(fixture.storage.read().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_or_replaced_takes_no_writes_until_it_is_back() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.register(&user(1)).await;
    let (path, elsewhere) = (path(&fixture.database), beside(&fixture.database, ".moved"));

    fs::rename(&path, &elsewhere).unwrap();
    assert_lost(&fixture, "identity.db was moved or deleted while it was in use").await;
    assert!(!path.exists(), "another file was made");

    fs::copy(&elsewhere, &path).unwrap();
    assert_lost(&fixture, "identity.db was replaced by another file while it was in use").await;

    fs::rename(&elsewhere, &path).unwrap();
    fixture.storage.probe().await.unwrap();
    fixture.register(&user(2)).await;
    assert!(fixture.can_log_in(&user(1)).await && fixture.can_log_in(&user(2)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_work_whose_file_goes_away_is_not_acknowledged_and_leaves_nothing() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let (path, elsewhere) = (path(&fixture.database), beside(&fixture.database, ".moved"));
    let mut tx = fixture.begin().await;
    register(&mut tx, &user(1)).await.unwrap();
    fs::rename(&path, &elsewhere).unwrap();
    assert_unavailable(tx.commit().await, "was moved or deleted");
    fs::rename(&elsewhere, &path).unwrap();
    assert!(!fixture.can_log_in(&user(1)).await);
    fixture.register(&user(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_or_an_index_that_was_deleted_takes_no_writes() {
    for suffix in ["-wal", "-shm"] {
        let fixture = Fixture::new(Engine::Sqlite).await;
        fixture.register(&user(1)).await;
        let mut tx = fixture.begin().await;
        register(&mut tx, &user(2)).await.unwrap();
        fs::remove_file(beside(&fixture.database, suffix)).unwrap();
        let expected = format!("identity.db{suffix} was moved or deleted");
        assert_unavailable(tx.commit().await, &expected);
        assert_lost(&fixture, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_log_was_deleted_is_written_back_at_the_end() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.register(&user(1)).await;
    fs::remove_file(beside(&fixture.database, "-wal")).unwrap();
    fixture.storage.close().await;
    let again = Fixture { storage: open(&fixture.database, 1), database: fixture.database };
    assert!(again.can_log_in(&user(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_file_is_as_good_as_the_file() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let folder = database.folder.path().join("data");
    fs::create_dir(&folder).unwrap();
    fs::rename(path(&database), folder.join("real.db")).unwrap();
    std::os::unix::fs::symlink(Path::new("data/real.db"), path(&database)).unwrap();
    let fixture = Fixture { storage: open(&database, 1), database };
    fixture.register(&user(1)).await;
    fixture.storage.probe().await.unwrap();
    assert!(folder.join("real.db-wal").exists());
    fs::remove_file(folder.join("real.db-wal")).unwrap();
    assert_lost(&fixture, "real.db-wal was moved or deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_migration_makes_a_file() {
    let database = TestDatabase::empty(Engine::Sqlite);
    let (url, path) = (database.parsed(), path(&database));
    let storage = open(&database, 1);
    assert_unavailable(storage.begin("test").await, "identity.db");
    assert_unavailable(storage.probe().await, "identity.db");
    assert!(!migrate::pending(&url).await.unwrap().is_empty());
    assert!(migrate::status(&url, LONG).await.unwrap().iter().all(|migration| !migration.applied));
    assert_eq!(migrate::revert(&url, LONG, 1).await.unwrap(), [""; 0]);
    assert!(!path.exists());
    migrate::run(&url, LONG).await.unwrap();
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_by_sqlite_has_all_that_was_acknowledged() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let copy = TestDatabase::empty(Engine::Sqlite);
    fixture.register(&user(1)).await;
    let sql = format!("VACUUM INTO '{}'", path(&copy).display());
    fixture.outside().await.run(&sql).await;
    assert!(migrate::pending(&copy.parsed()).await.unwrap().is_empty());
    let copied = Fixture { storage: open(&copy, 1), database: copy };
    assert!(copied.can_log_in(&user(1)).await);
}
