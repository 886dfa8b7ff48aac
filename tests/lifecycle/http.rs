//! The side port of the real binary: metrics and probes over HTTP.

use std::collections::HashSet;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Barrier, Health, eventually, soon, variables};
use crate::support::postgres::Cluster;
use crate::support::process::{Process, identity};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(metrics_tell_what_becomes_of_passwords, metrics_are_well_formed_and_each_is_explained);

async fn metrics_tell_what_becomes_of_passwords(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let http = process.http();

    let before = scrape(http).await;
    assert_eq!(metric(&before, "identity_ready"), 1.0);
    assert_eq!(metric(&before, "identity_password_lanes_in_use"), 0.0);
    assert!(metric(&before, "identity_password_lanes") >= 1.0);
    assert!(before.contains(&format!("identity_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    client.register(registration("ada@example.com")).await.unwrap();
    client.login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(client.login("nobody@example.com", PASSWORD).await.unwrap_err().code(), Code::Unauthenticated);

    let after = scrape(http).await;
    let grown = |name| metric(&after, name) - metric(&before, name);
    assert_eq!(grown("identity_password_hashes_total"), 3.0);
    assert_eq!(grown("identity_password_wait_seconds_count"), 3.0);
    assert_eq!(grown(r#"identity_password_wait_seconds_bucket{le="+Inf"}"#), 3.0);
    for reason in ["full", "share", "deadline"] {
        let name = format!(r#"identity_password_refused_total{{reason="{reason}"}}"#);
        assert_eq!(metric(&after, &name), 0.0, "{name}");
    }
    for name in ["queue_length", "rehashes_waiting", "calls"] {
        assert_eq!(metric(&after, &format!("identity_password_{name}")), 0.0, "{name}");
    }
    let lanes = metric(&after, "identity_password_lanes");
    assert!(metric(&after, "identity_password_calls_limit") > lanes);
    for _ in 0..10 {
        client.login("nobody@example.com", PASSWORD).await.unwrap_err();
    }
    let limited = r#"identity_limit_refusals_total{limit="attempts"}"#;
    assert_eq!(metric(&after, limited), 0.0);
    assert_eq!(metric(&scrape(http).await, limited), 1.0);
    assert!(after.ends_with("# EOF\n"), "{after}");
    for secret in ["ada", "example.com", PASSWORD] {
        assert!(!after.contains(secret), "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code_and_what_clients_make_up_is_no_method() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    let names = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = scrape(process.http()).await;

    let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
    client.get_user(Some(&token), "").await.unwrap();
    client.get_user(None, "").await.unwrap_err();
    client.login("ada@example.com", "wrong horse battery").await.unwrap_err();
    Health::of(process.address).await.check("readiness").await.unwrap();
    for path in ["/identity.v1.IdentityService/MadeUp", "/made.up.Service/Login"] {
        let mut unknown = tonic::client::Grpc::new(client.channel.clone());
        unknown.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status = unknown.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }

    let service = "identity.v1.IdentityService";
    let expected = [
        (format!("{service}/Register"), "OK", 1.0),
        (format!("{service}/GetUser"), "OK", 1.0),
        (format!("{service}/GetUser"), "UNAUTHENTICATED", 1.0),
        (format!("{service}/Login"), "UNAUTHENTICATED", 1.0),
        (format!("{service}/Login"), "OK", 0.0),
        ("grpc.health.v1.Health/Check".to_owned(), "OK", 1.0),
        ("unknown".to_owned(), "UNIMPLEMENTED", 2.0),
    ];
    let counter =
        |method: &str, code| format!(r#"identity_grpc_calls_total{{method="{method}",code="{code}"}}"#);
    // A call is counted when its reply has been sent, which its client may see a moment before.
    eventually("all calls are counted", async || {
        let now = scrape(process.http()).await;
        expected.iter().all(|(method, code, count)| metric(&now, &counter(method, code)) == *count)
    })
    .await;
    let after = scrape(process.http()).await;
    let durations = format!(r#"identity_grpc_call_duration_seconds_count{{method="{service}/GetUser"}}"#);
    assert_eq!(metric(&after, &durations), 2.0);
    // Whatever is called, the metrics are the same.
    assert_eq!(names(&before), names(&after));
}

async fn metrics_are_well_formed_and_each_is_explained(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();

    let (head, text) = reply(process.http(), &request_for("/metrics")).await;
    assert!(
        head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
    );
    let documented = std::fs::read_to_string("docs/metrics.md").unwrap();
    let mut of_type = ("", "");
    let mut seen = HashSet::new();
    for line in text.strip_suffix("# EOF\n").unwrap().lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            of_type = declared.split_once(' ').unwrap();
            let suffix = match of_type.1 {
                "counter" => "_total",
                "info" => "_info",
                "gauge" | "histogram" => "",
                other => panic!("{other}"),
            };
            assert!(documented.contains(&format!("| `{}{suffix}` | {} |", of_type.0, of_type.1)), "{line}");
        } else if !line.starts_with("# ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(name.starts_with(of_type.0), "{line} is not of {of_type:?}");
            assert!(seen.insert(name), "{line}");
        }
    }
    let lane = if engine == Engine::Sqlite { "writes" } else { "operators" };
    assert!(metric(&text, &format!(r#"identity_database_connections{{lane="{lane}"}}"#)) >= 1.0);
    assert!(metric(&text, "process_start_time_seconds") > 1_700_000_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_counted() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let dear = [("IDENTITY_BCRYPT_COST", "16"), ("IDENTITY_HASH_MAX_WAIT", "100ms")];
    let mut process = Process::start(variables(&database.url, &dear)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    assert_eq!(
        client.login("nobody@example.com", PASSWORD).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let refused = r#"identity_password_refused_total{reason="deadline"}"#;
    assert_eq!(metric(&scrape(process.http()).await, refused), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_over_http_say_what_those_over_grpc_say() {
    let cluster = block_in_place(Cluster::start);
    let database = block_in_place(|| cluster.create_database());
    block_in_place(|| cluster.stop());
    let process = Process::start(variables(&database.url, &[])).await;
    let mut readiness = Health::of(process.address).await.watch("readiness").await;
    readiness.becomes(ServingStatus::NotServing).await;
    assert_alive_and(false, process.http()).await;

    block_in_place(|| cluster.restart());
    readiness.becomes(ServingStatus::Serving).await;
    assert_alive_and(true, process.http()).await;

    block_in_place(|| cluster.stop());
    readiness.becomes(ServingStatus::NotServing).await;
    assert_alive_and(false, process.http()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_ends_at_once_with_a_signal_to_stop_and_livez_goes_on() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[("IDENTITY_DRAIN_DELAY", "1h")])).await;
    soon("the server is ready", process.examples()).await;
    let http = process.http();
    let mut readiness = Health::of(process.address).await.watch("readiness").await;
    readiness.becomes(ServingStatus::Serving).await;
    assert_alive_and(true, http).await;
    process.signal("TERM");
    readiness.becomes(ServingStatus::NotServing).await;
    assert_alive_and(false, http).await;
    soon("the server ends", process.interrupted()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_side_port_answers_while_calls_are_drained() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let others = [("IDENTITY_DRAIN_TIMEOUT", "10m"), ("IDENTITY_LOG", "debug")];
    let mut process = Process::start(variables(&database.url, &others)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    client.register(registration("ada@example.com")).await.unwrap();
    let barrier = Barrier::raise(&database).await;
    let before = process.log().len();
    let call = tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await });
    eventually("the write waits", async || process.log()[before..].contains("BEGIN IMMEDIATE")).await;

    process.signal("TERM");
    eventually("no call is let in", async || TcpStream::connect(process.address).await.is_err()).await;
    assert_alive_and(false, process.http()).await;
    assert_eq!(metric(&scrape(process.http()).await, "identity_ready"), 0.0);
    barrier.lower();
    soon("the call ends", call).await.unwrap().unwrap();
    let (status, log) = soon("the server ends", process.ended()).await;
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_side_port_does_not_serve_is_refused() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let process = Process::start(variables(&database.url, &[])).await;
    let http = process.http();
    assert_eq!(get(http, "/").await.0, 404);
    assert_eq!(get(http, "/metrics/../etc/passwd").await.0, 404);
    assert_eq!(get(http, "/identity.v1.IdentityService/GetUser").await.0, 404);
    let request = |line: &str| format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n");
    for (request, status) in [
        (request("POST /metrics HTTP/1.1"), 405),
        (request("CONJURE /readyz HTTP/1.1"), 405),
        (request("HEAD /livez HTTP/1.1"), 200),
        (request("rubbish"), 400),
        (request(&format!("GET /livez HTTP/1.1\r\nx: {}", "x".repeat(20_000))), 431),
    ] {
        assert_eq!(send(http, &request).await.0, status, "{}", &request[..20]);
    }
    assert_eq!(get(http, "/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_side_port_do_not_hold_up_the_exit() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let mut half = TcpStream::connect(process.http()).await.unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    let _silent = TcpStream::connect(process.http()).await.unwrap();
    process.signal("TERM");
    let (status, log) = soon("the server ends", process.ended()).await;
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_port_that_is_taken_is_told_by_name_and_one_that_is_off_is_none() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let listens = variables(&database.url, &[("IDENTITY_HTTP_LISTEN", &address)]);
    let (code, _, err) = soon("the start ends", identity(&["serve"], &listens)).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("cannot listen on {address} (IDENTITY_HTTP_LISTEN)")), "{err}");

    // The line that says where the server listens names one place then.
    let mut process = Process::start(variables(&database.url, &[("IDENTITY_HTTP_LISTEN", "off")])).await;
    assert!(!process.has_http());
    soon("the server is ready", process.examples()).await;
}

/// Asserts what both probes say.
async fn assert_alive_and(ready: bool, address: SocketAddr) {
    assert_eq!(get(address, "/livez").await, (200, "alive\n".to_owned()));
    let readyz = if ready { (200, "ready\n") } else { (503, "not ready\n") };
    assert_eq!(get(address, "/readyz").await, (readyz.0, readyz.1.to_owned()));
}

/// A GET's status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    send(address, &request_for(path)).await
}

pub(crate) fn request_for(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// Status and body of the reply to `request`.
async fn send(address: SocketAddr, request: &str) -> (u16, String) {
    let (head, body) = reply(address, request).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// Head and body of the reply to `request`.
pub(crate) async fn reply(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    soon("the reply", stream.read_to_string(&mut reply)).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (format!("{head}\r\n"), body.to_owned())
}

pub(crate) async fn scrape(address: SocketAddr) -> String {
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200, "{text}");
    text
}

/// The value of a metric.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
}
