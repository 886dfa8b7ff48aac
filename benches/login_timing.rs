//! Whether the time of a refused login tells if the e-mail is known: 40 tries with an unknown e-mail
//! and 40 with a wrong password, taking turns, at cost 10 on an idle service.
//!
//! `cargo bench --bench login_timing` prints the medians of both and their difference, for either
//! database.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and exports nothing")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::service::{Client, Engine, TestDatabase, TestService, registration};
use tonic::Code;

const TRIES: usize = 40;
/// No more than ten wrong passwords are checked of each.
const USERS: usize = 5;

#[tokio::main]
async fn main() {
    println!("at cost 10, {TRIES} tries each, taking turns");
    let mut within = true;
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let database = TestDatabase::migrated(engine).await;
        let service = TestService::start_with(database, &[("IDENTITY_BCRYPT_COST", "10")]).await;
        let client = service.client();
        for user in 0..USERS {
            client.register(registration(&format!("known{user}@example.com"))).await.unwrap();
        }

        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for user in (0..USERS).cycle().take(TRIES) {
            known.push(refusal(&client, &format!("known{user}@example.com")).await);
            unknown.push(refusal(&client, &format!("unknown{user}@example.com")).await);
        }
        let (known, unknown) = (median(known), median(unknown));
        println!(
            "{engine:?}: wrong password {:.2} ms, unknown e-mail {:.2} ms, difference {:.2} ms",
            millis(known),
            millis(unknown),
            millis(known.abs_diff(unknown)),
        );
        service.stop().await;
        within &= known.abs_diff(unknown) <= Duration::from_millis(1);
    }
    assert!(within, "more than the promised millisecond; is the machine idle?");
}

async fn refusal(client: &Client, email: &str) -> Duration {
    let began = Instant::now();
    let status = client.login(email, "not the password").await.unwrap_err();
    let took = began.elapsed();
    assert_eq!(status.code(), Code::Unauthenticated);
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    (times[TRIES / 2 - 1] + times[TRIES / 2]) / 2
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
