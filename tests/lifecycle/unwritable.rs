//! An SQLite file that nobody can write to, from the start or from some moment on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::process::Command;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, TestDatabase, registration};

/// Neither owns anything nor may do anything on any system.
const NOBODY: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs a server to its end as somebody who is not root, for whom modes mean something.
async fn serve_unprivileged(program: &Path, url: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("IDENTITY_LISTEN", "127.0.0.1:0")
        .env("IDENTITY_HTTP_LISTEN", "off")
        .envs(variables(url, &[]))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = soon("the start is refused", command.output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_not_write_its_file_refuses_to_start_and_says_why() {
    // The folder that the tests were built in may be closed to others.
    let programs = tempfile::tempdir().unwrap();
    set_mode(programs.path(), 0o755);
    let program = programs.path().join("identity");
    fs::copy(env!("CARGO_BIN_EXE_identity"), &program).unwrap();
    set_mode(&program, 0o755);

    for (file_mode, folder_mode, expected) in [
        (0o444, 0o777, "cannot be written to"),
        (0o444, 0o555, "cannot be written to"),
        (0o666, 0o555, "its folder"),
    ] {
        let database = TestDatabase::migrated(Engine::Sqlite).await;
        let file = database.folder.path().join("identity.db");
        set_mode(&file, file_mode);
        set_mode(database.folder.path(), folder_mode);
        let (code, err) = serve_unprivileged(&program, &database.url).await;
        set_mode(database.folder.path(), 0o755);
        assert_eq!(code, Some(1), "{file_mode:o} in {folder_mode:o}: {err}");
        let told = err.lines().find(|line| line.starts_with("identity: ")).expect(&err);
        for part in [file.to_str().unwrap(), expected, "Permission denied"] {
            assert!(told.contains(part), "{file_mode:o} in {folder_mode:o}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_no_longer_be_written_to_makes_an_idle_server_unready() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();
    let health = Health::of(process.address).await;
    let mut readiness = health.watch("readiness").await;
    readiness.becomes(ServingStatus::Serving).await;

    // As with a full disk, the system refuses every write; and nobody calls.
    process.limit_file_size(Some(0));
    readiness.becomes(ServingStatus::NotServing).await;
    // Longer than a refusal that calls have met is remembered.
    readiness.stays(Duration::from_secs(12)).await;
    assert_eq!(health.check("liveness").await.unwrap(), ServingStatus::Serving);
    let log = process.log();
    assert!(log.contains("not ready") && log.contains("the database refuses writes"), "{log}");

    process.limit_file_size(None);
    readiness.becomes(ServingStatus::Serving).await;
    client.register(registration("bob@example.com")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_where_nothing_can_be_written_is_not_ready_until_it_can() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    // Makes the keys, and leaves the log behind that a second server needs.
    let mut first = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", first.examples()).await;

    let process = Process::with_file_size(0, variables(&database.url, &[])).await;
    let health = Health::of(process.address).await;
    let mut readiness = health.watch("readiness").await;
    readiness.becomes(ServingStatus::NotServing).await;
    readiness.stays(Duration::from_secs(5)).await;
    process.limit_file_size(None);
    readiness.becomes(ServingStatus::Serving).await;
}
