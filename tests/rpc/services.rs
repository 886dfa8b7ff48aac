//! Other services as callers: how they are known, what they may call, and what is believed of them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::crypto::MasterKey;
use identity::domain::{AllowedRpcs, ServiceName, ServiceTokenId, SystemClock};
use identity::proto::v1::{GetUserRequest, ListSessionsRequest, LoginRequest, LoginResponse, User};
use identity::service::access::Rpc;
use identity::service::{Authority, service_tokens};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::database::{OpenTransaction, add_member, execute, storage, values};
use crate::fixture::{TestClock, call_raw, new_id, refusal, refused, registered, rpcs};
use crate::support::raw::{frame, get_user, grpc, with_trailers};
use crate::support::service::{
    Engine, MASTER_KEY, PASSWORD, TestDatabase, TestService, bad_fields, on_both_databases,
};
use crate::support::wait::eventually;

on_both_databases!(
    a_service_finds_users_of_all_tenants,
    a_service_calls_what_its_token_names,
    a_service_may_not_do_what_is_for_users,
    a_token_that_is_not_in_force_is_refused_by_every_rpc,
    made_up_tokens_cost_ten_look_ups_a_minute_and_source,
    a_token_outlives_the_master_key_that_it_was_made_under,
    what_a_service_states_of_its_user_is_kept_with_the_session,
    a_device_may_have_a_name_in_any_script,
    what_others_state_is_not_believed,
    what_the_trailers_of_a_request_state_is_ignored,
    what_is_no_address_is_named,
    what_is_stated_twice_is_not_believed_at_all,
);

pub(crate) const SERVICE_TOKEN: &str = "x-identity-service-token";
const TOKEN_PREFIX: &str = "identity-service-";
const LOGIN: &str = "/identity.v1.IdentityService/Login";
const DEVICE_BIN: &str = "x-identity-end-user-device-bin";

/// A new token of the service `billing`, for these methods, or for all without any.
pub(crate) async fn token(database: &TestDatabase, methods: &[&str]) -> (ServiceTokenId, String) {
    let names = methods.iter().map(|name| Rpc::find(name).unwrap().name().to_owned()).collect();
    let allowed = if methods.is_empty() { AllowedRpcs::All } else { AllowedRpcs::Only(names) };
    let name = ServiceName::parse("billing").unwrap();
    let made = service_tokens::create(
        &storage(database),
        &MasterKey::from_base64(MASTER_KEY).unwrap().into(),
        &SystemClock,
        &Authority::operator(None),
        name,
        allowed,
        None,
    )
    .await
    .unwrap();
    (made.token.id, made.text.to_string())
}

pub(crate) fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

async fn find(service: &TestService, token: &str, user_id: &str, tenant_id: &str) -> Result<User, Status> {
    let message = GetUserRequest { user_id: user_id.into(), tenant_id: tenant_id.into() };
    let request = with(message, &[(SERVICE_TOKEN, token)]);
    service.client().service.get_user(request).await.map(|response| response.into_inner().user.unwrap())
}

