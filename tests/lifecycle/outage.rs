//! PostgreSQL goes away while the service runs, in each of the ways it can, and comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{
    Health, PATIENCE, SLOW_HASHES, assert_unavailable, backends, checks_under_way, eventually,
};
use crate::support::postgres::Cluster;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, TestService, registration};
use crate::support::wire::CountingProxy;

/// The promise is two seconds; the rest is for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// What the service may open, its health probe's connection included.
const CONNECTIONS: i64 = 17;

/// Lets the tests here run one after the other: each measures how long calls take, with a cluster of its
/// own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A service whose database can be taken away.
struct Bench {
    service: TestService,
    proxy: CountingProxy,
    token: String,
    cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    async fn start() -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let cluster = block_in_place(Cluster::start);
        let database = block_in_place(|| cluster.create_database());
        let proxy = CountingProxy::start(cluster.addr());
        let database = TestDatabase {
            url: database.url_via(proxy.addr()),
            folder: tempfile::tempdir().unwrap(),
            postgres: Some(database),
        };
        let service = TestService::start_with(database, &[("IDENTITY_STATEMENT_TIMEOUT", "")]).await;
        let client = service.client();
        let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
        let bench = Self { service, proxy, token, cluster, _turn: turn };
        // All connections are open, so that all of them break.
        assert!(bench.storm("before").await.iter().all(Result::is_ok));
        bench
    }

    fn address(&self) -> SocketAddr {
        self.service.server.address()
    }

    /// Many calls of all kinds at once: how each ended, all of them in time. That of the others is a
    /// hash's as well, which on a busy machine is long in coming.
    async fn storm(&self, name: &str) -> Vec<Result<(), tonic::Status>> {
        let mut calls = JoinSet::new();
        for number in 0..60 {
            let (client, token) = (self.service.client(), self.token.clone());
            let email = format!("{name}{number}@example.com");
            calls.spawn(async move {
                let began = Instant::now();
                let (call, limit, outcome) = match number % 3 {
                    0 => ("GetUser", ANSWERED_WITHIN, client.get_user(Some(&token), "").await.map(drop)),
                    1 => ("Login", PATIENCE, client.login("ada@example.com", PASSWORD).await.map(drop)),
                    _ => ("Register", PATIENCE, client.register(registration(&email)).await.map(drop)),
                };
                assert!(began.elapsed() < limit, "{call} took {:?}: {outcome:?}", began.elapsed());
                outcome
            });
        }
        calls.join_all().await
    }

    /// Waits until calls succeed and the probe is answered again.
    async fn recovers(self) {
        let health = Health::of(self.address()).await;
        let client = self.service.client();
        eventually("calls succeed", async || client.get_user(Some(&self.token), "").await.is_ok()).await;
        self.proxy.take();
        let mut asked = Vec::new();
        eventually("the probe is answered", async || {
            asked.extend(self.proxy.take().statements);
            asked.iter().any(|statement| statement.contains("__diesel_schema_migrations"))
        })
        .await;
        eventually("readiness serves", async || {
            health.check("readiness").await.is_ok_and(|status| status == ServingStatus::Serving)
        })
        .await;
        for outcome in self.storm("after").await {
            outcome.unwrap();
        }
    }

    /// What must hold for every outage.
    async fn goes_through(self, go: impl AsyncFnOnce(&Self), come_back: impl AsyncFnOnce(&Self)) {
        let health = Health::of(self.address()).await;
        let mut readiness = health.watch("readiness").await;
        readiness.becomes(ServingStatus::Serving).await;

        go(&self).await;
        for name in ["first", "second"] {
            for outcome in self.storm(name).await {
                assert_unavailable(&outcome.unwrap_err());
            }
        }
        readiness.becomes(ServingStatus::NotServing).await;
        health.assert(ServingStatus::NotServing).await;

        come_back(&self).await;
        readiness.becomes(ServingStatus::Serving).await;
        health.assert(ServingStatus::Serving).await;
        let client: Client = self.service.client();
        eventually("calls succeed", async || client.get_user(Some(&self.token), "").await.is_ok()).await;
        for outcome in self.storm("after").await {
            outcome.unwrap();
        }
        eventually("no connection is left over", async || backends(&self.service.database) <= CONNECTIONS)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postgresql_is_told_within_two_seconds_and_noticed_when_it_is_back() {
    let stop = async |bench: &Bench| block_in_place(|| bench.cluster.stop());
    let start = async |bench: &Bench| block_in_place(|| bench.cluster.restart());
    Bench::start().await.goes_through(stop, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_hangs_is_told_within_two_seconds_and_noticed_when_it_is_back() {
    let pause = async |bench: &Bench| block_in_place(|| bench.cluster.pause());
    let resume = async |bench: &Bench| block_in_place(|| bench.cluster.resume());
    Bench::start().await.goes_through(pause, resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_told_within_two_seconds_and_noticed_when_it_is_back() {
    let freeze = async |bench: &Bench| bench.proxy.freeze();
    let restore = async |bench: &Bench| bench.proxy.restore();
    Bench::start().await.goes_through(freeze, restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_is_told_within_two_seconds_and_noticed_when_it_is_back() {
    let cut = async |bench: &Bench| bench.proxy.cut().await;
    let restore = async |bench: &Bench| bench.proxy.restore();
    Bench::start().await.goes_through(cut, restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_replaced_without_any_caller_noticing() {
    let bench = Bench::start().await;
    block_in_place(|| {
        bench
            .cluster
            .admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
    });
    // The probe may have opened its own one again.
    eventually("the service has noticed", async || bench.proxy.open() <= 1).await;
    for outcome in bench.storm("after").await {
        outcome.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_whose_other_end_is_forgotten_are_replaced_that_of_the_probe_too() {
    let bench = Bench::start().await;
    // The connections are up as far as anybody can see, and nobody will ever answer on them.
    bench.proxy.strand();
    bench.storm("stranded").await;
    bench.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_replaced_when_no_caller_waits_long_enough_to_see_them_fail() {
    let bench = Bench::start().await;
    bench.proxy.strand();
    let client = bench.service.client();
    eventually("a call succeeds", async || {
        let call = client.get_user(Some(&bench.token), "");
        matches!(timeout(Duration::from_millis(300), call).await, Ok(Ok(_)))
    })
    .await;
    bench.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_amid_password_checks_leaves_the_account_open() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut database = TestDatabase::migrated(Engine::Postgres).await;
    let proxy = CountingProxy::start(Cluster::shared().addr());
    database.url = database.postgres.as_ref().unwrap().url_via(proxy.addr());
    // A connection for each of them.
    let variables = [SLOW_HASHES[0], SLOW_HASHES[1], ("IDENTITY_DATABASE_CONNECTIONS", "40")];
    let service = TestService::start_with(database, &variables).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    client.register(registration("ada@example.com")).await.unwrap();
    // As many as may be under way; right or wrong, none of them can tell the database how it ended.
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let (client, password) = (client.clone(), if number < 5 { PASSWORD } else { "wrong horse" });
        calls.spawn(async move { client.login("ada@example.com", password).await });
    }
    checks_under_way(&service.database, 10).await;
    proxy.cut().await;
    for outcome in calls.join_all().await {
        assert_unavailable(&outcome.unwrap_err());
    }
    proxy.restore();
    checks_under_way(&service.database, 0).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    // The wrong ones count.
    assert_eq!(service.database.number("SELECT max(length(counted)) FROM attempts"), 5 * 8);
}
