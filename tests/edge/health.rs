//! The health service and reflection, as clients see them.

use identity::server::drain::Drained;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::raw::{RawClient, grpc};
use crate::server::{SERVICE, Server};

const FOLLOWING: [&str; 3] = ["", "readiness", SERVICE];

fn named(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.to_owned() }
}

async fn check(client: &mut HealthClient<Channel>, name: &str) -> Result<ServingStatus, Code> {
    match client.check(named(name)).await {
        Ok(response) => Ok(response.get_ref().status()),
        Err(status) => Err(status.code()),
    }
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Result<Option<ServingStatus>, Status> {
    Ok(watch.message().await?.map(|response| response.status()))
}

#[tokio::test]
async fn only_liveness_serves_from_the_start_and_the_rest_follows_readiness() {
    let server = Server::start();
    let mut client = HealthClient::new(server.channel().await);
    for (ready, expected) in [
        (None, ServingStatus::NotServing),
        (Some(true), ServingStatus::Serving),
        (Some(false), ServingStatus::NotServing),
    ] {
        if let Some(ready) = ready {
            server.health.set_ready(ready);
        }
        assert_eq!(check(&mut client, "liveness").await, Ok(ServingStatus::Serving));
        for name in FOLLOWING {
            assert_eq!(check(&mut client, name).await, Ok(expected), "{name:?}");
        }
    }
}

#[tokio::test]
async fn a_check_of_an_unknown_name_finds_nothing() {
    let server = Server::start();
    let mut client = HealthClient::new(server.channel().await);
    assert_eq!(check(&mut client, "no.such.Service").await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_watch_tells_the_status_at_once_then_each_change_once_and_ends_when_the_server_stops() {
    let server = Server::start();
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(named(SERVICE)).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.unwrap(), Some(ServingStatus::NotServing));
    server.health.set_ready(false);
    server.health.set_ready(true);
    assert_eq!(next(&mut watch).await.unwrap(), Some(ServingStatus::Serving));
    server.health.stop();
    server.health.set_ready(true);
    assert_eq!(next(&mut watch).await.unwrap(), Some(ServingStatus::NotServing));
    assert_eq!(next(&mut watch).await.unwrap(), None);
    assert_eq!(check(&mut client, "liveness").await, Ok(ServingStatus::Serving));
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_watch_of_an_unknown_name_says_so_and_stays_open_until_the_server_stops() {
    let server = Server::start();
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(named("no.such.Service")).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.unwrap(), Some(ServingStatus::ServiceUnknown));
    server.health.set_ready(true);
    // Nothing comes of that; the stream's next event is its end.
    server.health.stop();
    assert_eq!(next(&mut watch).await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_that_asks_for_a_deadline_gets_it() {
    let server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    // The message is empty: the name "".
    let watch = grpc("/grpc.health.v1.Health/Watch", &[("grpc-timeout", "20m")], vec![0; 5]);
    let reply = client.send(watch).await;
    assert_eq!(reply.refusal(), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Server::start();
    let mut client = ServerReflectionClient::new(server.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies =
        client.server_reflection_info(futures_util::stream::iter([list])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = reply else { panic!("{reply:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&SERVICE) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
