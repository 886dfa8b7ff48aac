//! What processes on one database count together: wrong passwords, registrations and refreshes.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::clients::{SLOW_HASHES, checks_under_way, soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, reason, registration};

const WRONG: &str = "not the password";

const EMAIL: &str = "ada@example.com";

/// Two processes on one PostgreSQL database; other databases are for one process at a time.
async fn two_processes(others: &[(&'static str, &str)]) -> (TestDatabase, [(Process, Client); 2]) {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let one = async || {
        let mut process = Process::start(variables(&database.url, others)).await;
        soon("the server is ready", process.examples()).await;
        let client = Client::new(&format!("http://{}", process.address));
        (process, client)
    };
    let both = [one().await, one().await];
    (database, both)
}

/// What `number` calls at once come to, every other one by either process.
async fn at_once<T: Send + 'static, C>(
    processes: &[(Process, Client); 2],
    number: usize,
    call: impl Fn(usize, Client) -> C,
) -> Vec<Result<T, Status>>
where
    C: Future<Output = Result<T, Status>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for (n, (_, client)) in processes.iter().cycle().take(number).enumerate() {
        calls.spawn(call(n, client.clone()));
    }
    soon("all calls are answered", calls.join_all()).await
}

/// How many calls ended how.
fn outcomes<T>(results: &[Result<T, Status>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for result in results {
        let outcome = match result {
            Ok(_) => "OK".to_owned(),
            Err(status) => format!("{:?} {}", status.code(), reason(status)),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    counts
}

fn expected<const N: usize>(outcomes: [(&str, usize); N]) -> BTreeMap<String, usize> {
    outcomes.map(|(outcome, count)| (outcome.to_owned(), count)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_check_ten_of_fifty_wrong_passwords() {
    let (_database, processes) = two_processes(&[]).await;
    processes[0].1.register(registration(EMAIL)).await.unwrap();
    for email in [EMAIL, "nobody@example.com"] {
        let results =
            at_once(&processes, 50, move |_, client| async move { client.login(email, WRONG).await }).await;
        let ten =
            expected([("Unauthenticated LOGIN_FAILED", 10), ("ResourceExhausted TOO_MANY_ATTEMPTS", 40)]);
        assert_eq!(outcomes(&results), ten, "{email}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_let_fifty_right_passwords_in() {
    let (_database, processes) = two_processes(&[]).await;
    processes[0].1.register(registration(EMAIL)).await.unwrap();
    let results =
        at_once(&processes, 50, |_, client| async move { client.login(EMAIL, PASSWORD).await }).await;
    assert_eq!(outcomes(&results), expected([("OK", 50)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_amid_checks_leaves_no_more_than_its_reservations() {
    let (database, [(killed, _), (process, other)]) = two_processes(&SLOW_HASHES).await;
    let client = Client::patient(&format!("http://{}", killed.address));
    client.register(registration(EMAIL)).await.unwrap();
    let mut checks = JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        checks.spawn(async move { client.login(EMAIL, WRONG).await });
    }
    checks_under_way(&database, 4).await;
    killed.signal("KILL");
    killed.ended().await;
    assert!(checks.join_all().await.iter().all(Result::is_err));

    // Six places are left, to right passwords and to wrong ones. Slow hashes take long on a busy machine.
    let patient = Client::patient(&format!("http://{}", process.address));
    patient.login(EMAIL, PASSWORD).await.unwrap();
    let mut wrong = JoinSet::new();
    for _ in 0..6 {
        let other = patient.clone();
        wrong.spawn(async move { other.login(EMAIL, WRONG).await });
    }
    assert_eq!(outcomes(&wrong.join_all().await), expected([("Unauthenticated LOGIN_FAILED", 6)]));
    checks_under_way(&database, 4).await;
    // Nobody knows that the four will never end, so there is no place, and no limit that was reached.
    let full = other.login(EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!((full.code(), reason(&full).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    // Nobody else is concerned.
    patient.register(registration("eve@example.com")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_count_registrations_together() {
    let (database, processes) = two_processes(&[("IDENTITY_REGISTRATION_LIMIT", "5")]).await;
    let results = at_once(&processes, 20, |n, client| async move {
        client.register(registration(&format!("ada{n}@example.com"))).await
    })
    .await;
    let five = expected([("OK", 5), ("ResourceExhausted TOO_MANY_REGISTRATIONS", 15)]);
    assert_eq!(outcomes(&results), five);
    assert_eq!(database.number("SELECT count(*) FROM users"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_give_one_successor_to_fifty_refreshes() {
    let (database, processes) = two_processes(&[]).await;
    let token = processes[0].1.register(registration(EMAIL)).await.unwrap().refresh_token;
    let results = at_once(&processes, 50, move |_, client| {
        let token = token.clone();
        async move { client.refresh(&token).await }
    })
    .await;
    assert_eq!(outcomes(&results), expected([("OK", 50)]));
    let successors: BTreeSet<_> = results.into_iter().map(|next| next.unwrap().refresh_token).collect();
    assert_eq!(successors.len(), 1);
    assert_eq!(database.number("SELECT generation FROM sessions"), 1);
    let next = processes[1].1.refresh(successors.first().unwrap()).await.unwrap();
    processes[0].1.get_user(Some(&next.access_token), "").await.unwrap();
}
