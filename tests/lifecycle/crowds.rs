//! A process with few descriptors, and clients that take all they can get.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, soon, variables};
use super::http::{metric, scrape};
use crate::support::process::Process;
use crate::support::raw::{RawClient, from_source};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(connections_take_no_descriptors_from_the_database_and_the_probes);

/// How long anybody may have to wait.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn connections_take_no_descriptors_from_the_database_and_the_probes(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let health = [("IDENTITY_HEALTH_LISTEN", "127.0.0.1:0")];
    let mut process = Process::with_open_files(600, variables(&database.url, &health)).await;
    soon("the server is ready", process.examples()).await;

    // From several sources, so that no share is in the way: more than there are descriptors.
    let mut crowds = Vec::new();
    for source in 2..10 {
        let connect = |_| async {
            let stream = from_source([127, 0, 0, source], process.address).await;
            RawClient::over(stream).await.ok()
        };
        crowds.push(join_all((0..80).map(connect)).await);
        // All of it opens connections to the database and files, as a newcomer.
        let work = async {
            let client = Client::new(&format!("http://{}", process.address));
            let email = format!("ada{source}@example.com");
            client.register(registration(&email)).await.unwrap();
            client.login(&email, PASSWORD).await.unwrap();
        };
        timeout(4 * AT_ONCE, work).await.expect("calls of others are served");
        let probe = async { Health::of(process.health()).await.check("readiness").await };
        let probe = timeout(AT_ONCE, probe).await.expect("a probe is answered");
        assert_eq!(probe.unwrap(), ServingStatus::Serving);
    }
    let metrics = timeout(AT_ONCE, scrape(process.http())).await.expect("metrics are answered");
    assert!(metric(&metrics, r#"identity_connections_closed_total{port="grpc",reason="limit"}"#) > 0.0);
    assert!(metric(&metrics, r#"identity_connections{port="grpc"}"#) < 400.0);
    let log = process.log();
    assert!(!log.contains("cannot accept connections"), "{log}");
    drop(crowds);
}
