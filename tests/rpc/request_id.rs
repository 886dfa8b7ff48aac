//! Registering again with the same request id.

use std::time::Duration;

use identity::domain::UserState;
use identity::proto::v1::{RegisterRequest, RegisterResponse};
use tonic::Code;
use uuid::Uuid;

use crate::database::{census, count, execute, set_state, user_id_of, values};
use crate::fixture::{TestClock, claim, new_id, refusal, refused, visible};
use crate::support::service::{
    Engine, PASSWORD, TestDatabase, TestService, bad_fields, on_both_databases, registration,
};

on_both_databases!(
    a_repetition_gets_the_same_user_and_a_new_session,
    twenty_repetitions_at_once_register_once,
    of_many_registrations_with_one_id_and_other_content_one_wins,
    a_repetition_with_other_content_is_refused,
    a_repetition_after_a_day_is_a_new_registration,
    a_refused_registration_leaves_its_id_free,
    a_repetition_for_a_disabled_user_opens_no_session,
    a_repetition_is_not_one_more_registration,
    a_repetition_shows_the_user_as_it_is_now,
    what_is_no_uuid_is_named,
    what_is_remembered_says_nothing_of_the_password,
);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn named(email: &str) -> RegisterRequest {
    RegisterRequest { request_id: new_id(), ..registration(email) }
}

fn session_of(response: &RegisterResponse) -> String {
    claim(&response.access_token, "sid")
}

async fn a_repetition_gets_the_same_user_and_a_new_session(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let request = named("ada@example.com");
    let first = client.register(request.clone()).await.unwrap();
    // White space around names and the case of the id are no content.
    let shouted = RegisterRequest {
        request_id: request.request_id.to_uppercase(),
        first_name: format!(" {} ", request.first_name),
        ..request.clone()
    };
    for repetition in [request, shouted] {
        let again = client.register(repetition).await.unwrap();
        assert_eq!(again.user, first.user);
        assert_ne!(session_of(&again), session_of(&first));
        assert_ne!(again.refresh_token, first.refresh_token);
        for token in [&first.access_token, &again.access_token] {
            assert_eq!(client.get_user(Some(token), "").await.unwrap().user, first.user);
        }
    }
    assert_eq!(census(&service.database), [1, 1, 1, 1, 3]);
}

async fn twenty_repetitions_at_once_register_once(engine: Engine) {
    let service = TestService::start(engine).await;
    let request = named("ada@example.com");
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (client, request) = (service.client(), request.clone());
            tokio::spawn(async move { client.register(request).await.unwrap() })
        })
        .collect();
    let mut users = Vec::new();
    let mut sessions = std::collections::BTreeSet::new();
    for call in calls {
        let response = call.await.unwrap();
        sessions.insert(session_of(&response));
        users.push(response.user.unwrap());
    }
    users.dedup();
    assert_eq!((users.len(), sessions.len()), (1, 20));
    assert_eq!(census(&service.database), [1, 1, 1, 1, 20]);
}

async fn of_many_registrations_with_one_id_and_other_content_one_wins(engine: Engine) {
    let service = TestService::start(engine).await;
    let request_id = new_id();
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let email = format!("ada{number}@example.com");
            let request = RegisterRequest { request_id: request_id.clone(), ..registration(&email) };
            let client = service.client();
            tokio::spawn(async move { client.register(request).await })
        })
        .collect();
    let mut winners = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => winners += 1,
            Err(status) => {
                let reused = refused(Code::InvalidArgument, "REQUEST_ID_REUSED");
                assert_eq!(refusal::<()>(Err(status)), reused);
            }
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(census(&service.database), [1, 1, 1, 1, 1]);
}

