//! What is repeated, when, and how often; and that nothing takes longer than it may.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::HeaderMap;
use identity_client::{Client, ClientConfig, Error, ErrorKind, Uuid};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fake::{Answer, Fake};
use crate::service::{self, Service, registration};

fn refusal(code: Code, reason: &str, retry_delay: Option<Duration>) -> Answer {
    let mut details = ErrorDetails::with_error_info(reason, "identity", []);
    if let Some(delay) = retry_delay {
        details.set_retry_info(Some(delay));
    }
    Answer::Error(Status::with_error_details(code, "no", details))
}

fn unavailable_for(delay: Duration) -> Answer {
    refusal(Code::Unavailable, "UNAVAILABLE", Some(delay))
}

fn metadata<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap().to_str().unwrap()
}

/// The milliseconds that a call was given, by its metadata.
fn time_left(headers: &HeaderMap) -> u64 {
    let timeout = metadata(headers, "grpc-timeout");
    let (digits, unit) = timeout.split_at(timeout.len() - 1);
    let per_millisecond = match unit {
        "n" => 1_000_000,
        "u" => 1_000,
        "m" => 1,
        _ => panic!("{timeout}"),
    };
    digits.parse::<u64>().unwrap() / per_millisecond
}

#[tokio::test]
async fn what_may_be_repeated_is_repeated_once_and_nothing_else_is() {
    let id = Uuid::new_v4();
    for (delay, answer) in [
        (1, unavailable_for(Duration::from_millis(1))),
        (1, refusal(Code::ResourceExhausted, "OVERLOADED", Some(Duration::from_millis(1)))),
        (100, Answer::Error(Status::unavailable("from a proxy"))),
    ] {
        let fake = Fake::answering([answer]);
        let client = fake.client().await;
        let (fake, delay) = (&fake, Duration::from_millis(delay));
        assert_eq!(attempts(fake, delay, client.register(registration("ada@example.com"))).await, 2);
        assert_eq!(attempts(fake, delay, client.login("ada@example.com", "secret")).await, 1);
        assert_eq!(attempts(fake, delay, client.get_caller()).await, 2);
        assert_eq!(attempts(fake, delay, client.get_user(id)).await, 2);
        assert_eq!(attempts(fake, delay, client.get_user_of_tenant(id, id)).await, 2);
        assert_eq!(attempts(fake, delay, client.refresh_session("token")).await, 2);
        assert_eq!(attempts(fake, delay, client.logout("token")).await, 2);
        assert_eq!(attempts(fake, delay, client.list_sessions(0, None)).await, 2);
        assert_eq!(attempts(fake, delay, client.revoke_session(id)).await, 2);
        assert_eq!(attempts(fake, delay, client.change_password("old", "new")).await, 1);
        assert_eq!(attempts(fake, delay, client.verify_token("token")).await, 2);
        assert_eq!(fake.methods(), methods_of_the_contract(), "a method is not called, or not in this test");
    }
}

fn methods_of_the_contract() -> BTreeSet<String> {
    let descriptors = FileDescriptorSet::decode(identity::proto::DESCRIPTOR_SET).unwrap();
    let services = descriptors.file.into_iter().flat_map(|file| file.service);
    let methods =
        services.filter(|service| service.name() == "IdentityService").flat_map(|service| service.method);
    methods.map(|method| method.name().to_owned()).collect()
}

/// How often `call`, which fails, is sent. A second time comes after `delay`.
async fn attempts<T>(fake: &Fake, delay: Duration, call: impl Future<Output = Result<T, Error>>) -> usize {
    let (before, started) = (fake.seen().len(), Instant::now());
    assert!(call.await.is_err());
    let attempts = fake.seen().len() - before;
    assert!(attempts == 1 || started.elapsed() >= delay);
    attempts
}

#[tokio::test]
async fn a_repetition_can_succeed_and_says_the_same_within_the_time_that_is_left() {
    let fake = Fake::answering([unavailable_for(Duration::from_millis(20)), Answer::Empty]);
    let client = fake.client().await.with_user("token").with_timeout(Duration::from_secs(60));
    client.logout("token").await.unwrap();
    let [first, second] = fake.seen().try_into().unwrap();
    assert_eq!(metadata(&first, "authorization"), metadata(&second, "authorization"));
    assert!(time_left(&first) <= 60_000);
    assert!(time_left(&second) <= time_left(&first) - 20);
}

#[tokio::test]
async fn other_failures_are_not_repeated() {
    for (code, reason) in [
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (Code::Unauthenticated, "REFRESH_TOKEN_INVALID"),
        (Code::Internal, "INTERNAL"),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    ] {
        let fake = Fake::answering([refusal(code, reason, None)]);
        let error = fake.client().await.logout("token").await.unwrap_err();
        assert_eq!((error.status().code(), fake.seen().len()), (code, 1), "{reason}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_repetition_that_would_come_too_late() {
    for delay in [Duration::from_secs(3_600), Duration::from_secs(315_576_000_000)] {
        let fake = Fake::answering([unavailable_for(delay)]);
        let client = fake.client().await.with_timeout(Duration::from_secs(60));
        let error = client.logout("token").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        assert_eq!((error.retry_after(), fake.seen().len()), (Some(delay), 1));
    }
}

#[tokio::test]
async fn every_call_has_a_deadline_and_those_with_passwords_a_longer_one() {
    let fake = Fake::answering([Answer::Empty]);
    let client = fake.client().await;
    client.logout("token").await.unwrap();
    client.change_password("old", "new").await.unwrap();
    client.with_timeout(Duration::MAX).logout("token").await.unwrap();
    let given: Vec<_> = fake.seen().iter().map(time_left).collect();
    assert!((4_000..=5_000).contains(&given[0]), "{given:?}");
    assert!((14_000..=15_000).contains(&given[1]), "{given:?}");
}

#[tokio::test]
async fn a_service_that_says_nothing_is_given_up_at_the_deadline() {
    let fake = Fake::answering([Answer::Silence]);
    let client = fake.client().await.with_timeout(Duration::from_millis(50));
    let error = client.logout("token").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::DeadlineExceeded);
    assert!(fake.seen().len() <= 1);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::connect(&ClientConfig::new(format!("http://{address}"))).unwrap();
    let error = client.login("ada@example.com", "secret").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.request_id(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_during_a_call_is_made_again_and_the_call_repeated() {
    let service = Service::start(&[]).await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", front.local_addr().unwrap());
    let server = service.server.address();
    tokio::spawn(async move {
        // The first connection takes all that is sent and ends; the others lead to the service.
        let (mut first, _) = front.accept().await.unwrap();
        let mut bytes = [0; 4096];
        while first.read(&mut bytes).await.unwrap() < 64 {}
        drop(first);
        loop {
            let (mut client, _) = front.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let client = Client::connect(&service::patient(&uri)).unwrap();
    // In a task of its own, as a service would.
    let call = tokio::spawn(async move { client.register(registration("ada@example.com")).await });
    let login = call.await.unwrap().unwrap();
    assert_eq!(login.user.email, "ada@example.com");
}
