//! Which access tokens count. Every other call is refused in the same way.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::domain::UserState;
use identity::proto::v1::GetUserRequest;
use serde_json::json;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};

use crate::database::{delete_tenant, execute, revoke, set_state, user_id_of};
use crate::fixture::{TestClock, claim, decode_token, refusal, refused, registered, visible};
use crate::support::raw::{get_user, with_trailers};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    the_scheme_may_be_written_in_any_case,
    a_token_in_the_trailers_of_a_request_is_ignored,
    every_call_without_a_token_in_force_looks_the_same,
    a_token_ends_when_it_says,
    a_token_may_be_of_a_server_whose_clock_is_a_minute_ahead,
    a_session_ends_with_its_longest_time,
    a_session_that_is_not_refreshed_ends_with_its_idle_time,
    a_token_counts_only_as_long_as_what_it_stands_for,
    a_token_of_another_issuer_or_audience_is_refused,
);

/// Asks for the caller with these values of `authorization`.
async fn call(client: &Client, values: &[&[u8]]) -> Result<(), Status> {
    let mut request = Request::new(GetUserRequest::default());
    for value in values {
        let value = AsciiMetadataValue::try_from(value.to_vec()).unwrap();
        request.metadata_mut().append("authorization", value);
    }
    client.service.clone().get_user(request).await.map(drop)
}

async fn the_scheme_may_be_written_in_any_case(engine: Engine) {
    let service = TestService::start(engine).await;
    let token = registered(&service, "ada@example.com").await.access_token;
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   "] {
        call(&service.client(), &[format!("{scheme}{token}").as_bytes()]).await.unwrap();
    }
}

async fn a_token_in_the_trailers_of_a_request_is_ignored(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await;
    let bearer = format!("Bearer {}", ada.access_token);
    let addr = service.server.address();
    let reply = with_trailers(addr, get_user("", &[]), &[("authorization", &bearer)]).await;
    assert_eq!(reply.refusal(), refused(Code::Unauthenticated, "TOKEN_INVALID"));

    let in_order = get_user("", &[("authorization", &bearer)]);
    let reply = with_trailers(addr, in_order, &[("authorization", "Bearer x")]).await;
    assert_eq!(reply.user(), ada.user.unwrap());
}

/// The token with another header or other claims, and the signature that it had.
fn altered(token: &str, part: usize, name: &str, value: serde_json::Value) -> String {
    let (header, claims) = decode_token(token);
    let mut json = [header, claims];
    json[part][name] = value;
    let signature = token.rsplit('.').next().unwrap();
    let [header, claims] = json.map(|json| URL_SAFE_NO_PAD.encode(json.to_string()));
    format!("{header}.{claims}.{signature}")
}

async fn every_call_without_a_token_in_force_looks_the_same(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let eve = registered(&service, "eve@example.com").await;
    let other = TestService::start(engine).await;
    let foreign = registered(&other, "ada@example.com").await.access_token;
    let token = ada.access_token.as_str();

    let (payload, signature) = token.rsplit_once('.').unwrap();
    let unsigned = |algorithm: &str| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "at+jwt"}).to_string());
        format!("{header}.{}.", payload.split_once('.').unwrap().1)
    };
    let eves = |name: &str| json!(claim(&eve.access_token, name));
    let bearer = |token: &str| vec![format!("Bearer {token}").into_bytes()];
    let cases = [
        ("nothing", vec![]),
        ("an empty value", vec![vec![]]),
        ("no token", vec![b"Bearer".to_vec()]),
        ("no token behind the space", bearer(" ")),
        ("no scheme", vec![token.into()]),
        ("another scheme", vec![format!("Basic {token}").into()]),
        ("a longer scheme", vec![format!("Bearers {token}").into()]),
        ("a tab", vec![format!("Bearer\t{token}").into()]),
        ("a comma", vec![format!("Bearer {token}, Bearer {token}").into()]),
        ("two values", [bearer(token), bearer(token)].concat()),
        ("two values of which one is empty", [bearer(token), vec![vec![]]].concat()),
        ("quotes", bearer(&format!("\"{token}\""))),
        ("text behind the token", bearer(&format!("{token} x"))),
        ("bytes beyond ASCII", vec![b"Bearer \xff\xfe".to_vec()]),
        ("a refresh token", bearer(&ada.refresh_token)),
        ("a token of another server", bearer(&foreign)),
        ("no signature", bearer(payload)),
        ("an empty signature", bearer(&format!("{payload}."))),
        ("a signature with padding", bearer(&format!("{token}=="))),
        (
            "the signature of another token",
            bearer(&format!("{payload}.{}", eve.access_token.rsplit('.').next().unwrap())),
        ),
        ("a part more", bearer(&format!("{token}.{signature}"))),
        ("the algorithm none", bearer(&unsigned("none"))),
        ("the algorithm HS256", bearer(&altered(token, 0, "alg", json!("HS256")))),
        ("a key of its own", bearer(&altered(token, 0, "jwk", json!({"kty": "OKP"})))),
        ("an unknown key", bearer(&altered(token, 0, "kid", json!("x")))),
        ("another type", bearer(&altered(token, 0, "typ", json!("JWT")))),
        ("another user", bearer(&altered(token, 1, "sub", eves("sub")))),
        ("another tenant", bearer(&altered(token, 1, "tid", eves("tid")))),
        ("another session", bearer(&altered(token, 1, "sid", eves("sid")))),
        ("a later end", bearer(&altered(token, 1, "exp", json!(9_999_999_999_i64)))),
        ("4,097 bytes", bearer(&"x".repeat(4097))),
    ];
    let first = client.get_user(None, "").await.unwrap_err();
    assert_eq!(refusal::<()>(Err(first.clone())), refused(Code::Unauthenticated, "TOKEN_INVALID"));
    for (what, values) in cases {
        let values: Vec<_> = values.iter().map(Vec::as_slice).collect();
        let status = call(&client, &values).await.expect_err(what);
        assert_eq!(visible(&status), visible(&first), "{what}");
    }
    call(&client, &[format!("Bearer {token}").as_bytes()]).await.unwrap();
}

