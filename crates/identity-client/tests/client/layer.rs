//! Who gets through the layer, and what the others are told.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, StatusCode};
use identity_client::{Client, ClientConfig, RequireToken, Verifier, VerifierConfig};
use tonic::transport::Server;
use tonic::{Code, Status};
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::fake::{Answer, Fake, incoming};
use crate::jwks::KeyServer;
use crate::service::{PASSWORD, Service, register};
use crate::tokens::{SECRET, Signer};

fn secret() -> Verifier {
    Verifier::new(VerifierConfig::with_secret(SECRET)).unwrap()
}

/// A service behind the layer, and a client of it.
async fn guarded(layer: RequireToken) -> (Fake, Client) {
    let fake = Fake::answering([Answer::Empty]);
    let (address, incoming) = incoming().await;
    let server = Server::builder().layer(layer).add_service(fake.clone());
    tokio::spawn(server.serve_with_incoming(incoming));
    (fake, Client::connect(&ClientConfig::new(format!("http://{address}"))).unwrap())
}

async fn outcome(client: &Client) -> Result<(), Status> {
    client.logout("any").await.map_err(|error| error.status().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_a_token_gets_through_with_its_claims() {
    let secret_text = std::str::from_utf8(SECRET).unwrap();
    let service = Service::start(&[("JWT_SECRET", secret_text)]).await;
    let client = service.client();
    register(&client, "ada@example.com").await;
    let login = client.login("ada@example.com", PASSWORD).await.unwrap();
    let (fake, client) = guarded(RequireToken::new(secret())).await;
    outcome(&client.with_user(&login.tokens.access_token)).await.unwrap();
    let claims = fake.claims()[0].unwrap();
    assert_eq!((claims.user_id, claims.tenant_id), (login.user.id, login.user.tenant.id));
}

#[tokio::test]
async fn everybody_else_is_unauthenticated_and_the_service_not_called() {
    let (fake, client) = guarded(RequireToken::new(secret())).await;
    let expired = Signer::secret("any", SECRET).token();
    for client in
        [client.clone(), client.with_user(""), client.with_user("nonsense"), client.with_user(&expired)]
    {
        let status = outcome(&client).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "A valid access token is required.");
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn what_is_open_needs_no_token_and_gets_no_claims() {
    let layer = RequireToken::new(secret()).except_health().except("identity.v1.IdentityService");
    let (fake, client) = guarded(layer.except_reflection()).await;
    outcome(&client).await.unwrap();
    outcome(&client.with_user("nonsense")).await.unwrap();
    assert_eq!(fake.claims(), [None, None]);
    let (fake, client) = guarded(RequireToken::new(secret()).except_health()).await;
    assert_eq!(outcome(&client).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn without_keys_the_service_is_unavailable() {
    let server = KeyServer::start(&[]).await;
    server.answer("503 Service Unavailable", "no-store", "");
    let config = VerifierConfig::with_jwks(server.uri()).period(Duration::from_secs(3_600));
    let (fake, client) = guarded(RequireToken::new(Verifier::new(config).unwrap())).await;
    let token = Signer::ed25519("a").token();
    assert_eq!(outcome(&client.with_user(&token)).await.unwrap_err().code(), Code::Unavailable);
    assert!(fake.seen().is_empty());
}

/// What comes back for a request with these headers: its status and its headers.
async fn answer(headers: &[(http::HeaderName, &str)]) -> (StatusCode, HeaderMap, Fake) {
    let fake = Fake::answering([Answer::Empty]);
    let mut guarded = RequireToken::new(secret()).layer(fake.clone());
    let mut request = Request::new(tonic::body::Body::empty());
    for (name, value) in headers {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    std::future::poll_fn(|context| guarded.poll_ready(context)).await.unwrap();
    let answer = guarded.call(request).await.unwrap();
    (answer.status(), answer.headers().clone(), fake)
}

#[tokio::test]
async fn the_refusal_is_in_the_callers_protocol() {
    let (status, headers, _) = answer(&[(CONTENT_TYPE, "application/grpc+proto")]).await;
    assert_eq!((status, headers["grpc-status"].to_str().unwrap()), (StatusCode::OK, "16"));
    let (status, headers, _) = answer(&[]).await;
    assert_eq!((status, headers[WWW_AUTHENTICATE].to_str().unwrap()), (StatusCode::UNAUTHORIZED, "Bearer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_has_to_stand_where_it_belongs() {
    let secret_text = std::str::from_utf8(SECRET).unwrap();
    let service = Service::start(&[("JWT_SECRET", secret_text)]).await;
    let token = register(&service.client(), "ada@example.com").await.tokens.access_token;
    let (good, other) = (format!("Bearer {token}"), format!("bearer  {token} "));
    for value in [&good, &other] {
        let (_, _, fake) = answer(&[(AUTHORIZATION, value)]).await;
        assert!(fake.claims()[0].is_some(), "{value}");
    }
    for values in [vec![token.as_str()], vec!["Basic x"], vec![&good, &good], vec!["Basic x", &good]] {
        let headers: Vec<_> = values.iter().map(|value| (AUTHORIZATION, *value)).collect();
        let (status, _, fake) = answer(&headers).await;
        assert_eq!((status, fake.seen().len()), (StatusCode::UNAUTHORIZED, 0), "{values:?}");
    }
}
