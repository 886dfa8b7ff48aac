//! Connections: whose turn it is, what becomes of them when the database is away, and who needs none.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use identity::budget::GateUsage;
use identity::domain::{Party, Source};
use identity::storage::{self, Lane, StorageError};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::{Fixture, LONG, insert_tenant, is_done_at_once, open, open_with_limit, user};
use crate::sql::Outside;
use crate::support::postgres::Cluster;
use crate::support::service::{Engine, TestDatabase, on_both_databases};
use crate::support::wait::eventually;

/// What operation has by default.
const STATEMENT_LIMIT: Duration = Duration::from_millis(1_500);

on_both_databases!(
    connections_are_had_in_the_order_of_asking,
    whoever_leaves_the_queue_is_not_waited_for,
    more_tasks_than_connections_all_get_their_turn,
    the_usage_tells_who_has_a_connection_and_who_waits_for_one,
    a_probe_needs_none_of_the_connections_that_calls_use,
    a_probe_fails_where_nothing_was_migrated,
);

async fn connections_are_had_in_the_order_of_asking(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    let held = fixture.begin().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = JoinSet::new();
    for n in 0..50 {
        let (storage, order) = (fixture.storage.clone(), Arc::clone(&order));
        let mut one = Box::pin(async move {
            let _tx = storage.begin("test").await.unwrap();
            order.lock().unwrap().push(n);
        });
        assert!(!is_done_at_once(&mut one).await, "it queues");
        waiting.spawn(one);
    }
    drop(held);
    timeout(LONG, waiting.join_all()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

async fn whoever_leaves_the_queue_is_not_waited_for(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    let held = fixture.begin().await;
    let mut leaving = Vec::new();
    for _ in 0..50 {
        let storage = fixture.storage.clone();
        let mut one = Box::pin(async move { storage.begin("test").await.map(drop) });
        assert!(!is_done_at_once(&mut one).await, "it queues");
        leaving.push(one);
    }
    drop(leaving);
    drop(held);
    timeout(LONG, fixture.begin()).await.unwrap();
}

async fn more_tasks_than_connections_all_get_their_turn(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    let mut tasks = JoinSet::new();
    for n in 0..100 {
        let storage = fixture.storage.clone();
        tasks.spawn(async move {
            let mut tx = storage.begin("test").await.unwrap();
            insert_tenant(&mut tx, &user(n).tenant).await.unwrap();
            tx.commit().await.unwrap();
            let mut conn = storage.read().await.unwrap();
            storage::users::find(&mut conn, user(n).tenant.id, user(n).id).await.unwrap()
        });
    }
    assert_eq!(timeout(LONG, tasks.join_all()).await.unwrap().len(), 100);
    assert_eq!(fixture.outside().await.count("tenants").await, 100);
}

async fn the_usage_tells_who_has_a_connection_and_who_waits_for_one(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    let name = if engine == Engine::Sqlite { "writes" } else { "operators" };
    let usage = || {
        let usage = fixture.storage.usage().into_iter().find(|usage| usage.name == name).unwrap();
        let GateUsage { in_use, limit, waiting, .. } = usage.calls;
        (usage.open, in_use, limit, waiting)
    };
    let held = fixture.begin().await;
    let mut two: Vec<_> = (0..2).map(|_| Box::pin(fixture.storage.begin("test"))).collect();
    for one in &mut two {
        assert!(!is_done_at_once(one).await, "it queues");
    }
    assert_eq!(usage(), (1, 1, 1, 2));
    drop(two.pop());
    assert_eq!(usage(), (1, 1, 1, 1));
    drop(held);
    let tx = timeout(LONG, two.pop().unwrap()).await.unwrap().unwrap();
    assert_eq!(usage(), (1, 1, 1, 0));
    tx.commit().await.unwrap();
    assert_eq!(usage(), (1, 0, 1, 0));
}

async fn a_probe_needs_none_of_the_connections_that_calls_use(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 4).await;
    // What SQLite's pool has is no setting.
    let connections = if engine == Engine::Sqlite { 16 } else { 4 };
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(fixture.storage.reader(Lane::Reads, host(held.len())).await.unwrap());
    }
    let storage = fixture.storage.clone();
    let mut next = Box::pin(async move { storage.reader(Lane::Reads, host(99)).await.map(drop) });
    assert!(!is_done_at_once(&mut next).await, "all are in use");
    timeout(LONG, fixture.storage.probe()).await.expect("it need not queue").unwrap();
}

async fn a_probe_fails_where_nothing_was_migrated(engine: Engine) {
    let database = TestDatabase::empty(engine);
    assert!(open(&database, 1).probe().await.is_err());
}

/// One of many hosts.
fn host(n: usize) -> Party {
    Party::Address(Source::of(Some([192, 0, 2, u8::try_from(n).unwrap()].into())))
}

