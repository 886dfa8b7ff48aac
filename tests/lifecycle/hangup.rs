//! SIGHUP: what a running server reads again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use identity::crypto::MasterKey;
use identity::proto::v1::RegisterRequest;
use jsonwebtoken::decode_header;

use super::clients::{eventually, soon, variables};
use crate::support::process::{Process, identity};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(
    a_master_key_is_exchanged_at_a_hangup_without_losing_a_session,
    a_master_key_that_does_not_open_the_signing_keys_is_left_alone,
);

/// The file of the master key alone says which it is; signing keys are followed within a moment.
fn with_key_file<'v>(url: &'v str, file: &'v Path) -> Vec<(&'static str, &'v str)> {
    let file = ("IDENTITY_MASTER_KEY_FILE", file.to_str().unwrap());
    variables(url, &[("IDENTITY_MASTER_KEY", ""), file, ("IDENTITY_KEY_PROPAGATION", "1s")])
}

async fn ready(variables: Vec<(&'static str, &str)>) -> (Process, Client) {
    let mut process = Process::start(variables).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    (process, client)
}

/// A new key in `file`, which is made or replaced.
fn new_key(file: &Path) -> String {
    let key = MasterKey::generate().to_base64().to_string();
    fs::write(file, format!("{key}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    key
}

fn key_file(database: &TestDatabase) -> PathBuf {
    database.folder.path().join("master.key")
}

async fn hang_up(process: &Process, expected: &str) {
    let told = || process.log().matches(expected).count();
    let before = told();
    process.signal("HUP");
    eventually(expected, async || told() > before).await;
}

async fn a_master_key_is_exchanged_at_a_hangup_without_losing_a_session(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let file = key_file(&database);
    let old = new_key(&file);
    let (process, client) = ready(with_key_file(&database.url, &file)).await;
    let request_id = "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e".to_owned();
    let request = RegisterRequest { request_id, ..registration("ada@example.com") };
    let first = client.register(request.clone()).await.unwrap();
    let kept = client.login("ada@example.com", PASSWORD).await.unwrap().refresh_token;

    let new = new_key(&file);
    let changing =
        [with_key_file(&database.url, &file), vec![("IDENTITY_MASTER_KEY_PREVIOUS", &old)]].concat();
    let (code, out, err) = identity(&["keys", "master", "--reseal"], &changing).await;
    assert_eq!((code, out.as_str()), (Some(0), "encrypted 1 keys under the current master key\n"), "{err}");
    hang_up(&process, "the master key was exchanged").await;

    // What was made before counts.
    let refreshed = client.refresh(&first.refresh_token).await.unwrap();
    client.get_user(Some(&first.access_token), "").await.unwrap();
    assert_eq!(client.register(request).await.unwrap().user, first.user);
    // What is made now is under the new key alone.
    let (other, other_client) = ready(with_key_file(&database.url, &file)).await;
    assert!(other_client.refresh(&kept).await.is_err(), "it was made under the old key");
    client.refresh(&kept).await.unwrap();
    other_client.refresh(&refreshed.refresh_token).await.unwrap();
    drop(other);
    let arguments = ["keys", "rotate", "--now", "--token-algorithm", "RS256"];
    let (code, _, err) = identity(&arguments, &with_key_file(&database.url, &file)).await;
    assert_eq!(code, Some(0), "{err}");
    eventually("the server signs with a key under the new master key", async || {
        let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
        decode_header(&token).unwrap().alg == jsonwebtoken::Algorithm::RS256
    })
    .await;
    hang_up(&process, "the same key as before").await;
    let log = process.log();
    assert!(!log.contains(&old) && !log.contains(&new), "{log}");
}

async fn a_master_key_that_does_not_open_the_signing_keys_is_left_alone(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let file = key_file(&database);
    let old = new_key(&file);
    let (process, client) = ready(with_key_file(&database.url, &file)).await;
    let ada = client.register(registration("ada@example.com")).await.unwrap();

    let wrong = new_key(&file);
    hang_up(&process, "does not open the signing keys in the database: the server keeps its master key")
        .await;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    hang_up(&process, "the master key file cannot be used").await;
    fs::write(&file, "no key\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    hang_up(&process, "must be the base64 of exactly 32 bytes").await;
    fs::remove_file(&file).unwrap();
    hang_up(&process, "No such file").await;

    let refreshed = client.refresh(&ada.refresh_token).await.unwrap();
    let log = process.log();
    assert!(!log.contains(&old) && !log.contains(&wrong), "{log}");
    drop(process);
    // What it made meanwhile is under the old key.
    fs::write(&file, &old).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (_process, client) = ready(with_key_file(&database.url, &file)).await;
    client.refresh(&refreshed.refresh_token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_follows_its_file_at_a_hangup() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let file = database.folder.path().join("level");
    fs::write(&file, "warn\n").unwrap();
    let level = [("IDENTITY_LOG_LEVEL_FILE", file.to_str().unwrap())];
    let (process, client) = ready(variables(&database.url, &level)).await;
    client.register(registration("ada@example.com")).await.unwrap();
    assert!(!process.log().contains(r#""level":"INFO""#), "{}", process.log());

    fs::write(&file, "debug\n").unwrap();
    hang_up(&process, "the log level was read from its file").await;
    // On connections that were open before as well.
    let queries = || process.log().matches(r#""message":"query""#).count();
    client.login("ada@example.com", PASSWORD).await.unwrap();
    eventually("queries are logged", async || queries() > 0).await;

    fs::write(&file, "loud\n").unwrap();
    hang_up(&process, "the log level stays as it is: IDENTITY_LOG_LEVEL_FILE must name a file with error")
        .await;
    assert!(!process.log().contains("loud"));
    let before = queries();
    client.login("ada@example.com", PASSWORD).await.unwrap();
    eventually("queries are still logged", async || queries() > before).await;
}
