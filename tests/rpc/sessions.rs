//! What users do about their own sessions and passwords, and what others learn of them.

use std::time::Duration;

use identity::domain::{Clock as _, RequestId, SystemClock, UserState};
use identity::proto::v1::{Role, VerifyTokenResponse};
use tonic::{Code, Status};

use crate::database::{count, delete_tenant, execute, set_state, stored_hash, user_id_of, values};
use crate::fixture::{TestClock, claim, refusal, refused, registered, visible};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, bad_fields, on_both_databases,
};
use crate::support::wait::eventually;

on_both_databases!(
    a_logout_ends_its_session_and_may_be_repeated,
    sessions_are_listed_newest_first_page_by_page,
    only_open_sessions_of_the_caller_are_listed,
    a_page_token_is_good_for_its_list_only,
    a_session_is_revoked_by_its_user_only,
    a_changed_password_ends_all_other_sessions,
    a_password_is_changed_by_whoever_knows_it,
    of_two_changes_at_once_one_counts,
    a_session_that_is_ended_during_a_change_of_password_changes_nothing,
    a_verified_token_says_what_is_true_now,
    whatever_is_no_access_token_in_force_is_not_active,
    the_oldest_session_goes_when_there_are_too_many,
    logins_at_once_leave_no_more_sessions_than_are_allowed,
    what_has_expired_is_swept,
);

const NEW_PASSWORD: &str = "battery staple horse";

async fn is_open(client: &Client, access_token: &str) -> bool {
    client.get_user(Some(access_token), "").await.is_ok()
}

fn token_invalid() -> (Code, String) {
    refused(Code::Unauthenticated, "TOKEN_INVALID")
}

async fn a_logout_ends_its_session_and_may_be_repeated(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let other = client.login("ada@example.com", PASSWORD).await.unwrap();
    let next = client.refresh(&ada.refresh_token).await.unwrap();
    // An older token of the session ends it as well.
    for token in [&ada.refresh_token, &next.refresh_token, &ada.refresh_token] {
        client.logout(token).await.unwrap();
        assert!(!is_open(&client, &ada.access_token).await && !is_open(&client, &next.access_token).await);
    }
    assert!(is_open(&client, &other.access_token).await);
    execute(&service.database, "DELETE FROM sessions");
    client.logout(&ada.refresh_token).await.unwrap();
    for text in ["", "x", &ada.access_token] {
        let result = client.logout(text).await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "REFRESH_TOKEN_INVALID"), "{text:?}");
    }
}

async fn sessions_are_listed_newest_first_page_by_page(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    let client = service.client();
    let mut expected = vec![claim(&registered(&service, "ada@example.com").await.access_token, "sid")];
    let mut token = String::new();
    for number in 0..6 {
        // Some are opened in the same moment.
        clock.advance(Duration::from_secs(number % 2));
        token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
        expected.push(claim(&token, "sid"));
    }
    let all = client.list_sessions(&token, 0, "").await.unwrap();
    assert_eq!(all.next_page_token, "");
    let of = |sessions: &[identity::proto::v1::Session]| {
        sessions.iter().map(|session| session.id.clone()).collect::<Vec<_>>()
    };
    let mut sorted = of(&all.sessions);
    assert_eq!(all.sessions.iter().filter(|session| session.current).count(), 1);
    assert!(all.sessions.iter().find(|session| session.current).unwrap().id == claim(&token, "sid"));
    for pair in all.sessions.windows(2) {
        let (newer, older) = (pair[0].created_at.unwrap(), pair[1].created_at.unwrap());
        assert!((newer.seconds, newer.nanos) >= (older.seconds, older.nanos));
    }
    for size in [1, 2, 3, 6, 7, 8, 1_000, i32::MAX] {
        let (mut paged, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = client.list_sessions(&token, size, &page_token).await.unwrap();
            assert!(page.sessions.len() <= usize::try_from(size).unwrap());
            paged.extend(of(&page.sessions));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, of(&all.sessions), "in pages of {size}");
    }
    // What is opened or ended between two pages moves nothing.
    let first = client.list_sessions(&token, 3, "").await.unwrap();
    client.login("ada@example.com", PASSWORD).await.unwrap();
    client.revoke_session(&token, &first.sessions[1].id).await.unwrap();
    let rest = client.list_sessions(&token, 100, &first.next_page_token).await.unwrap();
    assert_eq!([of(&first.sessions), of(&rest.sessions)].concat(), of(&all.sessions));
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let session = &all.sessions[0];
    let ends_in = session.expires_at.unwrap().seconds - session.last_used_at.unwrap().seconds;
    assert_eq!(ends_in, 14 * 24 * 60 * 60);
    assert_eq!((session.device.as_str(), session.address.as_str()), ("", ""));
}

