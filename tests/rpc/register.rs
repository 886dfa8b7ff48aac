//! What a registration makes, and what it refuses.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::domain::Clock as _;
use identity::proto::v1::{RegisterRequest, Role, UserState};
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use crate::database::{census, count, delete_tenant, values};
use crate::fixture::{TestClock, decode_token, new_id, refusal, refused, registered};
use crate::support::service::{Engine, TestDatabase, TestService, on_both_databases, registration};

on_both_databases!(
    a_registration_makes_a_tenant_and_its_owner,
    the_access_token_says_who_where_and_how_long,
    the_refresh_token_names_the_stored_session,
    names_are_trimmed_and_composed,
    a_taken_email_is_refused_in_every_spelling_and_leaves_nothing_behind,
    of_eight_registrations_of_one_email_one_wins,
    an_email_is_free_again_when_its_tenant_is_deleted,
);

async fn a_registration_makes_a_tenant_and_its_owner(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    let response = service.client().register(registration("Ada@Example.com")).await.unwrap();

    let user = response.user.clone().unwrap();
    let tenant = user.tenant.clone().unwrap();
    let names = (user.email.as_str(), user.first_name.as_str(), user.last_name.as_str());
    assert_eq!(names, ("Ada@Example.com", "Ada", "Lovelace"));
    assert_eq!((user.role(), user.state()), (Role::Owner, UserState::Active));
    assert_eq!((tenant.name.as_str(), &tenant.id), ("Analytical Engines", &user.tenant_id));
    for id in [&user.id, &tenant.id] {
        let parsed = Uuid::parse_str(id).unwrap();
        assert_eq!((parsed.get_version_num(), &parsed.as_hyphenated().to_string()), (7, id));
    }
    assert_ne!(user.id, tenant.id);
    let now = clock.now();
    let nanos = now.subsecond_nanos().cast_signed();
    let now = prost_types::Timestamp { seconds: now.as_unix_seconds(), nanos };
    for at in [user.created_at, user.updated_at, tenant.created_at, tenant.updated_at] {
        assert_eq!(at, Some(now));
    }
    assert!(!user.etag.is_empty() && !tenant.etag.is_empty());
    assert_eq!(census(&service.database), [1, 1, 1, 1, 1]);
    assert_eq!(count(&service.database, "request_outcomes"), 0);

    let found = service.client().get_user(Some(&response.access_token), &user.id).await.unwrap();
    assert_eq!(found.user, Some(user));
}

async fn the_access_token_says_who_where_and_how_long(engine: Engine) {
    let clock = TestClock::new();
    let variables = [
        ("IDENTITY_ISSUER", "https://id.example.com"),
        ("IDENTITY_AUDIENCE", "shop"),
        ("IDENTITY_ACCESS_TTL", "7m"),
    ];
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let response = registered(&service, "ada@example.com").await;
    let user = response.user.unwrap();

    let (header, mut claims) = decode_token(&response.access_token);
    let kid = values(&service.database, "SELECT kid AS value FROM signing_keys").remove(0);
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid}));
    let issued = clock.now().as_unix_seconds();
    for random in ["sid", "jti"] {
        let id = claims.as_object_mut().unwrap().remove(random).unwrap();
        assert_eq!(Uuid::parse_str(id.as_str().unwrap()).unwrap().to_string(), id, "{random}");
    }
    let expected = json!({
        "iss": "https://id.example.com", "aud": "shop", "sub": user.id, "client_id": "identity",
        "tid": user.tenant_id, "role": "owner", "iat": issued, "exp": issued + 7 * 60,
    });
    assert_eq!(claims, expected);
    let expires_at = prost_types::Timestamp { seconds: issued + 7 * 60, nanos: 0 };
    assert_eq!(response.access_token_expires_at, Some(expires_at));
}

