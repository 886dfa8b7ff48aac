//! Replies that nobody reads: how much they hold, and for how long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use identity::server::admission::Closed;
use identity::server::budgets::{BudgetSettings, CutShort, Exhausted, StreamKind};
use identity::server::drain::Drained;
use identity::server::edge::EdgeSettings;
use identity::server::listener::ListenerSettings;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt as _;

use crate::raw::{RawClient, frame, from_source, get_user, grpc};
use crate::server::{Limits, Server};

/// Far above what anything here takes.
const BOUND: Duration = Duration::from_secs(20);

const ATTACKER: [u8; 4] = [127, 0, 0, 2];

/// A client that lets the server send `window` bytes of each reply.
async fn unreading(server: &Server, window: u32) -> RawClient {
    RawClient::with_window(from_source(ATTACKER, server.addr).await, window).await
}

fn with_write_timeout(write_timeout: Duration) -> ListenerSettings {
    ListenerSettings { write_timeout, ..ListenerSettings::default() }
}

/// Waits until the calls hold nothing.
async fn nothing_is_held(server: &Server) {
    let released = async {
        while server.budgets.call_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, released).await.expect("what calls hold is given back");
}

#[tokio::test]
async fn an_unread_reply_is_given_up_at_the_deadline_of_its_call() {
    let server = Server::with(with_write_timeout(BOUND), EdgeSettings::default());
    let mut client = unreading(&server, 0).await;
    let mut good = RawClient::connect(server.addr).await;
    let reply = client.head(get_user("200000", &[("grpc-timeout", "300m")])).await.unwrap();
    assert!(server.budgets.call_bytes() > 200_000);
    assert_eq!(good.get_user("", &[]).await.status().code(), Code::Ok);
    assert!(timeout(BOUND / 2, reply.into_body().collect()).await.unwrap().is_err());
    nothing_is_held(&server).await;
    assert_eq!(server.budgets.cut_short(CutShort::Deadline), 1);
    // The connection is as good as before.
    let mut again = client.clone();
    assert!(again.head(get_user("", &[])).await.is_ok());
}

#[tokio::test]
async fn an_unread_reply_is_given_up_when_nothing_of_it_is_read_for_too_long() {
    // Nothing, some of it, and all but its last bytes.
    join_all([0, 1, 70_000, 199_990, 200_000].map(async |window| {
        let server = Server::with(with_write_timeout(Duration::from_secs(1)), EdgeSettings::default());
        let mut client = unreading(&server, window).await;
        let reply = client.head(get_user("200000", &[])).await.unwrap();
        // The client reads nothing before the server gives up.
        nothing_is_held(&server).await;
        assert!(timeout(BOUND, reply.into_body().collect()).await.unwrap().is_err());
        assert!(client.ready().await.is_ok());
        assert_eq!(server.budgets.cut_short(CutShort::WriteTimeout), 1);
        assert_eq!(server.admission.closed(Closed::Stalled), 0);
    }))
    .await;
}

#[tokio::test]
async fn a_reply_that_is_read_slowly_is_read_to_its_end() {
    let server = Server::with(with_write_timeout(Duration::from_millis(400)), EdgeSettings::default());
    let mut client = unreading(&server, 20_000).await;
    let reply = client.head(get_user("300000", &[])).await.unwrap();
    let mut body = reply.into_body();
    let (mut bytes, mut ended) = (0, None);
    let began = Instant::now();
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes += data.len(),
            Err(frame) => ended = frame.into_trailers().ok(),
        }
        // A reader that takes its time, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(500));
    assert!(bytes > 300_000);
    assert_eq!(ended.unwrap()["grpc-status"], "0");
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn a_small_reply_that_is_stuck_behind_a_tiny_window_ends_with_its_connection() {
    let server = Server::with(with_write_timeout(Duration::from_millis(100)), EdgeSettings::default());
    let mut client = unreading(&server, 10).await;
    let reply = client.head(get_user("500", &[])).await.unwrap();
    nothing_is_held(&server).await;
    assert!(reply.into_body().collect().await.is_err());
    timeout(BOUND, client.closed()).await.unwrap();
    assert_eq!(server.admission.closed(Closed::Stalled), 1);
}