async fn a_token_ends_when_it_says(engine: Engine) {
    let clock = TestClock::new();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let never_seen = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
    let missing = client.get_user(None, "").await.unwrap_err();
    client.get_user(Some(&ada.access_token), "").await.unwrap();

    // A second is left for the rounding.
    clock.advance(Duration::from_secs(15 * 60 - 2));
    client.get_user(Some(&ada.access_token), "").await.unwrap();
    clock.advance(Duration::from_secs(2));
    for token in [&ada.access_token, &never_seen] {
        let status = client.get_user(Some(token), "").await.unwrap_err();
        assert_eq!(visible(&status), visible(&missing));
    }
    let again = client.login("ada@example.com", PASSWORD).await.unwrap();
    client.get_user(Some(&again.access_token), "").await.unwrap();
}

async fn a_token_may_be_of_a_server_whose_clock_is_a_minute_ahead(engine: Engine) {
    let (ahead, right) = (TestClock::new(), TestClock::new());
    ahead.advance(Duration::from_secs(60));
    let database = TestDatabase::migrated(engine).await;
    let (same, again) = (database.again(), database.again());
    let issuing = TestService::start_at(database, &[], ahead.clone()).await;
    let verifying = TestService::start_at(same, &[], right).await;
    let fresh = registered(&issuing, "ada@example.com").await.access_token;
    verifying.client().get_user(Some(&fresh), "").await.unwrap();

    // One second more, and one for the rounding.
    ahead.advance(Duration::from_secs(2));
    let issuing = TestService::start_at(again, &[], ahead).await;
    let fresh = issuing.client().login("ada@example.com", PASSWORD).await.unwrap().access_token;
    issuing.client().get_user(Some(&fresh), "").await.unwrap();
    let result = verifying.client().get_user(Some(&fresh), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
}

async fn a_session_ends_with_its_longest_time(engine: Engine) {
    let clock = TestClock::new();
    let variables = [("IDENTITY_SESSION_MAX", "10m"), ("IDENTITY_SESSION_IDLE", "10m")];
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let client = service.client();
    let token = registered(&service, "ada@example.com").await.access_token;
    clock.advance(Duration::from_secs(599));
    client.get_user(Some(&token), "").await.unwrap();
    clock.advance(Duration::from_secs(1));
    let result = client.get_user(Some(&token), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
}

async fn a_session_that_is_not_refreshed_ends_with_its_idle_time(engine: Engine) {
    let clock = TestClock::new();
    let variables = [("IDENTITY_SESSION_IDLE", "10m"), ("IDENTITY_ACCESS_TTL", "24h")];
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    clock.advance(Duration::from_secs(599));
    client.get_user(Some(&ada.access_token), "").await.unwrap();
    clock.advance(Duration::from_secs(1));
    let result = client.get_user(Some(&ada.access_token), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
}

async fn a_token_counts_only_as_long_as_what_it_stands_for(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let database = &service.database;
    let missing = client.get_user(None, "").await.unwrap_err();
    let refused = async |token: &str, what: &str| {
        // With an id of nobody: who may not call does not learn that.
        for wanted in ["", "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e"] {
            let status = client.get_user(Some(token), wanted).await.expect_err(what);
            assert_eq!(visible(&status), visible(&missing), "{what}, {wanted:?}");
        }
    };

    let ada = registered(&service, "ada@example.com").await;
    let user = ada.user.unwrap();
    let second = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
    client.get_user(Some(&ada.access_token), "").await.unwrap();
    revoke(database, &user, &claim(&ada.access_token, "sid")).await;
    refused(&ada.access_token, "a revoked session").await;
    client.get_user(Some(&second), "").await.unwrap();

    set_state(database, &user, UserState::Disabled).await;
    refused(&second, "a disabled user").await;
    set_state(database, &user, UserState::Active).await;
    client.get_user(Some(&second), "").await.unwrap();
    refused(&ada.access_token, "a session revoked before").await;

    delete_tenant(database, &user).await;
    refused(&second, "a deleted tenant").await;

    let eve = registered(&service, "eve@example.com").await;
    execute(database, &format!("DELETE FROM sessions WHERE user_id = {}", user_id_of("eve@example.com")));
    refused(&eve.access_token, "a deleted session").await;
    execute(database, &format!("DELETE FROM users WHERE id = {}", user_id_of("eve@example.com")));
    refused(&eve.access_token, "a deleted user").await;
}

async fn a_token_of_another_issuer_or_audience_is_refused(engine: Engine) {
    let service = TestService::start(engine).await;
    let token = registered(&service, "ada@example.com").await.access_token;
    let (_, mut database) = service.stop().await;
    for variable in ["IDENTITY_ISSUER", "IDENTITY_AUDIENCE"] {
        let service = TestService::start_with(database, &[(variable, "other")]).await;
        let result = service.client().get_user(Some(&token), "").await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"), "{variable}");
        (_, database) = service.stop().await;
    }
    let service = TestService::start_with(database, &[]).await;
    service.client().get_user(Some(&token), "").await.unwrap();
}