async fn the_refresh_token_names_the_stored_session(engine: Engine) {
    let service = TestService::start(engine).await;
    let response = registered(&service, "ada@example.com").await;
    let user = response.user.unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(&response.refresh_token).unwrap();
    assert_eq!(bytes.len(), 1 + 16 + 16 + 4 + 32 + 32);
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap().to_string();
    let session_id = uuid(&bytes[17..33]);
    assert_eq!((bytes[0], uuid(&bytes[1..17])), (1, user.tenant_id));
    assert_eq!(session_id, decode_token(&response.access_token).1["sid"]);
    assert_eq!(bytes[33..37], [0; 4]);

    let hex = |engine, column| match engine {
        Engine::Sqlite => format!("lower(hex({column}))"),
        Engine::Postgres if column == "id" => "replace(id::text, '-', '')".to_owned(),
        Engine::Postgres => format!("encode({column}, 'hex')"),
    };
    let (id, digest) = (hex(engine, "id"), hex(engine, "secret_digest"));
    let sql = format!("SELECT {id} || ' ' || {digest} || ' ' || generation AS value FROM sessions");
    let secret = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes[37..69]);
    let secret: String = secret.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(values(&service.database, &sql), [format!("{} {secret} 0", session_id.replace('-', ""))]);
}

async fn names_are_trimmed_and_composed(engine: Engine) {
    let service = TestService::start(engine).await;
    let request = RegisterRequest {
        first_name: " \u{2003}Zoe\u{308}\n".into(),
        last_name: "\u{5d0}".repeat(100),
        tenant_name: "\u{1f511}".repeat(200),
        ..registration("zoe@example.com")
    };
    let user = service.client().register(request).await.unwrap().user.unwrap();
    assert_eq!((user.first_name.as_str(), user.last_name.chars().count()), ("Zo\u{eb}", 100));
    let logged_in = service.client().login("zoe@example.com", crate::support::service::PASSWORD).await;
    assert_eq!(logged_in.unwrap().user, Some(user));
}

async fn a_taken_email_is_refused_in_every_spelling_and_leaves_nothing_behind(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "Zo\u{eb}@B\u{fc}cher.example").await;
    let before = census(&service.database);
    for email in [
        "Zo\u{eb}@B\u{fc}cher.example",
        "zoe\u{308}@b\u{fc}cher.example",
        "ZO\u{cb}@BU\u{308}CHER.EXAMPLE",
        "zo\u{eb}@xn--bcher-kva.example",
        "zo\u{eb}@XN--BCHER-KVA.example",
        "zo\u{eb}@b\u{fc}cher\u{3002}example",
    ] {
        let with_id = RegisterRequest { request_id: new_id(), ..registration(email) };
        for request in [registration(email), with_id] {
            let result = service.client().register(request).await;
            assert_eq!(refusal(result), refused(Code::AlreadyExists, "EMAIL_TAKEN"), "{email}");
        }
    }
    assert_eq!(census(&service.database), before);
    assert_eq!(count(&service.database, "request_outcomes"), 0);
}

async fn of_eight_registrations_of_one_email_one_wins(engine: Engine) {
    let service = TestService::start(engine).await;
    let spellings = ["ada@example.com", "ADA@example.com", "Ada@Example.Com", "ada@EXAMPLE.com"];
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let client = service.client();
            tokio::spawn(async move { client.register(registration(spellings[number % 4])).await })
        })
        .collect();
    let mut winners = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(response) => winners.push(response.user.unwrap()),
            Err(status) => {
                assert_eq!(refusal::<()>(Err(status)), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
            }
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(census(&service.database), [1, 1, 1, 1, 1]);
}

async fn an_email_is_free_again_when_its_tenant_is_deleted(engine: Engine) {
    let clock = TestClock::new();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    let request = || RegisterRequest { request_id: new_id(), ..registration("ada@example.com") };
    let again = request();
    let first = service.client().register(again.clone()).await.unwrap().user.unwrap();
    delete_tenant(&service.database, &first).await;
    clock.advance(Duration::from_secs(1));
    let second = service.client().register(again).await.unwrap().user.unwrap();
    assert_ne!((second.id, second.tenant_id), (first.id, first.tenant_id));
    let third = service.client().register(request()).await;
    assert_eq!(refusal(third), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
}