/// A connection that stops reading when it is told to.
struct Deaf {
    stream: TcpStream,
    is_deaf: Arc<AtomicBool>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_deaf.load(Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_its_socket_is_closed_and_nothing_is_kept_for_it() {
    let server = Server::with(with_write_timeout(Duration::from_millis(200)), EdgeSettings::default());
    let is_deaf = Arc::new(AtomicBool::new(false));
    let stream = from_source(ATTACKER, server.addr).await;
    let client =
        RawClient::with_window(Deaf { stream, is_deaf: Arc::clone(&is_deaf) }, i32::MAX as u32).await;
    let mut good = RawClient::connect(server.addr).await;
    assert_eq!(client.clone().get_user("", &[]).await.status().code(), Code::Ok);
    is_deaf.store(true, Relaxed);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.try_send(get_user("200000", &[])).await })
        })
        .collect();
    let closed = async {
        while server.admission.closed(Closed::Stalled) == 0 {
            assert_eq!(good.get_user("", &[]).await.status().code(), Code::Ok);
        }
    };
    timeout(BOUND, closed).await.expect("the connection is closed");
    nothing_is_held(&server).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn unread_replies_have_budgets_and_a_reply_without_room_is_refused_at_once() {
    let budgets =
        BudgetSettings { call_bytes: 4_000_000, call_bytes_per_connection: 1_000_000, ..Default::default() };
    let listener = with_write_timeout(BOUND);
    let server = Server::limited(Limits { budgets, listener, ..Limits::default() });
    let mut unread = Vec::new();
    let mut clients = Vec::new();
    let mut refused = 0;
    for _ in 0..4 {
        let mut client = unreading(&server, 0).await;
        for _ in 0..20 {
            let reply = client.head(get_user("100000", &[])).await.unwrap();
            // A refusal has no body, so it is read whatever the window.
            match reply.headers().get("grpc-status") {
                Some(status) => {
                    assert_eq!(status, "8");
                    refused += 1;
                }
                None => unread.push(reply),
            }
        }
        clients.push(client);
    }
    // Nine for each of two connections, and the rest up to half of all.
    assert_eq!((unread.len(), refused), (19, 61));
    assert!(server.budgets.call_bytes() <= 2_000_000);
    assert!(server.budgets.refused(Exhausted::ConnectionBytes) > 0);
    assert!(server.budgets.refused(Exhausted::SourceBytes) > 0);

    // The refusal says when to come back, as every refusal for want of room does.
    let mut reading = RawClient::over(from_source(ATTACKER, server.addr).await).await.unwrap();
    let reply = reading.get_user("100000", &[]).await;
    assert_eq!(reply.refusal(), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(reply.status().get_details_retry_info().is_some());
    // Others are served meanwhile.
    let mut good = RawClient::connect(server.addr).await;
    for _ in 0..10 {
        assert_eq!(good.get_user("500000", &[]).await.status().code(), Code::Ok);
    }
    // What its client gives up is given back.
    drop(unread);
    nothing_is_held(&server).await;
    assert_eq!(reading.get_user("100000", &[]).await.status().code(), Code::Ok);
}

/// Asks the reflection service for the file that says most.
fn reflection() -> Request<Full<Bytes>> {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(crate::server::SERVICE.to_owned())),
    };
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    grpc(path, &[], frame(&question.encode_to_vec()).repeat(50))
}

#[tokio::test]
async fn reflection_has_a_deadline_whether_its_replies_are_read_or_not() {
    let edge = EdgeSettings { default_deadline: Duration::from_millis(200), ..Default::default() };
    let server = Server::with(with_write_timeout(BOUND), edge);
    let mut client = unreading(&server, 0).await;
    let reply = client.head(reflection()).await.unwrap();
    nothing_is_held(&server).await;
    assert!(reply.into_body().collect().await.is_err());
    assert_eq!(server.budgets.cut_short(CutShort::Deadline), 1);
    assert_eq!(server.budgets.streams(StreamKind::Reflection), 0);
}

#[tokio::test]
async fn reflection_and_watch_streams_are_limited_and_a_newcomer_finds_room() {
    let budgets = BudgetSettings { watches: 4, reflections: 4, ..Default::default() };
    let server = Server::limited(Limits { budgets, ..Limits::default() });
    let watch = || grpc("/grpc.health.v1.Health/Watch", &[], frame(&[]));
    let refusal = |reply: &http::Response<_>| reply.headers().get("grpc-status").map(|code| code == "8");
    let mut attacker = unreading(&server, 0).await;
    let mut open = Vec::new();
    for request in [reflection, watch] as [fn() -> _; 2] {
        let mut refusals = Vec::new();
        for _ in 0..4 {
            let reply = attacker.head(request()).await.unwrap();
            refusals.push(refusal(&reply));
            open.push(reply);
        }
        assert_eq!(refusals, [None, None, Some(true), Some(true)]);
        let mut good = RawClient::connect(server.addr).await;
        let reply = good.head(request()).await.unwrap();
        assert_eq!(refusal(&reply), None);
    }
    assert_eq!(server.budgets.refused(Exhausted::Reflections), 2);
    assert_eq!(server.budgets.refused(Exhausted::Watches), 2);
}

#[tokio::test]
async fn unread_replies_do_not_hold_up_the_exit() {
    let listener =
        ListenerSettings { drain_timeout: 3 * BOUND, ..with_write_timeout(Duration::from_secs(1)) };
    let server = Server::with(listener, EdgeSettings::default());
    let mut unread = Vec::new();
    let mut client = unreading(&server, 0).await;
    for _ in 0..50 {
        unread.push(client.head(get_user("100000", &[])).await.unwrap());
    }
    unread.push(client.head(reflection()).await.unwrap());
    let stopped = timeout(BOUND, server.stop()).await.expect("the server stops");
    assert_eq!(stopped, Drained { cut_off: 0 });
}
