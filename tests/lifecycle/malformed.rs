//! Requests that HTTP/2 itself refuses, before a service sees them.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{eventually, soon, variables};
use super::http::{metric, scrape};
use crate::support::process::Process;
use crate::support::service::{Engine, TestDatabase};

/// What gRPC C-core sends when it is given these two addresses.
const LIST: &str = "10.0.0.1:50051,10.0.0.2:50051";

const MALFORMED: &str = r#"identity_streams_malformed_total{port="grpc"}"#;

/// Frame types, flags and an error code (RFC 9113, 6 and 7).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

/// SERVING, as gRPC frames it.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, ServingStatus::Serving as u8];

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With these messages.
    Answered(Vec<u8>),
    /// With this error code.
    Reset(Vec<u8>),
}

/// A client that writes its frames by itself: no library sends such an authority.
struct FrameClient {
    stream: TcpStream,
    next: u32,
}

impl FrameClient {
    async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut client = Self { stream, next: 1 };
        client.send(SETTINGS, 0, 0, &[]).await;
        client
    }

    /// Begins a Check of the health service, and returns its stream.
    async fn begin(&mut self, authority: &str) -> u32 {
        let stream = self.next;
        self.next += 2;
        // `:method: POST` and `:scheme: http` stand in HPACK's static table (RFC 7541, A).
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // A literal that goes into no table, with a name of its own (RFC 7541, 6.2.2).
            headers.push(0x00);
            for text in [name, value] {
                headers.push(u8::try_from(text.len()).unwrap());
                headers.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &headers).await;
        stream
    }

    /// Ends a call that was begun, and waits for what becomes of it.
    async fn finish(&mut self, stream: u32) -> End {
        self.send(DATA, END_STREAM, stream, &[0; 5]).await;
        let mut messages = Vec::new();
        loop {
            match soon("the server writes a frame", self.receive()).await {
                (id, RST_STREAM, _, code) if id == stream => return End::Reset(code),
                (id, DATA, _, data) if id == stream => messages.extend(data),
                (id, HEADERS, flags, _) if id == stream && flags & END_STREAM != 0 => {
                    return End::Answered(messages);
                }
                _ => {}
            }
        }
    }

    async fn check(&mut self, authority: &str) -> End {
        let stream = self.begin(authority).await;
        self.finish(stream).await
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame: its stream, type, flags and payload.
    async fn receive(&mut self) -> (u32, u8, u8, Vec<u8>) {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).await.unwrap();
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        self.stream.read_exact(&mut payload).await.unwrap();
        (u32::from_be_bytes(stream), kind, flags, payload)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_no_host_name_is_counted_and_told_once_a_connection_and_holds_up_nobody() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let mut other = FrameClient::connect(process.address).await;
    let other_call = other.begin("identity").await;

    let mut client = FrameClient::connect(process.address).await;
    let good_call = client.begin("identity:50051").await;
    for _ in 0..3 {
        assert_eq!(client.check(LIST).await, End::Reset(PROTOCOL_ERROR.to_vec()));
    }
    assert_eq!(client.finish(good_call).await, End::Answered(SERVING.to_vec()));
    assert_eq!(client.check("identity").await, End::Answered(SERVING.to_vec()));
    assert_eq!(other.finish(other_call).await, End::Answered(SERVING.to_vec()));
    assert_eq!(metric(&scrape(process.http()).await, MALFORMED), 3.0);

    let mut istio = FrameClient::connect(process.address).await;
    assert_eq!(istio.check("outbound|50051||identity").await, End::Reset(PROTOCOL_ERROR.to_vec()));
    assert_eq!(metric(&scrape(process.http()).await, MALFORMED), 4.0);
    let peers = [&client, &istio].map(|client| client.stream.local_addr().unwrap().to_string());
    eventually("both connections are told of", async || told(&process.log()) == peers).await;
    process.signal("TERM");
    let (_, log) = soon("the server stops", process.ended()).await;
    assert_eq!(told(&log), peers, "{log}");
}

/// The clients that the log warns of, in its order.
fn told(log: &str) -> Vec<String> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let about =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("default_authority"));
    lines
        .filter(about)
        .inspect(|line| assert_eq!(line["level"], "WARN", "{line}"))
        .map(|line| line["peer.address"].as_str().unwrap().to_owned())
        .collect()
}