async fn a_service_finds_users_of_all_tenants(engine: Engine) {
    let service = TestService::start(engine).await;
    let (_, token) = token(&service.database, &[]).await;
    let ada = registered(&service, "ada@example.com").await.user.unwrap();
    let eve = registered(&service, "eve@example.com").await.user.unwrap();
    for user in [&ada, &eve] {
        for tenant_id in ["", user.tenant_id.as_str()] {
            assert_eq!(find(&service, &token, &user.id, tenant_id).await.unwrap(), *user);
        }
    }
    let not_found = refused(Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(refusal(find(&service, &token, &ada.id, &eve.tenant_id).await), not_found);
    assert_eq!(refusal(find(&service, &token, &new_id(), "").await), not_found);
    for (user_id, tenant_id, fields) in [
        ("", "", &["user_id"][..]),
        ("", ada.tenant_id.as_str(), &["user_id"]),
        ("x", "y", &["user_id", "tenant_id"]),
    ] {
        let status = find(&service, &token, user_id, tenant_id).await.unwrap_err();
        assert_eq!(
            (status.code(), bad_fields(&status)),
            (Code::InvalidArgument, fields.iter().map(|field| (*field).to_owned()).collect())
        );
    }
    // The same id in two tenants: only together with the tenant does it name a user.
    let member = add_member(&service.database, &ada).await;
    let sql = format!(
        "UPDATE users SET id = {} WHERE email = 'member@example.com'",
        crate::database::user_id_of("eve@example.com")
    );
    execute(&service.database, &sql);
    let status = find(&service, &token, &eve.id, "").await.unwrap_err();
    assert_eq!(bad_fields(&status), ["tenant_id"]);
    assert_eq!(find(&service, &token, &eve.id, &eve.tenant_id).await.unwrap(), eve);
    assert_eq!(find(&service, &token, &eve.id, &ada.tenant_id).await.unwrap().email, "member@example.com");
    assert_eq!(refusal(find(&service, &token, &member, "").await), not_found);
}

async fn a_service_calls_what_its_token_names(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let (_, token) = token(&service.database, &["Login", "ListSessions"]).await;
    let denied = refused(Code::PermissionDenied, "PERMISSION_DENIED");
    let id = ada.user.unwrap().id;
    assert_eq!(refusal(find(&service, &token, &id, "").await), denied);
    let bearer = format!("Bearer {}", ada.access_token);
    // For a user, a service may call no more than for itself.
    let both = [(SERVICE_TOKEN, token.as_str()), ("authorization", &bearer)];
    let result = client.service.clone().get_user(with(GetUserRequest::default(), &both)).await;
    assert_eq!(refusal(result), denied);
    let mut calls = client.service.clone();
    calls.list_sessions(with(ListSessionsRequest::default(), &both)).await.unwrap();
    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    calls.login(with(login, &[(SERVICE_TOKEN, token.as_str())])).await.unwrap();
}

async fn a_service_may_not_do_what_is_for_users(engine: Engine) {
    let service = TestService::start(engine).await;
    let (_, token) = token(&service.database, &[]).await;
    let mut metadata = MetadataMap::new();
    metadata.insert(SERVICE_TOKEN, token.parse().unwrap());
    for rpc in [Rpc::ListSessions, Rpc::RevokeSession, Rpc::ChangePassword] {
        let result = call_raw(&service.client(), rpc.name(), Vec::new(), metadata.clone()).await;
        assert_eq!(refusal(result), refused(Code::PermissionDenied, "PERMISSION_DENIED"), "{rpc:?}");
    }
}

async fn a_token_that_is_not_in_force_is_refused_by_every_rpc(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await;
    let (revoked_id, revoked) = token(&service.database, &[]).await;
    let store = storage(&service.database);
    assert!(
        service_tokens::revoke(&store, &SystemClock, &Authority::operator(None), revoked_id).await.unwrap()
    );
    assert!(
        !service_tokens::revoke(&store, &SystemClock, &Authority::operator(None), revoked_id).await.unwrap()
    );
    let (expired_id, expired) = token(&service.database, &[]).await;
    let past = match engine {
        Engine::Sqlite => {
            format!("created_at = 1, expires_at = 2 WHERE hex(id) = '{}'", expired_id.as_uuid().simple())
                .to_uppercase()
        }
        Engine::Postgres => {
            format!("created_at = 'epoch', expires_at = '1971-01-01' WHERE id = '{expired_id}'")
        }
    };
    execute(&service.database, &format!("UPDATE service_tokens SET {past}"));
    let (_, good) = token(&service.database, &[]).await;
    let bearer = format!("Bearer {}", ada.access_token);
    let client = service.client();
    for rpc in rpcs() {
        for text in ["", "x", &good[1..], &format!("{good}A"), &revoked, &expired, &ada.access_token] {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", bearer.parse().unwrap());
            metadata.insert(SERVICE_TOKEN, text.parse().unwrap());
            let result = call_raw(&client, &rpc, Vec::new(), metadata).await;
            let expected = refused(Code::Unauthenticated, "SERVICE_CREDENTIAL_INVALID");
            assert_eq!(refusal(result), expected, "{rpc} with {text:?}");
        }
    }
    let twice =
        with(GetUserRequest::default(), &[(SERVICE_TOKEN, good.as_str()), (SERVICE_TOKEN, good.as_str())]);
    let result = service.client().service.get_user(twice).await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "SERVICE_CREDENTIAL_INVALID"));
    let id = ada.user.unwrap().id;
    find(&service, &good, &id, "").await.unwrap();
    let secret_of_another = format!("{}{}", &good[..40], &revoked[40..]);
    let result = find(&service, &secret_of_another, &id, "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "SERVICE_CREDENTIAL_INVALID"));
    // What is kept lets nobody in.
    let kept = values(
        &service.database,
        match engine {
            Engine::Sqlite => "SELECT hex(secret_digest) AS value FROM service_tokens",
            Engine::Postgres => "SELECT encode(secret_digest, 'hex') AS value FROM service_tokens",
        },
    );
    assert_eq!(kept.len(), 3);
}

/// What an earlier release would have made of a token: its id and its secret, without a MAC.
fn without_mac(token: &str) -> String {
    let encoded = token.strip_prefix(TOKEN_PREFIX).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(encoded).unwrap();
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..48]))
}