async fn a_repetition_with_other_content_is_refused(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let request = named("ada@example.com");
    client.register(request.clone()).await.unwrap();
    let before = census(&service.database);
    type Change = fn(&mut RegisterRequest);
    let changes: [(&str, Change); 8] = [
        ("e-mail", |request| request.email = "eve@example.com".into()),
        ("case of the e-mail", |request| request.email = "Ada@example.com".into()),
        ("password", |request| request.password = "correct horse batterz".into()),
        ("password behind a NUL", |request| request.password.push_str("\0correct horse battery")),
        ("first name", |request| request.first_name = "Eve".into()),
        ("last name", |request| request.last_name = "Eve".into()),
        ("tenant name", |request| request.tenant_name = "Eve's".into()),
        ("names swapped", |request| {
            std::mem::swap(&mut request.first_name, &mut request.last_name);
        }),
    ];
    let mut replies = Vec::new();
    for (what, change) in changes {
        let mut other = request.clone();
        change(&mut other);
        let status = client.register(other).await.unwrap_err();
        replies.push(crate::fixture::visible(&status));
        let reused = refused(Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(refusal::<()>(Err(status)), reused, "{what}");
    }
    replies.dedup();
    assert_eq!(replies.len(), 1, "the refusal tells which field differs");
    assert_eq!(census(&service.database), before);
    client.register(request).await.unwrap();
}

async fn a_repetition_after_a_day_is_a_new_registration(engine: Engine) {
    let clock = TestClock::new();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    let client = service.client();
    let request = named("ada@example.com");
    let first = client.register(request.clone()).await.unwrap();
    clock.advance(DAY - Duration::from_micros(1));
    assert_eq!(client.register(request.clone()).await.unwrap().user, first.user);

    clock.advance(Duration::from_micros(1));
    let taken = client.register(request.clone()).await;
    assert_eq!(refusal(taken), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
    let other = RegisterRequest { email: "eve@example.com".into(), ..request };
    let second = client.register(other.clone()).await.unwrap();
    assert_ne!(second.user.as_ref().unwrap().tenant_id, first.user.unwrap().tenant_id);
    assert_eq!(client.register(other).await.unwrap().user, second.user);
    assert_eq!(count(&service.database, "request_outcomes"), 1);
}

async fn a_refused_registration_leaves_its_id_free(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    client.register(registration("ada@example.com")).await.unwrap();
    let taken = named("ada@example.com");
    let result = client.register(taken.clone()).await;
    assert_eq!(refusal(result), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
    let free = RegisterRequest { email: "eve@example.com".into(), ..taken };
    client.register(free).await.unwrap();
}

async fn a_repetition_for_a_disabled_user_opens_no_session(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let request = named("ada@example.com");
    let user = client.register(request.clone()).await.unwrap().user.unwrap();
    set_state(&service.database, &user, UserState::Disabled).await;
    // Nobody learns by it whether a password is right.
    let guessed = RegisterRequest { password: "wrong horse battery".into(), ..request.clone() };
    let mut replies = Vec::new();
    for message in [request, guessed] {
        let status = client.register(message).await.unwrap_err();
        replies.push(visible(&status));
        assert_eq!(refusal::<()>(Err(status)), refused(Code::InvalidArgument, "REQUEST_ID_REUSED"));
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(count(&service.database, "sessions"), 1);
}

async fn a_repetition_is_not_one_more_registration(engine: Engine) {
    let limit = [("IDENTITY_REGISTRATION_LIMIT", "1")];
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &limit).await;
    let client = service.client();
    let request = named("ada@example.com");
    let first = client.register(request.clone()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.register(request.clone()).await.unwrap().user, first.user);
    }
    let another = client.register(named("eve@example.com")).await;
    assert_eq!(refusal(another), refused(Code::ResourceExhausted, "TOO_MANY_REGISTRATIONS"));
}

async fn a_repetition_shows_the_user_as_it_is_now(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let request = named("ada@example.com");
    client.register(request.clone()).await.unwrap();
    let of = user_id_of("ada@example.com");
    execute(&service.database, &format!("UPDATE users SET last_name = 'King', version = 2 WHERE id = {of}"));
    let again = client.register(request).await.unwrap().user.unwrap();
    assert_eq!((again.last_name.as_str(), again.etag.as_str()), ("King", "\"2\""));
}

async fn what_is_no_uuid_is_named(engine: Engine) {
    let service = TestService::start(engine).await;
    let id = Uuid::parse_str(&new_id()).unwrap();
    for text in [
        "1".to_owned(),
        " ".to_owned(),
        id.simple().to_string(),
        id.braced().to_string(),
        id.urn().to_string(),
        format!("{id} "),
        format!("{}g", &id.to_string()[..35]),
        "\u{661}".repeat(18),
    ] {
        let request = RegisterRequest { request_id: text.clone(), ..registration("ada@example.com") };
        let status = service.client().register(request).await.unwrap_err();
        assert_eq!((status.code(), bad_fields(&status)), (Code::InvalidArgument, vec!["request_id".into()]));
    }
    assert_eq!(census(&service.database), [0; 5]);
}

async fn what_is_remembered_says_nothing_of_the_password(engine: Engine) {
    let columns = match engine {
        Engine::Sqlite => "SELECT name AS value FROM pragma_table_info('request_outcomes') ORDER BY cid",
        Engine::Postgres => {
            "SELECT column_name::text AS value FROM information_schema.columns \
             WHERE table_name = 'request_outcomes' ORDER BY ordinal_position"
        }
    };
    let digest = match engine {
        Engine::Sqlite => "SELECT hex(fingerprint) AS value FROM request_outcomes ORDER BY created_at",
        Engine::Postgres => {
            "SELECT encode(fingerprint, 'hex') AS value FROM request_outcomes ORDER BY created_at"
        }
    };
    let service = TestService::start(engine).await;
    let request = named("ada@example.com");
    let user = service.client().register(request.clone()).await.unwrap().user.unwrap();
    let expected = ["request_id", "fingerprint", "tenant_id", "user_id", "created_at", "expires_at"];
    assert_eq!(values(&service.database, columns), expected);
    let first = values(&service.database, digest);
    crate::database::delete_tenant(&service.database, &user).await;
    assert_ne!(request.password, format!("{PASSWORD}!"));
    let other = RegisterRequest { password: format!("{PASSWORD}!"), ..request };
    service.client().register(other).await.unwrap();
    // The same digest for another password: it was not part of it.
    assert_eq!(values(&service.database, digest), first);
}
