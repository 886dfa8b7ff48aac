//! What a real run writes: one line a call, and nothing that nobody should read.

use std::collections::BTreeSet;

use serde_json::Value;
use tonic::Request;
use tonic::metadata::MetadataValue;

use identity::proto::v1::LoginRequest;

use super::clients::{soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, TestDatabase, on_both_databases, registration};

on_both_databases!(no_level_of_any_part_writes_what_nobody_should_read);

#[tokio::test(flavor = "multi_thread")]
async fn every_call_leaves_one_json_line_with_method_code_duration_and_id() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();
    let mut login = Request::new(LoginRequest { email: "ada@example.com".into(), password: "wrong".into() });
    login.metadata_mut().insert("x-request-id", MetadataValue::from_static("my-login"));
    client.service.clone().login(login).await.unwrap_err();
    client.get_user(None, "").await.unwrap_err();
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;

    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let calls: Vec<_> = lines.iter().filter(|line| line["message"] == "call finished").collect();
    // A line may be written after the answer, and so after that of the next call.
    let seen: BTreeSet<_> =
        calls.iter().map(|line| [&line["rpc.method"], &line["rpc.code"]].map(text)).collect();
    let expected = [("Register", "OK"), ("Login", "UNAUTHENTICATED"), ("GetUser", "UNAUTHENTICATED")];
    let expected =
        expected.map(|(rpc, code)| [format!("identity.v1.IdentityService/{rpc}"), code.to_owned()]);
    assert_eq!((calls.len(), seen), (expected.len(), BTreeSet::from(expected)), "{log}");
    for line in &calls {
        assert!(line["rpc.duration_ms"].is_f64(), "{line}");
        assert!(line["request.id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
    }
    let login = calls.iter().find(|line| text(&line["rpc.method"]).ends_with("/Login")).unwrap();
    assert_eq!(login["request.id"], "my-login");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_fails_is_warned_of() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let postgres = database.postgres.as_ref().unwrap();
    tokio::task::block_in_place(|| postgres.admin("ALTER TABLE request_outcomes RENAME TO elsewhere"));
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;
    let warnings: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line))
        .filter(|line| line["level"] == "WARN" && text(&line["message"]).contains("cannot be deleted"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
}

async fn no_level_of_any_part_writes_what_nobody_should_read(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let parts = [
        "tokio_postgres",
        "postgres_protocol",
        "diesel",
        "diesel_async",
        "bb8",
        "h2",
        "hyper",
        "hyper_util",
        "tonic",
        "tower",
        "tokio",
        "tokio_util",
        "rustls",
        "jsonwebtoken",
        "bcrypt",
        "mio",
        "runtime",
    ];
    let filter = parts.iter().fold("trace".to_owned(), |filter, part| format!("{filter},{part}=trace"));
    let mut process = Process::start(variables(&database.url, &[("IDENTITY_LOG", &filter)])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));

    let (email, password) = ("Zuleika.Quixote@Example.COM", "horse xylophone battery");
    let request = || identity::proto::v1::RegisterRequest {
        password: password.into(),
        first_name: "Zuleikafirst".into(),
        last_name: "Quixotelast".into(),
        tenant_name: "Secretive Engines".into(),
        ..registration(email)
    };
    let registered = client.register(request()).await.unwrap();
    client.register(request()).await.unwrap_err();
    let too_long =
        identity::proto::v1::RegisterRequest { first_name: "Zuleikafirst".repeat(50), ..request() };
    client.register(too_long).await.unwrap_err();
    let logged_in = client.login(email, password).await.unwrap();
    client.login(email, "wrong xylophone").await.unwrap_err();
    client.login("nobody.quixote@example.com", password).await.unwrap_err();
    client.get_user(Some(&logged_in.access_token), "").await.unwrap();
    client.get_user(Some(&logged_in.access_token), "Zuleikafirst").await.unwrap_err();
    let forged = format!("{}x", logged_in.access_token);
    client.get_user(Some(&forged), "").await.unwrap_err();
    client.get_user(Some(&logged_in.refresh_token), "").await.unwrap_err();
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;

    // There was something to see: the calls, the SQL, and what HTTP/2 did.
    for text in ["call finished", "login_names", "\"target\":\"h2::"] {
        assert!(log.contains(text), "{text} is not in the log");
    }
    let tokens =
        [registered.access_token, registered.refresh_token, logged_in.access_token, logged_in.refresh_token];
    let parts_of_tokens = tokens.iter().flat_map(|token| token.split('.').skip(1)).map(str::to_owned);
    let plain = [
        "zuleika",
        "quixote",
        "xylophone",
        "secretive engines",
        "$2b$",
        "bearer",
        "example.com",
        crate::support::service::MASTER_KEY,
    ];
    let log = log.to_lowercase();
    for secret in plain.into_iter().map(str::to_owned).chain(tokens.iter().cloned()).chain(parts_of_tokens) {
        let at = log.find(&secret.to_lowercase());
        let around = at.map(|at| &log[at.saturating_sub(500)..(at + 200).min(log.len())]);
        assert_eq!(around, None, "{secret} is in the log");
        // As a list of bytes, the way `Debug` shows a buffer.
        let bytes: Vec<_> = secret.bytes().take(12).map(|byte| byte.to_string()).collect();
        assert!(!log.contains(&bytes.join(", ")), "{secret} is in the log, as bytes");
    }
}
