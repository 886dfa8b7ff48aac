//! Connections: which are served, and how they end.

use std::time::Duration;

use identity::proto::v1::GetUserRequest;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use identity::server::admission::Closed;
use identity::server::drain::Drained;
use identity::server::edge::EdgeSettings;
use identity::server::listener::ListenerSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::raw::{RawClient, get_user};
use crate::server::{Event, Server};

fn waiting() -> GetUserRequest {
    GetUserRequest { user_id: "wait".to_owned(), ..GetUserRequest::default() }
}

/// Far above what any test here takes: a drain that needs it has waited for its deadline.
fn with_drain_timeout(drain_timeout: Duration) -> Server {
    Server::with(ListenerSettings { drain_timeout, ..Default::default() }, EdgeSettings::default())
}

#[tokio::test]
async fn the_handler_sees_the_address_of_the_client() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    assert!(client.get_user("", &[]).await.user().email.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn what_is_not_http2_is_closed_and_others_are_served_on() {
    let server = Server::start();
    for bytes in
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"\0\x01rubbish", b"PRI * HTTP/2.0\r\n\r\nXX"]
    {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // The server closes without having read everything, which may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    let mut client = RawClient::connect(server.addr).await;
    assert_eq!(client.get_user("", &[]).await.status().code(), Code::Ok);
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // An empty SETTINGS frame, which is answered with the server's own: type 4, stream 0.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!((header[3], &header[5..]), (4, [0; 4].as_slice()));
}

#[tokio::test]
async fn a_client_that_does_not_begin_http2_in_time_is_closed() {
    let settings = ListenerSettings { preface_timeout: Duration::from_millis(20), ..Default::default() };
    let server = Server::with(settings, EdgeSettings::default());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

/// Connections become no older than a moment; then they have `drain_timeout` to end.
fn short_lived(drain_timeout: Duration) -> Server {
    let max_age = Some(Duration::from_millis(50));
    let settings = ListenerSettings { max_age, drain_timeout, ..Default::default() };
    Server::with(settings, EdgeSettings::default())
}

#[tokio::test]
async fn idle_clients_do_not_keep_their_places_beyond_the_age_of_a_connection() {
    let server = short_lived(Duration::from_secs(600));
    let mut idle = RawClient::connect(server.addr).await;
    idle.closed().await;
    assert_eq!(server.admission.closed(Closed::Age), 1);
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_called_is_closed_and_a_watch_keeps_it() {
    let max_idle = Some(Duration::from_millis(50));
    let server = Server::with(ListenerSettings { max_idle, ..Default::default() }, EdgeSettings::default());
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    // One after the other, so that the first has been open for several times the limit.
    for closed in 1..=4 {
        let mut idle = RawClient::pinging(server.addr).await;
        assert_eq!(idle.get_user("", &[]).await.status().code(), Code::Ok);
        idle.closed().await;
        assert_eq!(server.admission.closed(Closed::Idle), closed);
    }
    server.health.set_ready(true);
    assert!(watch.message().await.unwrap().is_some());
}

#[tokio::test]
async fn a_call_in_flight_is_finished_on_a_connection_that_is_too_old() {
    let mut server = short_lived(Duration::from_secs(600));
    let mut client = RawClient::connect(server.addr).await;
    let mut in_flight = client.clone();
    let call = tokio::spawn(async move { in_flight.get_user("wait", &[]).await });
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    while client.try_send(get_user("", &[])).await.is_ok() {}
    assert!(!call.is_finished());
    server.gate.add_permits(1);
    assert_eq!(call.await.unwrap().status().code(), Code::Ok);
}

#[tokio::test]
async fn a_watch_ends_with_a_connection_that_is_too_old() {
    let server = short_lived(Duration::from_millis(50));
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    assert!(watch.message().await.is_err());
    let mut next = RawClient::connect(server.addr).await;
    assert_eq!(next.get_user("", &[]).await.status().code(), Code::Ok);
}

#[tokio::test]
async fn a_call_in_flight_is_finished_before_the_server_stops() {
    let mut server = with_drain_timeout(Duration::from_secs(60));
    let mut client = IdentityServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.get_user(waiting()).await });
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    server.shutdown.cancel();
    server.gate.add_permits(1);
    assert!(call.await.unwrap().is_ok());
    assert_eq!(server.drained().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_at_the_drain_timeout() {
    let mut server = with_drain_timeout(Duration::from_millis(50));
    let mut client = IdentityServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.get_user(waiting()).await });
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    server.shutdown.cancel();
    assert!(call.await.unwrap().is_err());
    assert_eq!(server.events.recv().await, Some(Event::Dropped));
    assert_eq!(server.drained().await, Drained { cut_off: 1 });
}

#[tokio::test]
async fn neither_a_silent_socket_nor_an_idle_connection_holds_up_the_exit() {
    let server = with_drain_timeout(Duration::from_secs(600));
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut idle = RawClient::connect(server.addr).await;
    assert_eq!(idle.get_user("", &[]).await.status().code(), Code::Ok);
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_never_answers_the_goodbye_does_not_hold_up_the_exit() {
    let server = with_drain_timeout(Duration::from_secs(600));
    let mut mute = TcpStream::connect(server.addr).await.unwrap();
    mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    mute.read_exact(&mut [0; 9]).await.unwrap();
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn an_open_watch_does_not_hold_up_the_exit_even_when_nobody_ends_it() {
    let server = with_drain_timeout(Duration::from_secs(600));
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
    assert!(watch.message().await.is_err());
}

#[tokio::test]
async fn a_stopped_server_accepts_nobody() {
    let server = Server::start();
    let addr = server.addr;
    assert!(server.stop().await.is_clean());
    assert!(TcpStream::connect(addr).await.is_err());
}
