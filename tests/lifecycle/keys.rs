//! `identity keys` beside running servers, and what they publish.

use std::net::SocketAddr;

use identity::crypto::MasterKey;
use identity::proto::v1::RegisterRequest;
use serde_json::Value;
use tokio::task::block_in_place;

use super::clients::{eventually, soon, variables};
use super::http::{get, reply, request_for};
use crate::support::postgres::Cluster;
use crate::support::process::{Process, identity};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(
    keys_are_listed_rotated_and_retired_while_a_server_runs,
    a_key_is_never_made_under_another_master_key_than_the_others,
    a_key_that_signs_at_once_takes_the_place_of_one_for_another_algorithm,
    the_master_key_is_exchanged_without_losing_a_session_or_a_request_id,
);

const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
/// So that a server follows within a moment.
const SWIFT: (&str, &str) = ("IDENTITY_KEY_PROPAGATION", "1s");
const JWKS: &str = "/.well-known/jwks.json";

/// What `identity keys` prints with these arguments.
async fn keys(arguments: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
    let arguments = [&["keys"], arguments].concat();
    let (code, out, err) = soon("the command ends", identity(&arguments, variables)).await;
    if code == Some(0) { Ok(out) } else { Err(err) }
}

/// Id and state of each key in use.
async fn listed(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let json = keys(&["list", "--json"], variables).await.unwrap();
    let keys: Vec<Value> = serde_json::from_str(&json).unwrap();
    let text = |key: &Value, name| key[name].as_str().unwrap().to_owned();
    keys.iter().map(|key| (text(key, "kid"), text(key, "state"))).collect()
}

