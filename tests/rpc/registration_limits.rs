//! Who may register, and how often.

use std::time::Duration;

use identity::proto::v1::{RegisterRequest, RegisterResponse, Role};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::database::{census, count};
use crate::fixture::{TestClock, new_id, refusal, refused, registered, visible};
use crate::services::{SERVICE_TOKEN, token, with};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::world::{create, founder, newcomer};

on_both_databases!(
    registration_may_be_closed,
    registration_may_be_for_services,
    a_source_registers_so_often_an_hour,
    a_registration_that_fails_is_not_counted,
    only_so_many_are_told_that_an_email_is_taken,
    strangers_who_are_told_of_taken_emails_block_no_user_at_their_address,
);

fn too_many() -> (Code, String) {
    refused(Code::ResourceExhausted, "TOO_MANY_REGISTRATIONS")
}

fn closed() -> (Code, String) {
    refused(Code::PermissionDenied, "REGISTRATION_CLOSED")
}

async fn start(engine: Engine, variables: &[(&str, &str)]) -> TestService {
    TestService::start_with(TestDatabase::migrated(engine).await, variables).await
}

async fn register_by(
    client: &Client,
    token: &str,
    address: &str,
    message: RegisterRequest,
) -> Result<RegisterResponse, Status> {
    let stated = [(SERVICE_TOKEN, token), ("x-identity-end-user-address", address)];
    client.service.clone().register(with(message, &stated)).await.map(Response::into_inner)
}

async fn registration_may_be_closed(engine: Engine) {
    let service = start(engine, &[("IDENTITY_REGISTRATION", "closed")]).await;
    let client = service.client();
    let (_, token) = token(&service.database, &[]).await;
    assert_eq!(refusal(client.register(registration("ada@example.com")).await), closed());
    let by_service = register_by(&client, &token, "192.0.2.1", registration("ada@example.com")).await;
    assert_eq!(refusal(by_service), closed());
    assert_eq!(census(&service.database), [0; 5]);
}

async fn registration_may_be_for_services(engine: Engine) {
    let service = start(engine, &[("IDENTITY_REGISTRATION", "services")]).await;
    let client = service.client();
    let (_, token) = token(&service.database, &[]).await;
    assert_eq!(refusal(client.register(registration("ada@example.com")).await), closed());
    register_by(&client, &token, "192.0.2.1", registration("ada@example.com")).await.unwrap();
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

async fn a_source_registers_so_often_an_hour(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let limit = [("IDENTITY_REGISTRATION_LIMIT", "5")];
    let service = TestService::start_at(database, &limit, clock.clone()).await;
    let client = service.client();
    let mut calls = JoinSet::new();
    for n in 0..20 {
        let client = client.clone();
        calls.spawn(async move { client.register(registration(&format!("ada{n}@example.com"))).await });
    }
    let (registered, others): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((registered.len(), count(&service.database, "users")), (5, 5));
    assert!(others.into_iter().all(|other| refusal(other) == too_many()));

    let (_, token) = token(&service.database, &[]).await;
    register_by(&client, &token, "192.0.2.1", registration("eve@example.com")).await.unwrap();
    clock.advance(Duration::from_secs(59 * 60));
    let status = client.register(registration("late@example.com")).await.unwrap_err();
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_secs(60)));
    clock.advance(Duration::from_secs(60));
    client.register(registration("late@example.com")).await.unwrap();
}

async fn a_registration_that_fails_is_not_counted(engine: Engine) {
    let service = start(engine, &[("IDENTITY_REGISTRATION_LIMIT", "2")]).await;
    let client = service.client();
    let request = RegisterRequest { request_id: new_id(), ..registration("ada@example.com") };
    for _ in 0..3 {
        client.register(request.clone()).await.unwrap();
        let taken = client.register(registration("ada@example.com")).await;
        assert_eq!(refusal(taken), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
        assert_eq!(census(&service.database)[..4], [1; 4]);
    }
    client.register(registration("eve@example.com")).await.unwrap();
    assert_eq!(refusal(client.register(registration("bob@example.com")).await), too_many());
}

async fn only_so_many_are_told_that_an_email_is_taken(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        calls.spawn(async move { refusal(client.register(registration("ada@example.com")).await) });
    }
    let refusals = calls.join_all().await;
    let taken = refused(Code::AlreadyExists, "EMAIL_TAKEN");
    assert_eq!(refusals.iter().filter(|refusal| **refusal == taken).count(), 30);
    assert_eq!(refusals.iter().filter(|refusal| **refusal == too_many()).count(), 10);
    // A free one is refused alike.
    let mut replies = Vec::new();
    for email in ["ada@example.com", "free@example.com"] {
        replies.push(visible(&client.register(registration(email)).await.unwrap_err()));
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(count(&service.database, "request_outcomes"), 0);
    clock.advance(Duration::from_secs(15 * 60));
    client.register(registration("free@example.com")).await.unwrap();
}

async fn strangers_who_are_told_of_taken_emails_block_no_user_at_their_address(engine: Engine) {
    let service = start(engine, &[]).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    for _ in 0..30 {
        client.register(registration("ada@example.com")).await.unwrap_err();
    }
    assert_eq!(refusal(client.register(registration("free@example.com")).await), too_many());
    create(&client, &ada, "bob@example.com", Role::Member).await;
    // A user's own are counted, wherever they are.
    let mut directory = client.directory.clone();
    for _ in 0..30 {
        let taken = directory.create_user(ada.request(newcomer("ada@example.com", Role::Member))).await;
        assert_eq!(refusal(taken.map(drop)), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
    }
    let refused = directory.create_user(ada.request(newcomer("free@example.com", Role::Member))).await;
    assert_eq!(refusal(refused.map(drop)), too_many());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_count_registrations_together() {
    let limit = [("IDENTITY_REGISTRATION_LIMIT", "5")];
    let first = start(Engine::Postgres, &limit).await;
    let second = TestService::start_with(first.database.again(), &limit).await;
    let mut calls = JoinSet::new();
    for (n, client) in [first.client(), second.client()].iter().cycle().take(20).enumerate() {
        let client = client.clone();
        calls.spawn(async move { client.register(registration(&format!("ada{n}@example.com"))).await });
    }
    let registered = calls.join_all().await.iter().filter(|result| result.is_ok()).count();
    assert_eq!((registered, count(&first.database, "users")), (5, 5));
}
