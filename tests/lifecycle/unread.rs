//! Nobody reads what the server writes: a log collector that hangs, a terminal that was stopped.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::clients::{eventually, soon, variables};
use super::http::{get, metric, scrape};
use crate::support::port;
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, registration};

const DROPPED: &str = "identity_log_lines_dropped_total";

/// A pipe that takes nothing more, as long as nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A pipe whose reader has gone.
fn broken_pipe() -> PipeWriter {
    std::io::pipe().unwrap().1
}

/// Starts a server that warns of a setting, makes calls, and stops it.
async fn starts_serves_and_stops(out: PipeWriter, errors: PipeWriter) {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let url = format!("{}?connection_limit=1", database.url);
    let address = format!("127.0.0.1:{}", port::free());
    let mut server = Command::new(env!("CARGO_BIN_EXE_identity"))
        .env_clear()
        .envs(variables(&url, &[("IDENTITY_HTTP_LISTEN", "off")]))
        .env("IDENTITY_LISTEN", &address)
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(errors))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = Client::new(&format!("http://{address}"));
    eventually("calls are served", async || client.register(registration("ada@example.com")).await.is_ok())
        .await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    let id = server.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    assert_eq!(soon("the server stops", server.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_serves_and_stops_although_nobody_reads_what_it_writes() {
    let (_reader, full) = full_pipe();
    starts_serves_and_stops(full.try_clone().unwrap(), full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_serves_and_stops_although_the_reader_of_what_it_writes_has_gone() {
    starts_serves_and_stops(broken_pipe(), broken_pipe()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_ends_although_nobody_reads_why() {
    let (_reader, full) = full_pipe();
    for (arguments, code) in [
        (&["serve", "--no-such-flag"][..], 64),
        (&["serve", "--listen", "nowhere"], 64),
        // After a warning of the parameter.
        (&["keys", "list"], 1),
    ] {
        for errors in [full.try_clone().unwrap(), broken_pipe()] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_identity"))
                .args(arguments)
                .env_clear()
                .env("DATABASE_URL", "postgres://127.0.0.1:1/nothing?krbsrvname=x")
                .stderr(Stdio::from(errors))
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let status = soon("the command ends", command.wait()).await.unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_nobody_reads_in_time_are_dropped_counted_and_told_of_when_somebody_reads_on() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let (unread, errors) = std::io::pipe().unwrap();
    let filter = "trace,h2=trace,hyper=trace,tower=trace,tonic=trace";
    let variables = variables(&database.url, &[("IDENTITY_LOG", filter)]);
    let mut process = Process::with_errors_to(errors, variables).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let registered = client.register(registration("ada@example.com")).await.unwrap();

    eventually("lines are dropped", async || {
        for _ in 0..50 {
            client.get_user(Some(&registered.access_token), "").await.unwrap();
        }
        metric(&scrape(process.http()).await, DROPPED) > 0.0
    })
    .await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(process.http(), path).await.0, 200, "{path}");
    }

    let dropped = metric(&scrape(process.http()).await, DROPPED);
    let log = spawn_blocking(move || BufReader::new(unread).lines().map(Result::unwrap).collect::<Vec<_>>());
    process.signal("TERM");
    let (status, _) = soon("the server stops", process.ended()).await;
    assert_eq!(status.code(), Some(0));
    let log = soon("the log ends", log).await.unwrap();
    // Whatever was dropped, no line was torn.
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let told: f64 = lines.iter().filter_map(|line| line["log.dropped"].as_f64()).sum();
    assert!(told >= dropped, "{told} of {dropped}");
    assert!(lines.iter().any(|line| line["message"] == "stopped"));
}