/// The ids of the published keys.
pub(crate) async fn published(http: SocketAddr) -> Vec<String> {
    let (status, body) = get(http, JWKS).await;
    assert_eq!(status, 200, "{body}");
    let set: Value = serde_json::from_str(&body).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn ready(url: &str, others: &[(&'static str, &str)]) -> (Process, Client) {
    let mut process = Process::start(variables(url, others)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    (process, client)
}

fn kid_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn keys_are_listed_rotated_and_retired_while_a_server_runs(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let variables = variables(&database.url, &[]);
    let (process, client) = ready(&database.url, &[SWIFT]).await;
    let old = client.register(registration("ada@example.com")).await.unwrap().access_token;
    client.get_user(Some(&old), "").await.unwrap();
    let first = kid_of(&old);
    assert_eq!(listed(&variables).await, [(first.clone(), "signing".to_owned())]);

    // Published at once, by a server too, and not to sign for ten minutes.
    let table = keys(&["rotate", "--token-algorithm", "RS256"], &variables).await.unwrap();
    let [(second, next), (_, signing)] = &listed(&variables).await[..] else { panic!("{table}") };
    assert_eq!((next.as_str(), signing.as_str()), ("next", "signing"));
    for text in [second.as_str(), first.as_str(), "RS256", "EdDSA", "published until"] {
        assert!(table.contains(text), "{table}");
    }
    eventually("both are published", async || published(process.http()).await == [&**second, &first]).await;
    let refused = keys(&["rotate"], &variables).await.unwrap_err();
    assert!(refused.contains(second.as_str()) && refused.contains("--now"), "{refused}");
    assert_eq!(kid_of(&client.login("ada@example.com", PASSWORD).await.unwrap().access_token), first);

    // In an emergency it signs at once.
    keys(&["rotate", "--now", "--token-algorithm", "RS256"], &variables).await.unwrap();
    let states = [(second.clone(), "signing".to_owned()), (first.clone(), "published".to_owned())];
    assert_eq!(listed(&variables).await, states);
    let mut token = String::new();
    eventually("the second signs", async || {
        token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
        kid_of(&token) == *second
    })
    .await;
    client.get_user(Some(&old), "").await.unwrap();

    // What has been verified, and is remembered, ends with its key.
    keys(&["retire", &first], &variables).await.unwrap();
    eventually("the first is refused", async || client.get_user(Some(&old), "").await.is_err()).await;
    assert_eq!(published(process.http()).await, [second.as_str()]);
    client.get_user(Some(&token), "").await.unwrap();

    // The only one is replaced.
    keys(&["retire", second], &variables).await.unwrap();
    let [(third, state)] = &listed(&variables).await[..] else { panic!("one key") };
    assert_eq!(state, "signing");
    eventually("the second is refused", async || client.get_user(Some(&token), "").await.is_err()).await;
    let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
    assert_eq!(kid_of(&token), *third);
    client.get_user(Some(&token), "").await.unwrap();

    for unknown in [first.as_str(), "-begins-with-a-dash"] {
        let refused = keys(&["retire", unknown], &variables).await.unwrap_err();
        assert!(refused.contains(unknown) && refused.contains("identity keys list"), "{refused}");
    }
    assert_eq!(listed(&variables).await.len(), 1);
}

async fn a_key_is_never_made_under_another_master_key_than_the_others(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let right = variables(&database.url, &[]);
    let (process, client) = ready(&database.url, &[SWIFT]).await;
    client.register(registration("ada@example.com")).await.unwrap();
    let before = listed(&right).await;
    let other = MasterKey::generate().to_base64();
    let wrong = [&right[..], &[("IDENTITY_MASTER_KEY", other.as_str())]].concat();
    let kid = before[0].0.clone();
    for arguments in
        [&["rotate"][..], &["rotate", "--now"], &["retire", &kid], &["rotate", "--token-algorithm", "RS256"]]
    {
        let refused = keys(arguments, &wrong).await.unwrap_err();
        assert!(
            refused.contains(&kid) && refused.contains("IDENTITY_MASTER_KEY"),
            "{arguments:?}: {refused}"
        );
    }
    let start = [&wrong[..], &[("IDENTITY_TOKEN_ALGORITHM", "RS256")]].concat();
    let (code, _, err) = soon("the start fails", identity(&["serve"], &start)).await;
    assert!(code == Some(1) && err.contains("encrypted with another master key"), "{code:?} {err}");
    assert_eq!(listed(&right).await, before);
    let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
    client.get_user(Some(&token), "").await.unwrap();
    drop(process);
}

async fn a_key_that_signs_at_once_takes_the_place_of_one_for_another_algorithm(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let variables = variables(&database.url, &[]);
    let (process, client) = ready(&database.url, &[SWIFT]).await;
    client.register(registration("ada@example.com")).await.unwrap();
    keys(&["rotate", "--token-algorithm", "EdDSA"], &variables).await.unwrap();
    keys(&["rotate", "--now", "--token-algorithm", "RS256"], &variables).await.unwrap();
    let states: Vec<_> = listed(&variables).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["signing", "published"]);
    eventually("the new key signs", async || {
        let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
        jsonwebtoken::decode_header(&token).unwrap().alg == jsonwebtoken::Algorithm::RS256
    })
    .await;
    drop(process);
}

async fn the_master_key_is_exchanged_without_losing_a_session_or_a_request_id(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let [old, new] = [(); 2].map(|()| MasterKey::generate().to_base64());
    let before = [("IDENTITY_MASTER_KEY", old.as_str())];
    let both = [("IDENTITY_MASTER_KEY", new.as_str()), ("IDENTITY_MASTER_KEY_PREVIOUS", old.as_str())];
    let after = [("IDENTITY_MASTER_KEY", new.as_str())];
    let request_id = "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e".to_owned();
    let request = RegisterRequest { request_id, ..registration("ada@example.com") };

    let (process, client) = ready(&database.url, &before).await;
    let first = client.register(request.clone()).await.unwrap();
    drop(process);
    let (process, client) = ready(&database.url, &both).await;
    client.get_user(Some(&first.access_token), "").await.unwrap();
    assert_eq!(client.register(request).await.unwrap().user, first.user);
    let refreshed = client.refresh(&first.refresh_token).await.unwrap();

    let lines = async |variables: &[(&'static str, &str)]| {
        keys(&["master", "--reseal"], &self::variables(&database.url, variables)).await
    };
    let refused = lines(&after).await.unwrap_err();
    assert!(refused.contains("IDENTITY_MASTER_KEY_PREVIOUS") && !refused.contains(&*new), "{refused}");
    for count in [1, 0] {
        let expected = format!("encrypted {count} keys under the current master key\n");
        assert_eq!(lines(&both).await.unwrap(), expected);
    }
    // The running server goes on, and so does one that knows the new key alone.
    client.login("ada@example.com", PASSWORD).await.unwrap();
    drop(process);
    let (_process, client) = ready(&database.url, &after).await;
    client.get_user(Some(&first.access_token), "").await.unwrap();
    client.refresh(&refreshed.refresh_token).await.unwrap();
    let (code, _, err) = soon("the start ends", identity(&[], &variables(&database.url, &before))).await;
    assert!(code == Some(1) && err.contains("encrypted with another master key"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn published_keys_may_be_kept_for_a_while_and_asked_for_again() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let (process, client) = ready(&database.url, &[]).await;
    let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
    let (head, body) = reply(process.http(), &request_for(JWKS)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for line in ["content-type: application/json", "cache-control: public, max-age=300"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    let set: Value = serde_json::from_str(&body).unwrap();
    let key = &set["keys"][0];
    assert_eq!(key["kid"], kid_of(&token).as_str());
    assert_eq!((&key["kty"], &key["use"], &key["alg"]), (&"OKP".into(), &"sig".into(), &"EdDSA".into()));
    assert!(key["d"].is_null(), "a private part");

    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let asking =
        |tag: &str| request_for(JWKS).replace("host: x", &format!("host: x\r\nif-none-match: {tag}"));
    let (unchanged, nothing) = reply(process.http(), &asking(tag)).await;
    assert!(unchanged.starts_with("HTTP/1.1 304 ") && unchanged.contains("max-age=300"), "{unchanged}");
    assert_eq!(nothing, "");
    assert!(reply(process.http(), &asking("\"other\"")).await.0.starts_with("HTTP/1.1 200 "));
    let (head_only, nothing) = reply(process.http(), &request_for(JWKS).replace("GET", "HEAD")).await;
    assert!(head_only.starts_with("HTTP/1.1 200 ") && head_only.contains(tag), "{head_only}");
    assert_eq!(nothing, "");

    // A secret is nothing to publish; the keys from before are, until their tokens have expired.
    drop(process);
    let (process, _) = ready(&database.url, &[SECRET]).await;
    assert_eq!(published(process.http()).await, [kid_of(&token)]);
    let empty = TestDatabase::migrated(Engine::Sqlite).await;
    let (process, _) = ready(&empty.url, &[SECRET]).await;
    assert_eq!(get(process.http(), JWKS).await, (200, r#"{"keys":[]}"#.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_published_once_they_have_been_read() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    block_in_place(|| cluster.stop());
    let mut process = Process::start(variables(&database.url, &[])).await;
    let (head, _) = reply(process.http(), &request_for(JWKS)).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("cache-control: no-store"), "{head}");
    block_in_place(|| cluster.restart());
    soon("the server is ready", process.examples()).await;
    assert_eq!(published(process.http()).await.len(), 1);
    // And go on being published when the database is away.
    block_in_place(|| cluster.stop());
    assert_eq!(published(process.http()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tables_is_told_of() {
    let database = TestDatabase::empty(Engine::Sqlite);
    for arguments in [&["list"][..], &["rotate"], &["retire", "x"], &["master", "--reseal"]] {
        let refused = keys(arguments, &variables(&database.url, &[])).await.unwrap_err();
        assert!(refused.contains("identity migrate run"), "{refused}");
    }
}
