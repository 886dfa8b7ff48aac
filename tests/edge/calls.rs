//! Request ids, deadlines, and the refusals that no handler makes.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use identity::proto::v1::{GetUserRequest, LoginRequest};
use identity::server::edge::EdgeSettings;
use identity::server::listener::ListenerSettings;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::raw::{GET_USER, RawClient, frame, grpc, refusal};
use crate::server::{Event, Server};

fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test]
async fn the_id_that_a_client_sends_reaches_the_handler_and_comes_back() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let reply = client.get_user("", &[("x-request-id", "trace.7-A_b")]).await;
    assert_eq!((reply.request_id(), reply.user().id.as_str()), ("trace.7-A_b", "trace.7-A_b"));
}

#[tokio::test]
async fn a_call_without_an_id_or_with_a_harmful_one_gets_a_uuid() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let too_long = "x".repeat(65);
    for headers in [vec![], vec![("x-request-id", "a b")], vec![("x-request-id", too_long.as_str())]] {
        let reply = client.get_user("", &headers).await;
        assert_eq!(Uuid::parse_str(reply.request_id()).unwrap().get_version_num(), 7);
        assert_eq!(reply.user().id, reply.request_id());
    }
}

#[tokio::test]
async fn a_handlers_refusal_carries_the_id_beside_its_own_details() {
    let server = Server::start();
    let mut client = IdentityServiceClient::new(server.channel().await);
    let status = client.login(LoginRequest::default()).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::Unauthenticated, "LOGIN_FAILED"));
    assert!(status.metadata().contains_key("x-request-id"));
}

#[tokio::test]
async fn what_is_not_grpc_is_refused_in_terms_of_http() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let json = Request::post(format!("http://identity{GET_USER}")).header("content-type", "application/json");
    let bare = Request::post(format!("http://identity{GET_USER}"));
    for request in [json, bare] {
        let reply = client.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(reply.http_status, 415);
        assert!(!reply.request_id().is_empty());
    }
    let get = Request::get(format!("http://identity{GET_USER}")).header("content-type", "application/grpc");
    let reply = client.send(get.body(Full::default()).unwrap()).await;
    assert_eq!((reply.http_status.as_u16(), reply.metadata["allow"].to_str().unwrap()), (405, "POST"));
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    for timeout in ["", "S", "1", "1x", "-1S", "1.5S", "123456789S"] {
        let reply = client.get_user("", &[("grpc-timeout", timeout)]).await;
        let malformed = refused(Code::InvalidArgument, "MALFORMED_DEADLINE");
        assert_eq!(reply.refusal(), malformed, "{timeout:?}");
    }
}

#[tokio::test]
async fn a_deadline_of_zero_has_passed_before_the_handler_begins() {
    let mut server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let reply = client.get_user("", &[("grpc-timeout", "0m")]).await;
    assert_eq!(reply.refusal(), refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(server.events.try_recv().is_err());
}

#[tokio::test]
async fn a_call_has_the_default_deadline_and_an_absurd_one_is_shortened() {
    let settings = EdgeSettings {
        default_deadline: Duration::from_secs(1_000),
        max_deadline: Duration::from_secs(2_000),
        ..Default::default()
    };
    let server = Server::with(ListenerSettings::default(), settings);
    let mut client = RawClient::connect(server.addr).await;
    let mut seconds_left = async |headers: &[(&'static str, &str)]| {
        client.get_user("", headers).await.user().etag.parse::<f64>().unwrap()
    };
    // Some of it has passed when the handler looks.
    let nearly = |seconds: f64| seconds - 100.0..=seconds;
    assert!(nearly(1_000.0).contains(&seconds_left(&[]).await));
    assert!(nearly(1_500.0).contains(&seconds_left(&[("grpc-timeout", "1500S")]).await));
    assert!(nearly(2_000.0).contains(&seconds_left(&[("grpc-timeout", "99999999H")]).await));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_its_handler_dropped() {
    let mut server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let reply = client.get_user("wait", &[("grpc-timeout", "20m")]).await;
    assert_eq!(reply.refusal(), refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    // On a machine that is busy the deadline may pass before the handler is reached.
    let entered = server.events.try_recv() == Ok(Event::Entered);
    assert!(server.shut_down().await.is_clean());
    assert_eq!(server.events.recv().await, entered.then_some(Event::Dropped));
}

#[tokio::test]
async fn the_handler_of_a_client_that_goes_is_dropped() {
    let mut server = Server::start();
    let mut client = IdentityServiceClient::new(server.channel().await);
    let call = client.get_user(GetUserRequest { user_id: "wait".to_owned(), ..GetUserRequest::default() });
    tokio::select! {
        _ = call => panic!("nothing lets the call go on"),
        event = server.events.recv() => assert_eq!(event, Some(Event::Entered)),
    }
    assert_eq!(server.events.recv().await, Some(Event::Dropped));
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_without_an_invitation_to_retry() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let fits = client.get_user(&"x".repeat(64 * 1024 - 4), &[]).await;
    assert_eq!(fits.status().code(), Code::Ok);
    let reply = client.get_user(&"x".repeat(64 * 1024), &[]).await;
    assert_eq!(reply.refusal(), refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    assert!(reply.status().get_details_retry_info().is_none());
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_the_callers_fault() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let cut_short = frame(&[0x0a, 5, b'a'])[..6].to_vec();
    for (case, body) in [
        ("a field that ends too early", frame(&[0x0a, 5, b'a'])),
        ("a wire type that does not exist", frame(&[0x0f])),
        ("text that is not UTF-8", frame(&[0x0a, 1, 0xff])),
        ("no message", vec![]),
        ("half a message", cut_short),
        ("a frame of an unknown kind", vec![7, 0, 0, 0, 0]),
    ] {
        let reply = client.send(grpc(GET_USER, &[], body)).await;
        assert_eq!(reply.refusal(), refused(Code::InvalidArgument, "MALFORMED_MESSAGE"), "{case}");
    }
}

#[tokio::test]
async fn compression_is_refused_as_grpc_demands() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let compressed = vec![1, 0, 0, 0, 0];
    let undeclared = client.send(grpc(GET_USER, &[], compressed.clone())).await;
    assert_eq!(undeclared.refusal(), refused(Code::Internal, "MALFORMED_MESSAGE"));
    let unknown = client.send(grpc(GET_USER, &[("grpc-encoding", "br")], compressed)).await;
    assert_eq!(unknown.refusal(), refused(Code::Unimplemented, "MALFORMED_MESSAGE"));
    assert!(unknown.metadata.contains_key("grpc-accept-encoding"));
}

#[tokio::test]
async fn an_unknown_method_or_service_is_unimplemented() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    for path in ["/identity.v1.IdentityService/Fly", "/no.such.Service/Call", "/", "/x/y/z"] {
        let reply = client.send(grpc(path, &[], frame(&[]))).await;
        assert_eq!(reply.refusal(), refused(Code::Unimplemented, "UNKNOWN_METHOD"), "{path}");
    }
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_own_call_only_and_tells_nothing() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let reply = client.get_user("panic", &[("x-request-id", "p1")]).await;
    assert_eq!((reply.refusal(), reply.request_id()), (refused(Code::Internal, "INTERNAL"), "p1"));
    assert!(!format!("{reply:?}").contains("secret"));
    assert_eq!(client.get_user("", &[]).await.status().code(), Code::Ok);
}