/// Texts in the form of tokens.
fn made_up(count: u8) -> Vec<String> {
    let text = |n| format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode([n; 80]));
    (0..count).flat_map(|n| [text(n), without_mac(&text(n))]).collect()
}

async fn look_ups(service: &TestService) -> f64 {
    service.metric(r#"identity_database_connections_lent_total{lane="reads"}"#).await
}

async fn made_up_tokens_cost_ten_look_ups_a_minute_and_source(engine: Engine) {
    let clock = TestClock::new();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    let id = registered(&service, "ada@example.com").await.user.unwrap().id;
    let (_, token) = token(&service.database, &[]).await;
    let old = without_mac(&token);
    for text in [&token, &old] {
        find(&service, text, &id, "").await.unwrap();
    }

    let before = look_ups(&service).await;
    let invalid = refused(Code::Unauthenticated, "SERVICE_CREDENTIAL_INVALID");
    let too_many = refused(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    for (index, text) in made_up(20).iter().enumerate() {
        let status = find(&service, text, &id, "").await.unwrap_err();
        assert_eq!(status.get_details_retry_info().is_some(), index >= 10);
        let expected = if index < 10 { &invalid } else { &too_many };
        assert_eq!(&refusal::<()>(Err(status)), expected, "{index}");
    }
    assert_eq!(look_ups(&service).await - before, 10.0);
    assert_eq!(service.metric(r#"identity_limit_refusals_total{limit="service_tokens"}"#).await, 30.0);

    // A token that its MAC proves is none of them, and one without waits for the minute to pass.
    find(&service, &token, &id, "").await.unwrap();
    assert_eq!(refusal(find(&service, &old, &id, "").await), too_many);
    clock.advance(Duration::from_secs(60));
    find(&service, &old, &id, "").await.unwrap();
}

/// SQLite's readers wait for nobody, so that nobody has time to leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_token_whose_caller_leaves_counts() {
    let service = TestService::start(Engine::Postgres).await;
    let id = new_id();
    let lock = OpenTransaction::begin(&service.database, "LOCK TABLE service_tokens").await;
    let leave = made_up(2).into_iter().map(|text| {
        let mut client = service.client().service;
        tokio::spawn(async move {
            client.get_user(with(GetUserRequest::default(), &[(SERVICE_TOKEN, &text)])).await
        })
    });
    let leave: Vec<_> = leave.collect();
    let waiting = "SELECT pid::text AS value FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let all_wait = async || values(&service.database, waiting).len() >= leave.len();
    eventually("all calls wait", all_wait).await;
    for call in leave {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    lock.commit().await;
    for text in &made_up(5)[..6] {
        let result = find(&service, text, &id, "").await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "SERVICE_CREDENTIAL_INVALID"));
    }
    let result = find(&service, &made_up(1)[0], &id, "").await;
    assert_eq!(refusal(result), refused(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
}

async fn a_token_outlives_the_master_key_that_it_was_made_under(engine: Engine) {
    let service = TestService::start(engine).await;
    let id = registered(&service, "ada@example.com").await.user.unwrap().id;
    let (_, token) = token(&service.database, &[]).await;
    let (_, database) = service.stop().await;
    // Signing keys go with the master key.
    execute(&database, "DELETE FROM signing_keys");
    let other = MasterKey::generate().to_base64();
    let service = TestService::start_with(database, &[("IDENTITY_MASTER_KEY", &*other)]).await;
    for _ in 0..20 {
        find(&service, &token, &id, "").await.unwrap();
    }
}

async fn what_a_service_states_of_its_user_is_kept_with_the_session(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let (_, token) = token(&service.database, &[]).await;
    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    let stated = [
        (SERVICE_TOKEN, token.as_str()),
        ("x-identity-end-user-address", "2001:DB8::7"),
        ("x-identity-end-user-device", " Firefox on Linux "),
    ];
    let mut client = service.client().service;
    let opened = client.login(with(login, &stated)).await.unwrap().into_inner();
    let sessions = service.client().list_sessions(&opened.access_token, 0, "").await.unwrap().sessions;
    let current = sessions.iter().find(|session| session.current).unwrap();
    assert_eq!((current.address.as_str(), current.device.as_str()), ("2001:db8::7", "Firefox on Linux"));
    // A refresh changes nothing about it.
    let next = service.client().refresh(&opened.refresh_token).await.unwrap();
    let sessions = service.client().list_sessions(&next.access_token, 0, "").await.unwrap().sessions;
    assert!(sessions.iter().any(|session| session.device == "Firefox on Linux"));
}

async fn a_device_may_have_a_name_in_any_script(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let (_, token) = token(&service.database, &[]).await;
    let mut client = service.client().service;
    let mut login = async |device: &[u8]| {
        let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
        let mut request = with(login, &[(SERVICE_TOKEN, token.as_str())]);
        request.metadata_mut().insert_bin(DEVICE_BIN, MetadataValue::from_bytes(device));
        client.login(request).await.map(tonic::Response::into_inner)
    };
    let opened = login("Ada\u{2019}s iPhone \u{1f4f1}".as_bytes()).await.unwrap();
    let sessions = service.client().list_sessions(&opened.access_token, 0, "").await.unwrap().sessions;
    assert!(sessions.iter().any(|session| session.device == "Ada\u{2019}s iPhone \u{1f4f1}"));
    for bad in [&b"\xff\xfe"[..], b"", b"a\0b"] {
        assert_eq!(bad_fields(&login(bad).await.unwrap_err()), [DEVICE_BIN], "{bad:?}");
    }
}

async fn what_others_state_is_not_believed(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let stated = [("x-identity-end-user-address", "not even one"), ("x-identity-end-user-device", "Phone")];
    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    let opened = service.client().service.login(with(login, &stated)).await.unwrap().into_inner();
    let sessions = service.client().list_sessions(&opened.access_token, 0, "").await.unwrap().sessions;
    assert!(sessions.iter().all(|session| session.device.is_empty() && session.address.is_empty()));
}

async fn what_the_trailers_of_a_request_state_is_ignored(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await.user.unwrap();
    let (_, token) = token(&service.database, &[]).await;
    let addr = service.server.address();
    let reply = with_trailers(addr, get_user(&ada.id, &[]), &[(SERVICE_TOKEN, &token)]).await;
    assert_eq!(reply.refusal(), refused(Code::Unauthenticated, "TOKEN_INVALID"));

    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    let login = grpc(LOGIN, &[(SERVICE_TOKEN, &token)], frame(&login.encode_to_vec()));
    let stated = [("x-identity-end-user-address", "192.0.2.1"), ("x-identity-end-user-device", "Phone")];
    let reply = with_trailers(addr, login, &stated).await;
    assert_eq!(reply.status().code(), Code::Ok);
    let opened = LoginResponse::decode(&reply.body[5..]).unwrap();
    let sessions = service.client().list_sessions(&opened.access_token, 0, "").await.unwrap().sessions;
    assert!(sessions.iter().all(|session| session.device.is_empty() && session.address.is_empty()));
}

async fn what_is_no_address_is_named(engine: Engine) {
    let service = TestService::start(engine).await;
    let (_, token) = token(&service.database, &[]).await;
    let long = "x".repeat(201);
    for (address, device, fields) in [
        ("1.2.3", "Phone", &["x-identity-end-user-address"][..]),
        ("1.2.3.4:80", "Phone", &["x-identity-end-user-address"]),
        ("::1", "", &["x-identity-end-user-device"]),
        ("::1", &long, &["x-identity-end-user-device"]),
        ("", " ", &["x-identity-end-user-address", "x-identity-end-user-device"]),
    ] {
        let stated = [
            (SERVICE_TOKEN, token.as_str()),
            ("x-identity-end-user-address", address),
            ("x-identity-end-user-device", device),
        ];
        let status =
            service.client().service.login(with(LoginRequest::default(), &stated)).await.unwrap_err();
        assert_eq!(
            (status.code(), bad_fields(&status)),
            (Code::InvalidArgument, fields.iter().map(|field| (*field).to_owned()).collect()),
            "{address} {device}"
        );
    }
}

async fn what_is_stated_twice_is_not_believed_at_all(engine: Engine) {
    let service = TestService::start(engine).await;
    let (_, token) = token(&service.database, &[]).await;
    for name in ["x-identity-end-user-address", "x-identity-end-user-device"] {
        let stated = [(SERVICE_TOKEN, token.as_str()), (name, "192.0.2.1"), (name, "192.0.2.2")];
        let status =
            service.client().service.login(with(LoginRequest::default(), &stated)).await.unwrap_err();
        assert_eq!(bad_fields(&status), [name]);
    }
    let mut request = with(LoginRequest::default(), &[(SERVICE_TOKEN, token.as_str())]);
    for device in [b"Phone", b"Watch"] {
        request.metadata_mut().append_bin(DEVICE_BIN, MetadataValue::from_bytes(device));
    }
    assert_eq!(bad_fields(&service.client().service.login(request).await.unwrap_err()), [DEVICE_BIN]);
}
