//! What a real run writes: one line a call, and nothing that nobody should read.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tonic::Request;
use tonic::metadata::MetadataValue;

use identity::proto::v1::{LoginRequest, LoginResponse};

use super::clients::{assert_unavailable, soon, variables};
use super::http::{metric, scrape};
use crate::support::postgres::Cluster;
use crate::support::process::{Process, identity};
use crate::support::service::{Client, Engine, TestDatabase, on_both_databases, reason, registration};
use crate::support::wire::CountingProxy;

const SERVICE_TOKEN_PREFIX: &str = "identity-service-";

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
    tokio::task::block_in_place(|| {
        postgres.admin(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RAISE EXCEPTION ''no''; END'",
        );
        postgres.admin(
            "CREATE TRIGGER refuses BEFORE DELETE ON request_outcomes
             FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        );
    });
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;
    let warnings: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line))
        .filter(|line| {
            line["level"] == "WARN"
                && text(&line["message"]).contains("cannot remove expired and deleted rows")
        })
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
}

/// A database whose clock says what time it is in three seconds.
async fn database_ahead() -> TestDatabase {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let postgres = database.postgres.as_ref().unwrap();
    tokio::task::block_in_place(|| {
        postgres.admin(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
             AS 'SELECT pg_catalog.clock_timestamp() + interval ''3 seconds'''",
        );
        // Else the system's own functions come first.
        postgres.admin(&format!("ALTER DATABASE {} SET search_path = public, pg_catalog", postgres.name()));
    });
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_differs_from_the_databases_is_warned_of_and_measured() {
    let database = database_ahead().await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let difference = metric(&scrape(process.http()).await, "identity_database_clock_difference_seconds");
    assert!((2.5..3.5).contains(&difference), "{difference}");
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let warnings: Vec<_> = lines.filter(|line| line["database.clock_ahead_ms"].is_i64()).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert_eq!(warnings[0]["level"], "WARN");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_once_and_then_by_the_number_of_calls_that_it_fails() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let proxy = CountingProxy::start(Cluster::shared().addr());
    let url = database.postgres.as_ref().unwrap().url_via(proxy.addr());
    let mut process = Process::start(variables(&url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let registered = client.register(registration("ada@example.com")).await.unwrap();
    proxy.cut().await;
    for _ in 0..20 {
        assert_unavailable(&client.get_user(Some(&registered.access_token), "").await.unwrap_err());
    }
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_outage: Vec<_> =
        lines.iter().filter(|line| text(&line["message"]).contains("the database is unavailable")).collect();
    let first = of_outage.first().expect(&log);
    assert!(!text(&first["error"]).is_empty() && !text(&first["span"]["request.id"]).is_empty(), "{first}");
    assert_eq!(of_outage[1..].iter().filter_map(|line| line["calls"].as_u64()).sum::<u64>(), 19, "{log}");
    assert!(of_outage.len() < 10, "{log}");
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
    // Without a grace, a refresh token that was replaced ends its session.
    let others = [("IDENTITY_LOG", filter.as_str()), ("IDENTITY_REFRESH_GRACE", "0s")];
    let variables = variables(&database.url, &others);
    let mut process = Process::start(variables.clone()).await;
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

    let mut tokens = vec![
        registered.access_token,
        registered.refresh_token,
        logged_in.access_token.clone(),
        logged_in.refresh_token.clone(),
    ];
    tokens.extend(calls_with_tokens(&client, &logged_in).await);
    let new_password = "staple xylophone quagga";
    client.change_password(&logged_in.access_token, password, new_password).await.unwrap();
    client.change_password(&logged_in.access_token, password, new_password).await.unwrap_err();
    tokens.extend(an_old_refresh_token_comes_back(&client, email, new_password).await);
    tokens.push(a_service_calls(&client, &variables, email, new_password).await);
    let mut refused = None;
    for _ in 0..12 {
        refused = Some(client.login(email, "wrong xylophone").await.unwrap_err());
    }
    assert_eq!(reason(&refused.unwrap()), "TOO_MANY_ATTEMPTS");
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;

    // There was something to see: the calls, the SQL, and what HTTP/2 did.
    for text in ["call finished", "login_names", "\"target\":\"h2::"] {
        assert!(log.contains(text), "{text} is not in the log");
    }
    let parts_of_tokens = tokens.iter().flat_map(|token| parts_of(token));
    let plain = [
        "zuleika",
        "quixote",
        "xylophone",
        "secretive engines",
        "$2b$",
        "bearer",
        "example.com",
        "lynx on toaster",
        crate::support::service::MASTER_KEY,
    ];
    let raw_secrets: Vec<_> = tokens.iter().filter_map(|token| secret_bytes(token)).collect();
    assert!(raw_secrets.len() > 4);
    for secret in raw_secrets {
        let numbers: Vec<_> = secret.iter().map(u8::to_string).collect();
        assert!(!log.contains(&numbers.join(", ")), "a token's secret is in the log, as bytes");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!log.contains(&hex), "a token's secret is in the log, in hexadecimal digits");
    }
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

/// Uses and ends sessions, though not that of `logged_in`; returns the tokens that this brought.
async fn calls_with_tokens(client: &Client, logged_in: &LoginResponse) -> Vec<String> {
    let access_token = &logged_in.access_token;
    let next = client.refresh(&logged_in.refresh_token).await.unwrap();
    client.refresh(&format!("{}A", next.refresh_token)).await.unwrap_err();
    let page = client.list_sessions(access_token, 1, "").await.unwrap();
    let page_token = page.next_page_token;
    let others = client.list_sessions(access_token, 1, &page_token).await.unwrap();
    client.list_sessions(access_token, 1, &page_token[1..]).await.unwrap_err();
    client.revoke_session(access_token, &others.sessions[0].id).await.unwrap();
    client.revoke_session(access_token, &next.refresh_token).await.unwrap_err();
    assert!(client.verify_token(&next.access_token).await.unwrap().active);
    assert!(!client.verify_token(&next.refresh_token).await.unwrap().active);
    vec![next.access_token, next.refresh_token, page_token]
}

/// Logs in, and lets a refresh token come back that was replaced twice; returns all tokens.
async fn an_old_refresh_token_comes_back(client: &Client, email: &str, password: &str) -> Vec<String> {
    let first = client.login(email, password).await.unwrap();
    let second = client.refresh(&first.refresh_token).await.unwrap();
    let third = client.refresh(&second.refresh_token).await.unwrap();
    client.refresh(&first.refresh_token).await.unwrap_err();
    client.refresh(&third.refresh_token).await.unwrap_err();
    let last = client.login(email, password).await.unwrap();
    client.logout(&last.refresh_token).await.unwrap();
    client.logout(&last.access_token).await.unwrap_err();
    vec![
        first.access_token,
        first.refresh_token,
        second.access_token,
        second.refresh_token,
        third.access_token,
        third.refresh_token,
        last.access_token,
        last.refresh_token,
    ]
}

/// Lets a service log a user in, with what it knows of him; returns the service's token.
async fn a_service_calls(client: &Client, variables: &[(&str, &str)], email: &str, password: &str) -> String {
    let create = ["service-token", "create", "--name", "billing", "--allow", "all"];
    let (code, token, err) = soon("the token is made", identity(&create, variables)).await;
    assert_eq!(code, Some(0), "{err}");
    let token = token.trim();
    let (start, rest) = token.split_at(SERVICE_TOKEN_PREFIX.len());
    let altered = format!("{start}AAAA{}", &rest[4..]);
    for text in [token, &altered, &token[1..]] {
        let mut login = Request::new(LoginRequest { email: email.into(), password: password.into() });
        for (name, value) in [
            ("x-identity-service-token", text),
            ("x-identity-end-user-address", "192.0.2.77"),
            ("x-identity-end-user-device", "Lynx on Toaster"),
        ] {
            login.metadata_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(client.service.clone().login(login).await.is_ok(), text == token);
    }
    token.to_owned()
}

/// The parts of a token that say nothing by themselves but must be in no log: of an access token all but its
/// header, of a service token what is behind its prefix, and its secret.
fn parts_of(token: &str) -> Vec<String> {
    match token.strip_prefix(SERVICE_TOKEN_PREFIX) {
        // The id is 16 bytes, and a character is six bits.
        Some(encoded) => vec![encoded.to_owned(), encoded[22..].to_owned()],
        None => token.split('.').skip(1).map(str::to_owned).collect(),
    }
}

/// The first bytes of the secret in a refresh token or a service token, as the program holds them.
fn secret_bytes(token: &str) -> Option<[u8; 12]> {
    let (encoded, at) = match token.strip_prefix(SERVICE_TOKEN_PREFIX) {
        Some(encoded) => (encoded, 16),
        None if token.len() == 135 => (token, 1 + 16 + 16 + 4),
        None => return None,
    };
    URL_SAFE_NO_PAD.decode(encoded).unwrap()[at..].first_chunk().copied()
}
