//! What the log has of a call.
//!
//! These tests run on one thread, so that a subscriber of their own sees the server's lines.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use http::Request;
use http_body_util::Full;
use identity::proto::v1::GetUserRequest;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use serde_json::Value;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::MakeWriter;

use crate::raw::{RawClient, grpc};
use crate::server::{Event, Server};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn collect() -> (Self, DefaultGuard) {
        // Were the collector the only one, a line that another thread is the first to come to, which
        // collects none, would be switched off for all threads.
        static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
        ANOTHER.get_or_init(|| Dispatch::new(NoSubscriber::new()));
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The lines of ended calls: level, method, code, request id.
    fn calls(&self) -> Vec<[String; 4]> {
        let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let of_calls = self.lines().into_iter().filter(|line| line["message"] == "call finished");
        of_calls
            .inspect(|line| {
                assert!(line["rpc.duration_ms"].is_f64(), "{line}");
                assert!(text(line, "peer.address").starts_with("127.0.0.1:"), "{line}");
            })
            .map(|line| ["level", "rpc.method", "rpc.code", "request.id"].map(|field| text(&line, field)))
            .collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn every_call_leaves_one_line_whatever_became_of_it() {
    let (log, _guard) = Log::collect();
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let id = |id| [("x-request-id", id)];
    client.get_user("", &id("ok")).await;
    client.get_user("panic", &id("panic")).await;
    client.send(grpc("/identity.v1.IdentityService/Login", &id("refused"), vec![0; 5])).await;
    client.send(grpc("/no.Such/Method", &id("unknown"), vec![0; 5])).await;
    client.send(grpc("/grpc.health.v1.Health/Check", &id("health"), vec![0; 5])).await;
    let json = Request::post("http://identity/x?secret=1").header("x-request-id", "json");
    client.send(json.body(Full::default()).unwrap()).await;
    assert!(server.stop().await.is_clean());

    let expected = [
        ["INFO", "identity.v1.IdentityService/GetUser", "OK", "ok"],
        ["INFO", "identity.v1.IdentityService/GetUser", "INTERNAL", "panic"],
        ["INFO", "identity.v1.IdentityService/Login", "UNAUTHENTICATED", "refused"],
        ["INFO", "no.Such/Method", "UNIMPLEMENTED", "unknown"],
        ["DEBUG", "grpc.health.v1.Health/Check", "OK", "health"],
        ["INFO", "x", "UNKNOWN", "json"],
    ];
    assert_eq!(log.calls(), expected.map(|line| line.map(str::to_owned)));
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_is_logged_as_cancelled() {
    let (log, _guard) = Log::collect();
    let mut server = Server::start();
    let mut client = IdentityServiceClient::new(server.channel().await);
    let call = client.get_user(GetUserRequest { user_id: "wait".to_owned(), ..GetUserRequest::default() });
    tokio::select! {
        _ = call => panic!("nothing lets the call go on"),
        event = server.events.recv() => assert_eq!(event, Some(Event::Entered)),
    }
    assert!(server.stop().await.is_clean());
    let codes: Vec<_> = log.calls().into_iter().map(|[_, _, code, _]| code).collect();
    assert_eq!(codes, ["CANCELLED"]);
}

#[tokio::test]
async fn a_panic_is_logged_as_an_error_with_the_id_of_its_call_and_without_its_text() {
    let (log, _guard) = Log::collect();
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    client.get_user("panic", &[("x-request-id", "p1")]).await;
    assert!(server.stop().await.is_clean());
    let errors: Vec<_> = log.lines().into_iter().filter(|line| line["level"] == "ERROR").collect();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!(error["span"]["request.id"], "p1");
    assert!(!error.to_string().contains("secret"));
}
