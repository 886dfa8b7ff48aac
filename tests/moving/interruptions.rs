//! An import that is killed, and run again.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::fixture::{Place, file, tenant, user, with};
use crate::support::service::{Engine, on_both_databases};
use crate::support::wait::eventually;

on_both_databases!(an_import_that_was_killed_and_run_again_gives_what_one_run_gives);

const TENANTS: usize = 7;
const USERS: usize = 12_000;
/// What is fed before the kill: two batches of 5,000 and a part of a third.
const FED: usize = 11_000;

async fn an_import_that_was_killed_and_run_again_gives_what_one_run_gives(engine: Engine) {
    let mut lines: Vec<_> = (0..TENANTS).map(tenant).collect();
    lines.extend((0..USERS).map(|n| match n % 1_000 {
        500 => with(user(n, n % TENANTS), "email", "nobody"),
        501 => with(user(n, n % TENANTS), "email", format!("USER{}@example.com", n - 2)),
        502 => with(user(n, n % TENANTS), "id", format!("id {n}")),
        _ => user(n, n % TENANTS),
    }));
    let whole = file(&lines);
    let place = Place::new(engine).await;
    std::fs::write(place.path("in.jsonl"), &whole).unwrap();

    let mut command = place.command(&["import", "jsonl", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let part: usize = whole.lines().take(FED).map(|line| line.len() + 1).sum();
    stdin.write_all(&whole.as_bytes()[..part]).await.unwrap();
    let mut outside = place.outside().await;
    eventually("a batch is in", async || outside.count("users").await > 0).await;
    child.kill().await.unwrap();
    let before = outside.count("users").await;
    assert!(before > 0 && before < USERS, "{before}");

    let printed = place.run(&["import", "jsonl", "in.jsonl"]).await.ok();
    assert!(printed.contains(&format!("{before} there already")), "{printed}");
    let once = Place::new(engine).await;
    std::fs::write(once.path("in.jsonl"), &whole).unwrap();
    once.run(&["import", "jsonl", "in.jsonl"]).await.ok();
    assert_eq!(place.export().await, once.export().await);
    for report in ["identity-import-mapping.jsonl", "identity-import-refused.jsonl"] {
        assert_eq!(place.report(report), once.report(report));
    }
    let mut other = once.outside().await;
    for table in ["login_names", "passwords", "audit_events WHERE action = 'user.created'"] {
        assert_eq!(outside.count(table).await, other.count(table).await, "{table}");
    }
}
