//! How a server stops: in order, in time, and leaving nothing behind.

use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{
    Barrier, Health, SLOW_HASHES, backends, checks_under_way, eventually, soon, sqlite_leftovers, variables,
    waiting_write,
};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(
    sigterm_lets_calls_in_flight_end_and_leaves_nothing_behind,
    sigint_lets_calls_in_flight_end_and_leaves_nothing_behind,
    a_write_that_outlasts_the_drain_does_not_hold_up_the_exit,
    sockets_watches_and_idle_connections_do_not_hold_up_the_exit,
    during_the_delay_readiness_is_off_and_calls_succeed_until_a_second_signal,
    signals_that_come_at_once_are_one,
);

/// A ready server with one registered user.
async fn served(engine: Engine, others: &[(&'static str, &str)]) -> (TestDatabase, Process, Client) {
    let database = TestDatabase::migrated(engine).await;
    let mut process = Process::start(variables(&database.url, others)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();
    // What it logged is there, so that what comes behind it is the next call's.
    eventually("the registration is logged", async || process.log().contains("call finished")).await;
    (database, process, client)
}

async fn sigterm_lets_calls_in_flight_end_and_leaves_nothing_behind(engine: Engine) {
    stops_in_order(engine, "TERM").await;
}

async fn sigint_lets_calls_in_flight_end_and_leaves_nothing_behind(engine: Engine) {
    stops_in_order(engine, "INT").await;
}

async fn stops_in_order(engine: Engine, signal: &str) {
    let (database, process, client) = served(engine, &SLOW_HASHES).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await })
        })
        .collect();
    checks_under_way(&database, 4).await;
    let barrier = Barrier::raise(&database).await;
    process.signal(signal);
    eventually("nobody is let in", async || TcpStream::connect(process.address).await.is_err()).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    barrier.lower();
    for call in calls {
        soon("the call ends", call).await.unwrap().unwrap();
    }
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 5);
    assert_nothing_is_left(&database).await;
}

async fn assert_nothing_is_left(database: &TestDatabase) {
    if database.postgres.is_some() {
        eventually("the sessions are closed", async || backends(database) == 0).await;
    } else {
        assert_eq!(sqlite_leftovers(database), [""; 0]);
    }
}

/// Asserts that `line` was written to standard error. It need not be the last one: calls that were cut
/// off are logged by other threads.
fn assert_says(log: &str, line: &str) {
    assert!(log.lines().any(|said| said == line), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_longer_than_the_drain_is_cut_off() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    // A hash at cost 14 takes a second: longer than the drain, shorter than the call's deadline.
    let others =
        [("IDENTITY_BCRYPT_COST", "14"), ("IDENTITY_DRAIN_TIMEOUT", "200ms"), ("IDENTITY_LOG", "debug")];
    let mut process = Process::start(variables(&database.url, &others)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let before = process.log().len();
    let call = tokio::spawn(async move { client.login("nobody@example.com", PASSWORD).await });
    eventually("the call is in flight", async || process.log()[before..].contains("login_names")).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the time to drain was over before these calls ended"), "{log}");
    // Not the reply that the hash would have led to.
    assert_ne!(call.await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(sqlite_leftovers(&database), [""; 0]);
}

async fn a_write_that_outlasts_the_drain_does_not_hold_up_the_exit(engine: Engine) {
    let (database, process, client) =
        served(engine, &[("IDENTITY_DRAIN_TIMEOUT", "200ms"), ("IDENTITY_LOG", "debug")]).await;
    let barrier = Barrier::raise(&database).await;
    let before = process.log().len();
    let call = tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await });
    eventually("the write waits", async || process.log()[before..].contains(waiting_write(engine))).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert_says(&log, "identity: the time to drain was over before all writes had ended");
    assert!(call.await.unwrap().is_err());
    barrier.lower();
    eventually("the write is gone", async || database.postgres.is_none() || backends(&database) == 0).await;
    // What was not acknowledged is not there.
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_get_no_time_beyond_that_of_the_drain() {
    // PostgreSQL gives the write up after this time, and before twice of it.
    let others =
        [("IDENTITY_DRAIN_TIMEOUT", "6s"), ("IDENTITY_STATEMENT_TIMEOUT", "11s"), ("IDENTITY_LOG", "debug")];
    let (database, process, client) = served(Engine::Postgres, &others).await;
    let _barrier = Barrier::raise(&database).await;
    let before = process.log().len();
    let call = tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await });
    let waiting = waiting_write(Engine::Postgres);
    eventually("the write waits", async || process.log()[before..].contains(waiting)).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert_says(&log, "identity: the time to drain was over before all writes had ended");
    assert!(call.await.unwrap().is_err());
}

async fn sockets_watches_and_idle_connections_do_not_hold_up_the_exit(engine: Engine) {
    let (database, process, client) = served(engine, &[("IDENTITY_DRAIN_TIMEOUT", "10m")]).await;
    let silent = TcpStream::connect(process.address).await.unwrap();
    let mut watch = Health::of(process.address).await.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    process.signal("TERM");
    watch.becomes(ServingStatus::NotServing).await;
    watch.ends().await;
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    drop((silent, client));
    assert_nothing_is_left(&database).await;
}

async fn during_the_delay_readiness_is_off_and_calls_succeed_until_a_second_signal(engine: Engine) {
    let (_database, process, client) = served(engine, &[("IDENTITY_DRAIN_DELAY", "10m")]).await;
    let health = Health::of(process.address).await;
    let mut watch = health.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    process.signal("TERM");
    watch.becomes(ServingStatus::NotServing).await;
    let late = Health::of(process.address).await;
    late.assert(ServingStatus::NotServing).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    Client::new(&format!("http://{}", process.address)).login("ada@example.com", PASSWORD).await.unwrap();

    let (status, log) = soon("the server ends", process.interrupted()).await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert_says(&log, "identity: stopped by a second signal, before the calls in flight had ended");
}

/// Ctrl-C in a terminal is for all processes of the group, and a parent may send a signal of its own.
async fn signals_that_come_at_once_are_one(engine: Engine) {
    let (_database, process, client) = served(engine, &[("IDENTITY_DRAIN_DELAY", "10m")]).await;
    let mut watch = Health::of(process.address).await.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    process.signals(&["INT", "TERM", "TERM"]);
    watch.becomes(ServingStatus::NotServing).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    let (status, log) = soon("the server ends", process.interrupted()).await;
    assert_eq!(status.code(), Some(1), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_neither_the_server_nor_its_drain() {
    let (database, process, client) = served(Engine::Sqlite, &[("IDENTITY_DRAIN_DELAY", "10m")]).await;
    process.signal("HUP");
    eventually("it is told", async || process.log().contains("SIGHUP")).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    let mut watch = Health::of(process.address).await.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    process.signal("TERM");
    watch.becomes(ServingStatus::NotServing).await;
    process.signal("HUP");
    eventually("it is told", async || process.log().matches("SIGHUP").count() == 2).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    drop((process, database));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_ends_by_itself() {
    let (database, process, _client) =
        served(Engine::Sqlite, &[("IDENTITY_DRAIN_DELAY", "300ms"), ("IDENTITY_DRAIN_TIMEOUT", "10m")]).await;
    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(sqlite_leftovers(&database), [""; 0]);
}