/// The server's processes that serve a database's pool.
async fn backends(outside: &mut Outside) -> Vec<String> {
    let sql = "SELECT pid::text AS cell FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid";
    outside.texts(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let fixture = Fixture::with_connections(Engine::Postgres, 2).await;
    fixture.register(&user(1)).await;
    let mut outside = fixture.outside().await;
    let before = backends(&mut outside).await;
    for n in 2..20 {
        fixture.register(&user(n)).await;
        let mut tx = fixture.begin().await;
        assert!(insert_tenant(&mut tx, &user(n).tenant).await.is_err());
        let mut tx = fixture.begin().await;
        storage::tenants::insert(&mut tx, &user(n).tenant).await.unwrap();
        assert!(tx.commit().await.is_err());
    }
    let after = backends(&mut outside).await;
    assert!(before.len() == 1 && after.contains(&before[0]) && after.len() <= 2, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_too_long_fails_and_its_connection_serves_on() {
    // Long enough that the fifth of it by which the server is ahead is more than a busy machine needs.
    let fixture = Fixture::with_limit(Duration::from_secs(6)).await;
    fixture.register(&user(1)).await;
    let mut outside = fixture.outside().await;
    let before = backends(&mut outside).await;
    outside.run("BEGIN; LOCK TABLE tenants").await;
    let mut tx = fixture.begin().await;
    let refused = insert_tenant(&mut tx, &user(2).tenant).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
    drop(tx);
    outside.run("COMMIT").await;
    fixture.register(&user(2)).await;
    assert_eq!(backends(&mut outside).await, before, "the server ended the statement, not the connection");
}

/// Each has the time for itself, and the connection serves on.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_sent_together_wait_one_after_the_other() {
    // A lock is waited for for two seconds, and an answer for 3.6.
    let fixture = Fixture::with_limit(Duration::from_secs(3)).await;
    let users = [user(1), user(2), user(3)];
    for user in &users {
        fixture.register(user).await;
    }
    let before = backends(&mut fixture.outside().await).await;
    let mut blockers = Vec::new();
    for user in &users {
        let mut blocker = fixture.outside().await;
        blocker.run(&format!("BEGIN; SELECT 1 FROM users WHERE id = '{}' FOR UPDATE", user.id)).await;
        blockers.push(blocker);
    }
    let mut tx = fixture.begin().await;
    for user in &users {
        let lock = storage::users::UserLock::Change;
        storage::users::lock(&mut tx, user.tenant.id, user.id, lock).await.unwrap();
    }
    let unblock = async {
        for mut blocker in blockers {
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            blocker.run("COMMIT").await;
        }
    };
    let (locked, ()) = tokio::join!(tx.flush(), unblock);
    locked.unwrap();
    tx.commit().await.unwrap();
    fixture.register(&user(4)).await;
    let after = backends(&mut fixture.outside().await).await;
    assert!(before.iter().all(|backend| after.contains(backend)), "{before:?} {after:?}");
}

/// A lock that one waits for is no sign that the database is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_too_long_does_not_send_those_away_who_queue() {
    let fixture = Fixture::with_limit(Duration::from_secs(6)).await;
    fixture.register(&user(1)).await;
    let mut outside = fixture.outside().await;
    let mut tx = fixture.begin().await;
    let storage = fixture.storage.clone();
    let mut queued = Box::pin(async move {
        let mut conn = storage.read().await?;
        storage::signing_keys::list(&mut conn).await
    });
    assert!(!is_done_at_once(&mut queued).await);
    let queued = tokio::spawn(queued);
    outside.run("BEGIN; LOCK TABLE tenants").await;
    assert!(insert_tenant(&mut tx, &user(2).tenant).await.is_err());
    drop(tx);
    assert_eq!(queued.await.unwrap().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_queue_learn_at_once_that_the_database_is_away() {
    let away = Away::new(1).await;
    let mut tx = away.storage.begin("test").await.unwrap();
    let mut queued = JoinSet::new();
    for _ in 0..20 {
        let storage = away.storage.clone();
        let mut one = Box::pin(async move { storage.begin("test").await.map(drop) });
        assert!(!is_done_at_once(&mut one).await);
        queued.spawn(one);
    }
    away.cluster.pause();
    let failed = insert_tenant(&mut tx, &user(1).tenant).await;
    assert!(matches!(failed, Err(StorageError::Unavailable(_))), "{failed:?}");
    // The connection is still held: nobody's turn has come.
    for outcome in timeout(LONG, queued.join_all()).await.unwrap() {
        let Err(StorageError::Unavailable(why)) = &outcome else { panic!("{outcome:?}") };
        // Not that all were busy, which they would have heard later.
        assert_eq!(why, "the database does not answer");
    }
    drop(tx);
    away.cluster.resume();
    eventually("the database is back", async || away.storage.probe().await.is_ok()).await;
    eventually("calls are served", async || away.storage.begin("test").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_statement_was_given_up_is_not_used_again() {
    let away = Away::new(1).await;
    away.storage.begin("test").await.unwrap().commit().await.unwrap();
    let mut outside = Outside::connect(&away.database).await;
    let before = backends(&mut outside).await;
    away.cluster.pause();
    let mut conn = away.storage.read().await.unwrap();
    let failed = storage::users::find(&mut conn, user(1).tenant.id, user(1).id).await;
    assert!(matches!(failed, Err(StorageError::Unavailable(_))), "{failed:?}");
    drop(conn);
    away.cluster.resume();
    eventually("calls are served", async || away.storage.begin("test").await.is_ok()).await;
    eventually("the old connection is closed", async || {
        let now = backends(&mut outside).await;
        now.len() == 1 && now != before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_connections_is_told_from_one_that_is_slow() {
    let away = Away::new(2).await;
    away.storage.begin("test").await.unwrap().commit().await.unwrap();
    away.cluster.crash();
    eventually("the pool notices", async || {
        let began = Instant::now();
        let refused = away.storage.begin("test").await.map(drop);
        let Err(StorageError::Unavailable(why)) = &refused else { panic!("{refused:?}") };
        // At once, and with the cause, for whoever reads the log.
        began.elapsed() < Duration::from_millis(1_000) && why.contains("refuses connections")
    })
    .await;
    away.cluster.restart();
    eventually("calls are served", async || away.storage.begin("test").await.is_ok()).await;
}

/// A server that is no longer the primary keeps its connections and refuses their writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_can_only_read_is_not_used_to_write_again() {
    let fixture = Fixture::with_connections(Engine::Postgres, 1).await;
    let mut outside = fixture.outside().await;
    let name = outside.texts("SELECT current_database() AS cell").await.remove(0);
    outside.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let mut tx = fixture.begin().await;
    let refused = insert_tenant(&mut tx, &user(1).tenant).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
    drop(tx);
    outside.run(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    fixture.register(&user(1)).await;
}

/// One failure to open a file must not be held against a database for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_file_that_could_not_be_opened_once_is_waited_for_again() {
    let mut database = TestDatabase::empty(Engine::Sqlite);
    let folder = database.folder.path().join("later");
    database.url = format!("sqlite:{}", folder.join("identity.db").display());
    let storage = open(&database, 1);
    let failed = storage.begin("test").await.map(drop);
    let Err(StorageError::Unavailable(why)) = failed else { panic!("{failed:?}") };
    assert!(why.contains("cannot open the SQLite file"), "{why}");
    std::fs::create_dir(&folder).unwrap();
    storage::migrate::run(&database.parsed(), LONG).await.unwrap();

    let held = storage.begin("test").await.unwrap();
    let mut queued = Box::pin(async { storage.begin("test").await });
    assert!(!is_done_at_once(&mut queued).await, "it waits for its turn");
    held.commit().await.unwrap();
    queued.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_file_and_its_log_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.register(&user(1)).await;
    for name in ["identity.db", "identity.db-wal", "identity.db-shm"] {
        let file = std::fs::metadata(fixture.database.folder.path().join(name)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_sqlite_database_is_one_file() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.register(&user(1)).await;
    assert!(fixture.can_log_in(&user(1)).await);
    let Fixture { storage, database } = fixture;
    drop(storage);
    let path = database.folder.path();
    eventually("the log is written back", async || {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
            == ["identity.db"]
    })
    .await;
    assert_eq!(Outside::connect(&database).await.count("login_names").await, 1);
}

/// A database whose server a test takes away.
struct Away {
    storage: storage::Storage,
    database: TestDatabase,
    cluster: Cluster,
}

impl Away {
    async fn new(connections: u32) -> Self {
        let cluster = tokio::task::block_in_place(Cluster::start);
        let postgres = tokio::task::block_in_place(|| cluster.create_database());
        let url = postgres.url.clone();
        let database = TestDatabase { url, folder: tempfile::tempdir().unwrap(), postgres: Some(postgres) };
        storage::migrate::run(&database.parsed(), LONG).await.unwrap();
        let storage = open_with_limit(&database, connections, STATEMENT_LIMIT);
        Self { storage, database, cluster }
    }
}

/// A back end that is stopped costs the call that is on it, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn one_frozen_back_end_fails_one_call() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let storage = open_with_limit(&database, 5, STATEMENT_LIMIT);
    let look_up = async |storage: &storage::Storage, n: usize| {
        let mut conn = storage.reader(Lane::Reads, host(n)).await?;
        storage::signing_keys::list(&mut conn).await.map(drop)
    };
    let mut outside = Outside::connect(&database).await;
    let held: Vec<_> = {
        let mut held = Vec::new();
        for n in 0..5 {
            held.push(storage.reader(Lane::Reads, host(n)).await.unwrap());
        }
        held
    };
    drop(held);
    let frozen = Pid::from_raw(backends(&mut outside).await[0].parse().unwrap()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let storage = storage.clone();
        calls.spawn(async move { look_up(&storage, n % 20).await });
    }
    let outcomes = timeout(LONG, calls.join_all()).await;
    kill_process(frozen, Signal::CONT).unwrap();
    let failed: Vec<_> = outcomes.unwrap().into_iter().filter_map(Result::err).collect();
    assert!(failed.len() <= 1, "{failed:?}");
}

/// Where PostgreSQL takes no more connections, those that are open serve all.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_opened_are_done_without() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut outside = fixture.outside().await;
    let name = outside.texts("SELECT current_database() AS cell").await.remove(0);
    // Superusers know no limit.
    outside
        .run(&format!(
            "CREATE ROLE {name}_few LOGIN CONNECTION LIMIT 3; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}_few"
        ))
        .await;
    let url = fixture.database.url.replacen("identity@", &format!("{name}_few@"), 1);
    let few = TestDatabase { url, ..fixture.database.again() };
    let storage = open_with_limit(&few, 10, STATEMENT_LIMIT);
    drop(storage.reader(Lane::Reads, host(0)).await.unwrap());
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let storage = storage.clone();
        calls.spawn(async move {
            let mut conn = storage.reader(Lane::Reads, host(n % 20)).await?;
            storage::signing_keys::list(&mut conn).await.map(drop)
        });
    }
    for outcome in timeout(LONG, calls.join_all()).await.unwrap() {
        outcome.unwrap();
    }
    drop(storage);
    eventually("its connections are closed", async || {
        let open =
            format!("SELECT count(*)::text AS cell FROM pg_stat_activity WHERE usename = '{name}_few'");
        outside.texts(&open).await == ["0"]
    })
    .await;
    outside.run(&format!("DROP OWNED BY {name}_few; DROP ROLE {name}_few")).await;
}

/// A server that has no room for the probe's connection is no bad health while calls are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_does_without_a_connection_of_its_own_where_the_server_has_no_room() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut outside = fixture.outside().await;
    let name = outside.texts("SELECT current_database() AS cell").await.remove(0);
    outside
        .run(&format!(
            "CREATE ROLE {name}_one LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}_one"
        ))
        .await;
    let url = fixture.database.url.replacen("identity@", &format!("{name}_one@"), 1);
    let storage = open_with_limit(&TestDatabase { url, ..fixture.database.again() }, 1, STATEMENT_LIMIT);
    let mut held = storage.reader(Lane::Reads, host(0)).await.unwrap();
    storage::signing_keys::list(&mut held).await.unwrap();
    storage.probe().await.expect("a call was just answered");
    drop(held);
    for _ in 0..3 {
        storage.probe().await.expect("a connection for look-ups is free");
    }
    drop(storage);
    outside.run(&format!("DROP OWNED BY {name}_one")).await;
}

/// Those who leave in the middle of a statement leave no process of the server behind.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_leave_under_a_lock_keep_the_limit_of_connections() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    // Nothing ends for want of time.
    let storage = open_with_limit(&database, 2, LONG * 10);
    let mut blocker = Outside::connect(&database).await;
    let mut outside = Outside::connect(&database).await;
    let hold_two = async |lane| {
        let held =
            [storage.reader(lane, host(0)).await.unwrap(), storage.reader(lane, host(1)).await.unwrap()];
        drop(held);
    };
    hold_two(Lane::Reads).await;
    hold_two(Lane::Operators).await;
    let before = backends(&mut outside).await;
    blocker.run("BEGIN; LOCK TABLE signing_keys; LOCK TABLE tenants").await;
    let waiting = "SELECT count(*)::text AS cell FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for n in 0..10 {
        let (reading, writing) = (storage.clone(), storage.clone());
        let read = tokio::spawn(async move {
            let mut conn = reading.reader(Lane::Reads, host(n)).await.unwrap();
            let _ = storage::signing_keys::list(&mut conn).await;
        });
        let write = tokio::spawn(async move {
            let mut tx = writing.begin("test").await.unwrap();
            let _ = insert_tenant(&mut tx, &user(1).tenant).await;
        });
        eventually("both wait", async || outside.texts(waiting).await == ["2"]).await;
        read.abort();
        write.abort();
        eventually("none waits", async || outside.texts(waiting).await == ["0"]).await;
        let now = backends(&mut outside).await;
        assert!(now.iter().all(|backend| before.contains(backend)), "{before:?} {now:?}");
    }
}