async fn only_open_sessions_of_the_caller_are_listed(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let variables = [("IDENTITY_SESSION_IDLE", "1h"), ("IDENTITY_SESSION_MAX", "10h")];
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    registered(&service, "eve@example.com").await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    let ended = client.login("ada@example.com", PASSWORD).await.unwrap();
    client.logout(&ended.refresh_token).await.unwrap();
    assert_eq!(client.list_sessions(&ada.access_token, 0, "").await.unwrap().sessions.len(), 2);
    clock.advance(Duration::from_secs(3599));
    let ada = client.refresh(&ada.refresh_token).await.unwrap();
    clock.advance(Duration::from_secs(1));
    let left = client.list_sessions(&ada.access_token, 0, "").await.unwrap().sessions;
    assert_eq!(left.len(), 1);
    assert!(left[0].current);
}

async fn a_page_token_is_good_for_its_list_only(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await.access_token;
    let eve = registered(&service, "eve@example.com").await.access_token;
    client.login("ada@example.com", PASSWORD).await.unwrap();
    client.login("eve@example.com", PASSWORD).await.unwrap();
    let token = client.list_sessions(&ada, 1, "").await.unwrap().next_page_token;
    let mut altered = token.clone();
    altered.replace_range(4..5, if &token[4..5] == "A" { "B" } else { "A" });
    for (caller, page_token) in [
        (&eve, token.as_str()),
        (&ada, &altered),
        (&ada, "x"),
        (&ada, &token[1..]),
        (&ada, &"A".repeat(50_000)),
    ] {
        let status = client.list_sessions(caller, 1, page_token).await.unwrap_err();
        assert_eq!((status.code(), bad_fields(&status)), (Code::InvalidArgument, vec!["page_token".into()]));
    }
    for size in [-1, i32::MIN] {
        let status = client.list_sessions(&ada, size, "").await.unwrap_err();
        assert_eq!((status.code(), bad_fields(&status)), (Code::InvalidArgument, vec!["page_size".into()]));
    }
    client.list_sessions(&ada, 1, &token).await.unwrap();
}

async fn a_session_is_revoked_by_its_user_only(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await.access_token;
    let eve = registered(&service, "eve@example.com").await.access_token;
    let phone = client.login("ada@example.com", PASSWORD).await.unwrap();
    let id = claim(&phone.access_token, "sid");

    let nobodys = RequestId::generate(SystemClock.now()).to_string();
    let not_found = |status: Result<(), Status>| visible(&status.unwrap_err());
    let unknown = not_found(client.revoke_session(&ada, &nobodys).await);
    assert_eq!((unknown.0, unknown.1.as_str()), (Code::NotFound, "There is no such session."));
    assert_eq!(not_found(client.revoke_session(&eve, &id).await), unknown);
    assert!(is_open(&client, &phone.access_token).await);
    for bad in ["", "1", "{}"] {
        let status = client.revoke_session(&ada, bad).await.unwrap_err();
        assert_eq!((status.code(), bad_fields(&status)), (Code::InvalidArgument, vec!["session_id".into()]));
    }
    for _ in 0..2 {
        client.revoke_session(&ada, &id.to_uppercase()).await.unwrap();
        assert!(!is_open(&client, &phone.access_token).await && is_open(&client, &ada).await);
    }
    let result = client.refresh(&phone.refresh_token).await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "REFRESH_TOKEN_INVALID"));
    client.revoke_session(&ada, &claim(&ada, "sid")).await.unwrap();
    assert_eq!(refusal(client.revoke_session(&ada, &id).await), token_invalid());
    assert!(is_open(&client, &eve).await);
}

