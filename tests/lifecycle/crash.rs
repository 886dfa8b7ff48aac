//! Crashes in the middle of many registrations: what was acknowledged is there, the rest can be
//! repeated.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::proto::v1::RegisterRequest;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;
use tonic::{Code, Status};
use uuid::Uuid;

use super::clients::{assert_unavailable, eventually, soon, variables};
use crate::support::postgres::Cluster;
use crate::support::process::Process;
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};

const REGISTRATIONS: usize = 1_000;
/// How many calls are under way when the crash comes.
const AT_A_TIME: usize = 1_000;
/// How many are afterwards: fewer, so that none waits too long for a connection on a busy machine.
const REPEATED_AT_A_TIME: usize = 100;
const CONNECTIONS: usize = 8;
/// How many are acknowledged when the crash comes. The others take far longer than the crash does.
const BEFORE_THE_CRASH: usize = 100;

/// A thousand hashes, and as many writes, are long in coming on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// What lets nobody be turned away because of the others, and the hashes take their time.
const SLOW_AND_SURE: [(&str, &str); 2] = [("IDENTITY_HASH_THREADS", "2"), ("IDENTITY_HASH_MAX_WAIT", "10m")];

on_both_databases!(every_acknowledged_registration_outlives_a_killed_server);

async fn every_acknowledged_registration_outlives_a_killed_server(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut process = Process::start(variables(&database.url, &SLOW_AND_SURE)).await;
    soon("the server is ready", process.examples()).await;
    let mut wave = Wave::start(process.address, Registration::many(), AT_A_TIME);
    wave.acknowledged(BEFORE_THE_CRASH).await;
    process.signal("KILL");
    let (acknowledged, failed) = wave.ended().await;
    let (status, log) = process.ended().await;
    assert_eq!(status.code(), None, "{log}");
    assert!(!failed.is_empty(), "the crash came too late");

    let mut process = Process::start(variables(&database.url, &SLOW_AND_SURE)).await;
    soon("the server is ready", process.examples()).await;
    assert_complete(&database, process.address, acknowledged, failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_registration_outlives_a_crashed_postgresql() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    let database = TestDatabase {
        url: database.url.clone(),
        folder: tempfile::tempdir().unwrap(),
        postgres: Some(database),
    };
    let service = TestService::start_with(database, &SLOW_AND_SURE).await;
    let address = service.server.address();
    let mut wave = Wave::start(address, Registration::many(), AT_A_TIME);
    wave.acknowledged(BEFORE_THE_CRASH).await;
    block_in_place(|| cluster.crash());
    let (acknowledged, failed) = wave.ended().await;
    assert!(!failed.is_empty(), "the crash came too late");
    for (_, status) in &failed {
        assert_unavailable(status);
    }

    block_in_place(|| cluster.restart());
    let client = service.client();
    eventually("the service is back", async || client.login("nobody", "x").await.is_err_and(answered)).await;
    assert_complete(&service.database, address, acknowledged, failed).await;
}

fn answered(status: Status) -> bool {
    !matches!(status.code(), Code::Unavailable | Code::Unknown)
}

/// Asserts that whoever was acknowledged is there, that everybody else can register now, and that
/// nobody is there by half or twice.
async fn assert_complete(
    database: &TestDatabase,
    address: SocketAddr,
    acknowledged: HashMap<String, (Registration, String)>,
    failed: Vec<(Registration, Status)>,
) {
    let client = Client::patient(&format!("http://{address}"));
    for (email, (_, id)) in &acknowledged {
        let user = client.login(email, PASSWORD).await.unwrap_or_else(|status| panic!("{email}: {status}"));
        assert_eq!(user.user.unwrap().id, *id);
    }
    // Everybody: the acknowledged ones get the same user again.
    let ids: HashMap<_, _> = acknowledged.values().map(|(one, id)| (one.email.clone(), id.clone())).collect();
    let all = acknowledged.into_values().map(|(one, _)| one).chain(failed.into_iter().map(|(one, _)| one));
    let (repeated, failed) = Wave::start(address, all.collect(), REPEATED_AT_A_TIME).ended().await;
    assert!(failed.is_empty(), "{failed:?}");
    for (email, (_, id)) in &repeated {
        assert_eq!(ids.get(email).unwrap_or(id), id, "{email}");
    }
    let expected = i64::try_from(REGISTRATIONS).unwrap();
    assert_eq!(repeated.len(), REGISTRATIONS);
    for table in ["tenants", "users", "login_names", "passwords", "request_outcomes"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")), expected, "{table}");
    }
    for orphans in [
        "SELECT count(*) FROM tenants t WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.tenant_id = t.id \
         AND u.role = 'owner')",
        "SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT 1 FROM login_names l \
         WHERE l.tenant_id = u.tenant_id AND l.user_id = u.id)",
        "SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT 1 FROM passwords p \
         WHERE p.tenant_id = u.tenant_id AND p.user_id = u.id)",
    ] {
        assert_eq!(database.number(orphans), 0, "{orphans}");
    }
    assert_eq!(database.number("SELECT count(DISTINCT email) FROM users"), expected);
}

/// What is sent, and may be sent again.
#[derive(Clone, Debug)]
struct Registration {
    email: String,
    request_id: String,
}

impl Registration {
    fn many() -> Vec<Self> {
        (0..REGISTRATIONS)
            .map(|number| Self {
                email: format!("user{number}@example.com"),
                request_id: Uuid::from_u128(number as u128 + 1).to_string(),
            })
            .collect()
    }

    fn request(&self) -> RegisterRequest {
        RegisterRequest { request_id: self.request_id.clone(), ..registration(&self.email) }
    }
}

type Failures = Vec<(Registration, Status)>;

/// Registrations under way, many at a time over several connections. Each is tried once.
struct Wave {
    workers: JoinSet<(Vec<(Registration, String)>, Failures)>,
    acknowledged: watch::Receiver<usize>,
}

impl Wave {
    fn start(address: SocketAddr, registrations: Vec<Registration>, at_a_time: usize) -> Self {
        let clients: Vec<_> =
            (0..CONNECTIONS).map(|_| Client::patient(&format!("http://{address}"))).collect();
        let waiting = Arc::new(Mutex::new(registrations));
        let (counter, acknowledged) = watch::channel(0);
        let mut workers = JoinSet::new();
        for worker in 0..at_a_time {
            let client = clients[worker % CONNECTIONS].clone();
            let (waiting, counter) = (Arc::clone(&waiting), counter.clone());
            workers.spawn(async move {
                let (mut done, mut failed) = (Vec::new(), Vec::new());
                loop {
                    let Some(one) = waiting.lock().await.pop() else { return (done, failed) };
                    match client.register(one.request()).await {
                        Ok(response) => {
                            counter.send_modify(|count| *count += 1);
                            done.push((one, response.user.unwrap().id));
                        }
                        Err(status) => failed.push((one, status)),
                    }
                }
            });
        }
        Self { workers, acknowledged }
    }

    /// Waits until so many were acknowledged.
    async fn acknowledged(&mut self, count: usize) {
        let enough =
            timeout(LONG_PATIENCE, self.acknowledged.wait_for(|acknowledged| *acknowledged >= count));
        enough.await.expect("some are acknowledged in time").expect("not all calls have ended");
    }

    /// Waits for all: the acknowledged ones by e-mail, with the user's id, and the others.
    async fn ended(self) -> (HashMap<String, (Registration, String)>, Failures) {
        let (mut acknowledged, mut failed) = (HashMap::new(), Vec::new());
        let ended = timeout(LONG_PATIENCE, self.workers.join_all()).await.expect("all calls end in time");
        for (done, not_done) in ended {
            for (one, id) in done {
                acknowledged.insert(one.email.clone(), (one, id));
            }
            failed.extend(not_done);
        }
        (acknowledged, failed)
    }
}
