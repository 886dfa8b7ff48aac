//! The tools of the tests, tested.

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::postgres::{Cluster, Database};
use support::wire::{CountingProxy, Trace};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// Stands before what a process tells of its cluster.
const CLUSTER_MARK: &str = "the-cluster-is: ";

#[test]
fn a_database_sees_nothing_of_another_one() {
    let (one, other) = (Cluster::shared().create_database(), Cluster::shared().create_database());
    one.admin("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    assert_eq!(tables(&one), 1);
    assert_eq!(tables(&other), 0);
}

#[test]
fn a_database_starts_as_a_copy_of_its_template() {
    let template = Cluster::shared().create_database();
    template.admin("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (NULL)");
    let copy = Cluster::shared().create_database_from(template.name());
    copy.admin("INSERT INTO t VALUES (3)");
    assert_eq!(
        copy.admin("SELECT a FROM t ORDER BY a"),
        [[Some("1".to_owned())], [Some("3".to_owned())], [None]]
    );
    assert_eq!(template.admin("SELECT count(*) FROM t"), [[Some("2".to_owned())]]);
}

#[test]
fn a_database_goes_away_with_its_test() {
    let database = Cluster::shared().create_database();
    let query = format!("SELECT 1 FROM pg_database WHERE datname = '{}'", database.name());
    assert_eq!(Cluster::shared().admin(&query).len(), 1);
    drop(database);
    eventually("the database is dropped", || Cluster::shared().admin(&query).is_empty());
}

#[test]
fn a_cluster_ends_when_dropped() {
    let cluster = Cluster::start();
    let (folder, addr) = (cluster.folder().to_owned(), cluster.addr());
    assert!(folder.exists());
    drop(cluster);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn a_cluster_ends_when_its_process_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_uses_the_shared_cluster", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (addr, folder) = lines
        .map_while(Result::ok)
        .find_map(|line| {
            // The test runner may have begun the line.
            let (_, cluster) = line.rsplit_once(CLUSTER_MARK)?;
            let (addr, folder) = cluster.split_once(' ')?;
            Some((addr.to_owned(), folder.to_owned()))
        })
        .unwrap();
    assert!(std::net::TcpStream::connect(&addr).is_ok());
    assert!(Path::new(&folder).exists());

    child.kill().unwrap();
    child.wait().unwrap();

    eventually("the folder is removed", || !Path::new(&folder).exists());
    assert!(std::net::TcpStream::connect(&addr).is_err());
}

#[test]
#[ignore = "the other half of a_cluster_ends_when_its_process_is_killed"]
fn a_process_that_uses_the_shared_cluster() {
    let cluster = Cluster::shared();
    let _database = cluster.create_database();
    println!("{CLUSTER_MARK}{} {}", cluster.addr(), cluster.folder().display());
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn committed_rows_survive_a_stop_and_a_crash() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.admin("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    cluster.stop();
    assert!(std::net::TcpStream::connect(cluster.addr()).is_err());
    cluster.restart();
    database.admin("INSERT INTO t VALUES (2)");
    cluster.crash();
    assert!(std::net::TcpStream::connect(cluster.addr()).is_err());
    cluster.restart();
    assert_eq!(database.admin("SELECT count(*) FROM t"), [[Some("2".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_answers_after_the_pause() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    let client = connect(&database.url).await.unwrap();
    cluster.pause();
    let mut answer = std::pin::pin!(client.simple_query("SELECT 1"));
    assert!(timeout(SHORT, &mut answer).await.is_err());
    assert!(timeout(SHORT, connect(&database.url)).await.is_err());
    cluster.resume();
    timeout(LONG, answer).await.unwrap().unwrap();
}

#[test]
fn a_paused_cluster_ends_when_dropped() {
    let cluster = Cluster::start();
    let folder = cluster.folder().to_owned();
    cluster.pause();
    drop(cluster);
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_counts_round_trips_statements_and_transactions() {
    let (_database, proxy, mut client) = proxied().await;

    client.batch_execute("CREATE TABLE t (a int)").await.unwrap();
    assert_eq!(proxy.take(), trace(1, 1, &["CREATE TABLE t (a int)"]));

    let insert = client.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    assert_eq!(proxy.take(), trace(1, 0, &[]));

    client.execute(&insert, &[&1]).await.unwrap();
    client.execute(&insert, &[&2]).await.unwrap();
    let sql = "INSERT INTO t VALUES ($1)";
    assert_eq!(proxy.take(), trace(2, 2, &[sql, sql]));

    let transaction = client.transaction().await.unwrap();
    transaction.execute(&insert, &[&3]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(proxy.take(), trace(3, 1, &["START TRANSACTION", sql, "COMMIT"]));

    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("SAVEPOINT s").await.unwrap();
    client.batch_execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(
        proxy.take(),
        trace(5, 2, &["BEGIN", "SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "ROLLBACK", "SELECT 1"])
    );

    drop(insert);
    client.simple_query("SELECT 2").await.unwrap();
    assert_eq!(proxy.take(), trace(1, 1, &["SELECT 2"]), "nobody waits for the end of a statement");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_counts_messages_longer_than_its_buffer() {
    let (_database, proxy, client) = proxied().await;
    let sql = format!("SELECT length('{}')", "x".repeat(100_000));
    let row = client.query_one(&sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 100_000);
    assert_eq!(proxy.take(), trace(2, 1, &[&sql]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_prefers_encryption_is_counted_too() {
    let database = Cluster::shared().create_database();
    let proxy = CountingProxy::start(Cluster::shared().addr());
    let mut stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let url = database.url_via(proxy.addr());
    let config: tokio_postgres::Config = url.parse().unwrap();

    // As libpq does it: ask for encryption, be refused, go on in the clear.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'N');
    let (client, connection) = config.connect_raw(stream, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    assert_eq!(proxy.take(), trace(1, 1, &["SELECT 1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_closes_connections_and_refuses_new_ones_until_restored() {
    let (database, proxy, client) = proxied().await;
    assert_eq!(proxy.open(), 1);
    proxy.cut().await;
    assert_eq!(proxy.open(), 0);
    assert!(timeout(LONG, client.simple_query("SELECT 1")).await.unwrap().is_err());
    assert!(connect(&database.url_via(proxy.addr())).await.is_err());
    proxy.restore();
    let client = connect(&database.url_via(proxy.addr())).await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_proxy_answers_nothing_until_restored() {
    let (database, proxy, client) = proxied().await;
    proxy.freeze();
    let mut answer = std::pin::pin!(client.simple_query("SELECT 1"));
    assert!(timeout(SHORT, &mut answer).await.is_err());
    assert!(tokio::net::TcpStream::connect(proxy.addr()).await.is_ok());
    assert!(timeout(SHORT, connect(&database.url_via(proxy.addr()))).await.is_err());
    proxy.restore();
    timeout(LONG, answer).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_cluster_tells_its_clients() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    let client = connect(&database.url).await.unwrap();
    let answer = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    eventually("the query runs", || {
        let query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        cluster.admin(query).len() == 1
    });
    cluster.stop();
    let error = timeout(LONG, answer).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
}

/// A client that talks to a fresh database through a proxy, its connection set up already.
async fn proxied() -> (Database, CountingProxy, Client) {
    let database = Cluster::shared().create_database();
    let proxy = CountingProxy::start(Cluster::shared().addr());
    let client = connect(&database.url_via(proxy.addr())).await.expect("the proxy forwards");
    assert_eq!(proxy.take(), Trace::default(), "connecting asks nothing");
    (database, proxy, client)
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn trace(round_trips: usize, transactions: usize, statements: &[&str]) -> Trace {
    Trace { round_trips, transactions, statements: statements.iter().map(|&sql| sql.to_owned()).collect() }
}

fn tables(database: &Database) -> usize {
    database.admin("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").len()
}

/// Waits for what another process does in its own time.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "in {LONG:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}
