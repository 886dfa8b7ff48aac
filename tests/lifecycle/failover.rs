//! A standby that takes over from a primary that freezes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, eventually, soon, variables};
use crate::support::postgres::{Cluster, Database};
use crate::support::process::Process;
use crate::support::service::{Client, PASSWORD, registration};

/// How long after a promotion calls may fail.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);

const WORKERS: usize = 4;

/// How many registrations are waited for each time.
const MANY: usize = 100;

/// Between a call that failed and the next one.
const PAUSE: Duration = Duration::from_millis(20);

/// Registers people without a pause, for as long as it lives.
struct Load {
    workers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let acknowledged = Arc::<Mutex<Vec<String>>>::default();
        let numbers = Arc::<AtomicUsize>::default();
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let (acknowledged, numbers) = (Arc::clone(&acknowledged), Arc::clone(&numbers));
            workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let email = format!("user{}@example.com", numbers.fetch_add(1, Ordering::Relaxed));
                    match client.register(registration(&email)).await {
                        Ok(_) => acknowledged.lock().unwrap().push(email),
                        Err(status) => {
                            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                            sleep(PAUSE).await;
                        }
                    }
                }
            });
        }
        Self { workers, stop, acknowledged }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits for so many further ones.
    async fn goes_on(&self, further: usize) {
        let enough = self.count() + further;
        eventually("people are registered", async || self.count() >= enough).await;
    }

    /// The e-mails of those who were registered, in that order.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        soon("all calls are answered", self.workers.join_all()).await;
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

fn emails(database: &Database) -> Vec<String> {
    let rows = block_in_place(|| database.admin("SELECT email FROM users"));
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_follows_a_promotion_within_eight_seconds_and_writes_nothing_to_the_old_primary() {
    let primary = block_in_place(Cluster::start_primary);
    let on_primary = block_in_place(|| primary.create_database());
    let standby = block_in_place(|| primary.start_standby());
    let on_standby = standby.database(on_primary.name());
    let url = format!("postgres://identity@{},{}/{}", primary.addr(), standby.addr(), on_primary.name());
    // The time limit of statements that operation has by default.
    let variables = variables(&url, &[("IDENTITY_STATEMENT_TIMEOUT", "")]);
    let mut process = Process::start(variables).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();
    eventually("the standby follows", async || emails(&on_standby) == ["ada@example.com"]).await;
    let health = Health::of(process.address).await;
    let mut readiness = health.watch("readiness").await;
    readiness.becomes(ServingStatus::Serving).await;
    let load = Load::start(&client);
    load.goes_on(MANY).await;

    block_in_place(|| primary.pause());
    readiness.becomes(ServingStatus::NotServing).await;
    let before = load.count();
    block_in_place(|| standby.promote());
    let promoted = Instant::now();
    let taken_over = timeout(TAKEN_OVER_WITHIN, async {
        load.goes_on(1).await;
        readiness.becomes(ServingStatus::Serving).await;
        promoted.elapsed()
    });
    let taken_over = taken_over.await;
    assert!(taken_over.is_ok(), "not taken over within {TAKEN_OVER_WITHIN:?}: {}", process.log());
    client.login("ada@example.com", PASSWORD).await.unwrap();
    load.goes_on(MANY).await;
    // It believes that it is the primary still, and takes writes.
    block_in_place(|| primary.resume());
    load.goes_on(MANY).await;
    let acknowledged = load.stop().await;
    health.assert(ServingStatus::Serving).await;

    let (here, there) = (emails(&on_standby), emails(&on_primary));
    for email in &acknowledged[before..] {
        assert!(here.contains(email) && !there.contains(email), "{email}");
    }
}
