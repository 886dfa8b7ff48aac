//! Crashes in the middle of many refreshes: whoever heard nothing asks again, and nobody is locked out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::clients::{eventually, soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(a_server_that_is_killed_amid_refreshes_locks_nobody_out);

const SESSIONS: usize = 60;
const ROUNDS: usize = 4;

/// In the order of the rounds: how many have their reply when the server is killed.
const BEFORE_THE_CRASH: [usize; ROUNDS] = [1, 10, 25, 40];

/// The tests' own patience: a server takes its time to come back on a busy machine, and a token that was
/// replaced counts for as long.
const GRACE: (&str, &str) = ("IDENTITY_REFRESH_GRACE", "10m");

async fn server(database: &TestDatabase) -> (Process, Client) {
    let mut process = Process::start(variables(&database.url, &[GRACE])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    (process, client)
}

async fn a_server_that_is_killed_amid_refreshes_locks_nobody_out(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let (mut process, mut client) = server(&database).await;
    client.register(registration("ada@example.com")).await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..SESSIONS {
        tokens.push(client.login("ada@example.com", PASSWORD).await.unwrap().refresh_token);
    }
    let mut unanswered = 0;
    for before_the_crash in BEFORE_THE_CRASH {
        let answered = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for token in tokens.drain(..) {
            let (client, answered) = (client.clone(), Arc::clone(&answered));
            calls.spawn(async move {
                let next = client.refresh(&token).await;
                answered.fetch_add(1, Ordering::SeqCst);
                // Whoever heard nothing keeps what he had.
                next.map(|next| next.refresh_token).map_err(|_| token)
            });
        }
        eventually("some have their reply", async || answered.load(Ordering::SeqCst) >= before_the_crash)
            .await;
        process.signal("KILL");
        let outcomes = calls.join_all().await;
        process.ended().await;
        unanswered += outcomes.iter().filter(|outcome| outcome.is_err()).count();
        (process, client) = server(&database).await;
        for outcome in outcomes {
            let token = outcome.unwrap_or_else(|kept| kept);
            let next = client.refresh(&token).await.unwrap_or_else(|status| panic!("locked out: {status}"));
            client.get_user(Some(&next.access_token), "").await.unwrap();
            tokens.push(next.refresh_token);
        }
    }
    assert!(unanswered > 0, "every crash came too late");
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), SESSIONS);
    drop(process);
}
