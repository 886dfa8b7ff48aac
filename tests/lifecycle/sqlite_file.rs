//! The SQLite file goes away while a server runs.

use std::fs;

use serde_json::Value;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, assert_unavailable, eventually, soon, sqlite_leftovers, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, registration};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_file_was_moved_refuses_all_calls_and_is_not_ready_until_it_is_back() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let registered = client.register(registration("ada@example.com")).await.unwrap();
    let mut readiness = Health::of(process.address).await.watch("readiness").await;
    readiness.becomes(ServingStatus::Serving).await;

    let names = ["identity.db", "identity.db-wal", "identity.db-shm"];
    let elsewhere = database.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in names {
        fs::rename(database.folder.path().join(name), elsewhere.join(name)).unwrap();
    }
    for n in 0..20 {
        let lost = client.register(registration(&format!("user{n}@example.com"))).await;
        assert_unavailable(&lost.unwrap_err());
    }
    readiness.becomes(ServingStatus::NotServing).await;
    assert_unavailable(&client.get_user(Some(&registered.access_token), "").await.unwrap_err());
    assert_eq!(sqlite_leftovers(&database), [""; 0]);
    assert!(!database.folder.path().join("identity.db").exists());

    for name in names {
        fs::rename(elsewhere.join(name), database.folder.path().join(name)).unwrap();
    }
    readiness.becomes(ServingStatus::Serving).await;
    client.get_user(Some(&registered.access_token), "").await.unwrap();
    client.register(registration("user0@example.com")).await.unwrap();
    eventually("calls succeed", async || client.login("user0@example.com", PASSWORD).await.is_ok()).await;

    process.signal("TERM");
    let (status, log) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(sqlite_leftovers(&database), [""; 0]);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let with_cause = lines.iter().filter(|line| {
        line["error"].as_str().is_some_and(|error| error.contains("identity.db was moved or deleted"))
    });
    let told: Vec<_> = with_cause.map(|line| line["message"].as_str().unwrap()).collect();
    for start in ["a call failed", "not ready"] {
        assert_eq!(told.iter().filter(|message| message.starts_with(start)).count(), 1, "{start}: {log}");
    }
}