async fn a_changed_password_ends_all_other_sessions(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let here = registered(&service, "ada@example.com").await;
    let eve = registered(&service, "eve@example.com").await;
    let there = client.login("ada@example.com", PASSWORD).await.unwrap();
    client.change_password(&here.access_token, PASSWORD, NEW_PASSWORD).await.unwrap();
    assert!(is_open(&client, &here.access_token).await && is_open(&client, &eve.access_token).await);
    assert!(!is_open(&client, &there.access_token).await);
    assert!(client.refresh(&there.refresh_token).await.is_err());
    client.refresh(&here.refresh_token).await.unwrap();
    let result = client.login("ada@example.com", PASSWORD).await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"));
    client.login("ada@example.com", NEW_PASSWORD).await.unwrap();
}

async fn a_password_is_changed_by_whoever_knows_it(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await.access_token;
    let before = stored_hash(&service.database, "ada@example.com");
    let wrong = client.change_password(&ada, "wrong horse", NEW_PASSWORD).await;
    assert_eq!(refusal(wrong), refused(Code::Unauthenticated, "LOGIN_FAILED"));
    for (current, new, fields) in [
        ("", "", &["current_password", "new_password"][..]),
        (PASSWORD, "short", &["new_password"]),
        (PASSWORD, "Password1", &["new_password"]),
        (PASSWORD, "ADA@example.com", &["new_password"]),
        (PASSWORD, &"x".repeat(1025), &["new_password"]),
        (&"x".repeat(1025), NEW_PASSWORD, &["current_password"]),
    ] {
        let status = client.change_password(&ada, current, new).await.unwrap_err();
        assert_eq!(
            (status.code(), bad_fields(&status).as_slice()),
            (
                Code::InvalidArgument,
                fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>().as_slice()
            )
        );
    }
    assert_eq!(stored_hash(&service.database, "ada@example.com"), before);
    client.revoke_session(&ada, &claim(&ada, "sid")).await.unwrap();
    for (current, new) in [(PASSWORD, NEW_PASSWORD), (PASSWORD, "short")] {
        assert_eq!(refusal(client.change_password(&ada, current, new).await), token_invalid());
    }
}

async fn of_two_changes_at_once_one_counts(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await.access_token;
    let changes = ["first new password", "second new password", "third new password"].map(|new| {
        let (client, ada) = (service.client(), ada.clone());
        tokio::spawn(async move { (new, client.change_password(&ada, PASSWORD, new).await) })
    });
    let mut counts = Vec::new();
    for change in changes {
        match change.await.unwrap() {
            (new, Ok(())) => counts.push(new),
            (_, refused_one) => {
                assert_eq!(refusal(refused_one), refused(Code::Unauthenticated, "LOGIN_FAILED"));
            }
        }
    }
    assert_eq!(counts.len(), 1);
    service.client().login("ada@example.com", counts[0]).await.unwrap();
}

async fn a_session_that_is_ended_during_a_change_of_password_changes_nothing(engine: Engine) {
    // Long enough for a revocation in the middle of it.
    let slow = [("IDENTITY_BCRYPT_COST", "13"), ("IDENTITY_HASH_THREADS", "1"), ("IDENTITY_HASH_LANES", "1")];
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &slow).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    let ada = client.register(crate::support::service::registration("ada@example.com")).await.unwrap();
    let before = stored_hash(&service.database, "ada@example.com");
    let change = {
        let (client, token) = (client.clone(), ada.access_token.clone());
        tokio::spawn(async move { client.change_password(&token, PASSWORD, NEW_PASSWORD).await })
    };
    let pending = "SELECT 'pending' AS value FROM attempts WHERE length(pending) > 0";
    eventually("the check is under way", async || !values(&service.database, pending).is_empty()).await;
    client.logout(&ada.refresh_token).await.unwrap();
    assert!(!change.is_finished());
    assert_eq!(refusal(change.await.unwrap()), token_invalid());
    assert_eq!(stored_hash(&service.database, "ada@example.com"), before);
}

async fn a_verified_token_says_what_is_true_now(engine: Engine) {
    let variables = [("IDENTITY_ISSUER", "https://id.example"), ("IDENTITY_AUDIENCE", "api")];
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &variables).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let user = ada.user.clone().unwrap();
    let verified = client.verify_token(&ada.access_token).await.unwrap();
    let expected = VerifyTokenResponse {
        active: true,
        user_id: user.id.clone(),
        tenant_id: user.tenant_id.clone(),
        session_id: claim(&ada.access_token, "sid"),
        role: Role::Owner.into(),
        issued_at: verified.issued_at,
        expires_at: ada.access_token_expires_at,
        issuer: "https://id.example".into(),
        audience: "api".into(),
        token_id: claim(&ada.access_token, "jti"),
    };
    assert_eq!(verified, expected);
    assert_eq!(verified.expires_at.unwrap().seconds - verified.issued_at.unwrap().seconds, 15 * 60);
    let of = user_id_of("ada@example.com");
    execute(&service.database, &format!("UPDATE users SET role = 'member' WHERE id = {of}"));
    assert_eq!(client.verify_token(&ada.access_token).await.unwrap().role(), Role::Member);
}

async fn whatever_is_no_access_token_in_force_is_not_active(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let inactive = VerifyTokenResponse::default();
    let (token, long) = (ada.access_token.as_str(), "x".repeat(60_000));
    for text in ["", "x", "a.b.c", &token[1..], &token[..token.len() - 1], &ada.refresh_token, &long] {
        assert_eq!(client.verify_token(text).await.unwrap(), inactive, "{text}");
    }
    let user = ada.user.clone().unwrap();
    set_state(&service.database, &user, UserState::Disabled).await;
    assert_eq!(client.verify_token(token).await.unwrap(), inactive);
    set_state(&service.database, &user, UserState::Active).await;
    assert!(client.verify_token(token).await.unwrap().active);

    let other = client.login("ada@example.com", PASSWORD).await.unwrap();
    client.logout(&ada.refresh_token).await.unwrap();
    assert_eq!(client.verify_token(token).await.unwrap(), inactive);
    let other = other.access_token;
    clock.advance(Duration::from_secs(15 * 60 + 5));
    assert_eq!(client.verify_token(&other).await.unwrap(), inactive);

    let eve = registered(&service, "eve@example.com").await;
    assert!(client.verify_token(&eve.access_token).await.unwrap().active);
    delete_tenant(&service.database, &eve.user.unwrap()).await;
    assert_eq!(client.verify_token(&eve.access_token).await.unwrap(), inactive);
}

async fn the_oldest_session_goes_when_there_are_too_many(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[("IDENTITY_SESSION_LIMIT", "3")]).await;
    let client = service.client();
    let first = registered(&service, "ada@example.com").await.access_token;
    let eve = registered(&service, "eve@example.com").await.access_token;
    let login = async || client.login("ada@example.com", PASSWORD).await.unwrap();
    let (second, third) = (login().await, login().await);
    assert!(is_open(&client, &first).await);
    // One that has ended goes before one that is open.
    client.logout(&third.refresh_token).await.unwrap();
    let fourth = login().await;
    assert!(is_open(&client, &first).await);
    let fifth = login().await;
    assert!(!is_open(&client, &first).await);
    for open in [&second, &fourth, &fifth] {
        assert!(is_open(&client, &open.access_token).await);
    }
    assert!(is_open(&client, &eve).await);
    assert_eq!(count(&service.database, "sessions"), 4);
}

async fn logins_at_once_leave_no_more_sessions_than_are_allowed(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[("IDENTITY_SESSION_LIMIT", "3")]).await;
    registered(&service, "ada@example.com").await;
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let client = service.client();
            tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await.unwrap() })
        })
        .collect();
    for login in logins {
        login.await.unwrap();
    }
    assert_eq!(count(&service.database, "sessions"), 3);
}

async fn what_has_expired_is_swept(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let variables = [("IDENTITY_SESSION_IDLE", "1h"), ("IDENTITY_SESSION_MAX", "2d")];
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let client = service.client();
    let mut registration = crate::support::service::registration("ada@example.com");
    registration.request_id = crate::fixture::new_id();
    client.register(registration).await.unwrap();
    clock.advance(Duration::from_secs(24 * 60 * 60));
    let kept = client.login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(["sessions", "request_outcomes"].map(|table| count(&service.database, table)), [2, 1]);
    let (_, database) = service.stop().await;
    // It is done first of all at the start.
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    assert_eq!(["sessions", "request_outcomes"].map(|table| count(&service.database, table)), [1, 0]);
    assert!(is_open(&service.client(), &kept.access_token).await);
}
