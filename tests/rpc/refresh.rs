//! Refreshing: who gets which successor, and what ends a session.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::domain::{Clock as _, UserState};
use tonic::Code;

use crate::database::{count, execute, set_state, values};
use crate::fixture::{TestClock, claim, refusal, refused, registered, visible};
use crate::support::service::{Engine, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    a_session_goes_on_with_the_successor,
    all_who_present_one_token_at_once_get_the_same_successor,
    two_processes_hand_out_the_same_successor,
    a_token_that_was_replaced_counts_until_its_grace_is_over_and_then_ends_the_session,
    every_token_has_a_grace_of_its_own,
    a_rotation_that_is_dated_ahead_has_no_grace,
    a_session_that_was_dated_ahead_goes_on_with_the_usual_grace,
    of_very_many_rotations_the_last_ones_are_remembered,
    without_a_grace_a_token_counts_once,
    a_session_that_is_refreshed_outlives_its_idle_time_but_not_its_longest,
    every_text_that_is_no_refresh_token_in_force_looks_the_same,
    a_text_that_was_made_up_costs_no_query_and_ends_nothing,
    a_disabled_user_refreshes_nothing_until_enabled_again,
);

fn invalid() -> (Code, String) {
    refused(Code::Unauthenticated, "REFRESH_TOKEN_INVALID")
}

async fn a_session_goes_on_with_the_successor(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let mut token = ada.refresh_token;
    let mut access_tokens = BTreeSet::from([ada.access_token.clone()]);
    for _ in 0..5 {
        let next = client.refresh(&token).await.unwrap();
        assert_ne!(next.refresh_token, token);
        assert_eq!(claim(&next.access_token, "sid"), claim(&ada.access_token, "sid"));
        assert_eq!(client.get_user(Some(&next.access_token), "").await.unwrap().user, ada.user);
        assert!(next.access_token_expires_at.is_some());
        access_tokens.insert(next.access_token);
        token = next.refresh_token;
    }
    // An access token goes on counting until it expires.
    client.get_user(Some(&ada.access_token), "").await.unwrap();
    assert_eq!(access_tokens.len(), 6);
    assert_eq!(count(&service.database, "sessions"), 1);
}

async fn all_who_present_one_token_at_once_get_the_same_successor(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (client, token) = (service.client(), ada.refresh_token.clone());
            tokio::spawn(async move { client.refresh(&token).await.unwrap() })
        })
        .collect();
    let mut successors = BTreeSet::new();
    for call in calls {
        let next = call.await.unwrap();
        service.client().get_user(Some(&next.access_token), "").await.unwrap();
        successors.insert(next.refresh_token);
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(values(&service.database, "SELECT CAST(generation AS TEXT) AS value FROM sessions"), ["1"]);
    service.client().refresh(successors.first().unwrap()).await.unwrap();
}

async fn two_processes_hand_out_the_same_successor(engine: Engine) {
    let one = TestService::start(engine).await;
    let other = TestService::start_with(one.database.again(), &[]).await;
    let ada = registered(&one, "ada@example.com").await;
    let calls: Vec<_> = [one.client(), other.client()]
        .into_iter()
        .cycle()
        .take(20)
        .map(|client| {
            let token = ada.refresh_token.clone();
            tokio::spawn(async move { client.refresh(&token).await.unwrap().refresh_token })
        })
        .collect();
    let mut successors = BTreeSet::new();
    for call in calls {
        successors.insert(call.await.unwrap());
    }
    assert_eq!(successors.len(), 1);
}

/// A service at a time that the test says, with further variables.
async fn at(engine: Engine, clock: &std::sync::Arc<TestClock>, variables: &[(&str, &str)]) -> TestService {
    TestService::start_at(TestDatabase::migrated(engine).await, variables, clock.clone()).await
}

async fn a_token_that_was_replaced_counts_until_its_grace_is_over_and_then_ends_the_session(engine: Engine) {
    let clock = TestClock::new();
    let service = at(engine, &clock, &[]).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let eve = registered(&service, "eve@example.com").await;
    let next = client.refresh(&ada.refresh_token).await.unwrap();
    clock.advance(Duration::from_secs(30));
    let again = client.refresh(&ada.refresh_token).await.unwrap();
    assert_eq!(again.refresh_token, next.refresh_token);

    clock.advance(Duration::from_micros(1));
    assert_eq!(refusal(client.refresh(&ada.refresh_token).await), invalid());
    // The session has ended for everybody, and for nobody else.
    assert_eq!(refusal(client.refresh(&next.refresh_token).await), invalid());
    let result = client.get_user(Some(&next.access_token), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
    client.refresh(&eve.refresh_token).await.unwrap();
}

async fn every_token_has_a_grace_of_its_own(engine: Engine) {
    let clock = TestClock::new();
    let service = at(engine, &clock, &[]).await;
    let client = service.client();
    let first = registered(&service, "ada@example.com").await.refresh_token;
    let refreshed = async |token: &str| client.refresh(token).await.map(|next| next.refresh_token);
    let second = refreshed(&first).await.unwrap();
    clock.advance(Duration::from_secs(20));
    let third = refreshed(&second).await.unwrap();
    clock.advance(Duration::from_secs(10));
    // Whoever is late gets what the others have by now.
    for late in [&first, &second] {
        assert_eq!(refreshed(late).await.unwrap(), third);
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(refreshed(&second).await.unwrap(), third);
    assert_eq!(refusal(refreshed(&first).await), invalid());
    assert_eq!(refusal(refreshed(&third).await), invalid());
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn a_rotation_that_is_dated_ahead_has_no_grace(engine: Engine) {
    let clock = TestClock::new();
    let service = at(engine, &clock, &[]).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await.refresh_token;
    let eve = registered(&service, "eve@example.com").await.refresh_token;
    clock.advance(DAY);
    let next_of_ada = client.refresh(&ada).await.unwrap().refresh_token;
    clock.set_back(DAY);
    // As far ahead as clocks may be.
    clock.advance(Duration::from_secs(60));
    let next_of_eve = client.refresh(&eve).await.unwrap().refresh_token;
    clock.set_back(Duration::from_secs(60));

    assert_eq!(client.refresh(&eve).await.unwrap().refresh_token, next_of_eve);
    assert_eq!(refusal(client.refresh(&ada).await), invalid());
    assert_eq!(refusal(client.refresh(&next_of_ada).await), invalid());
}

async fn a_session_that_was_dated_ahead_goes_on_with_the_usual_grace(engine: Engine) {
    let clock = TestClock::new();
    let service = at(engine, &clock, &[]).await;
    let client = service.client();
    let refreshed = async |token: &str| client.refresh(token).await.map(|next| next.refresh_token);
    let first = registered(&service, "ada@example.com").await.refresh_token;
    clock.advance(DAY);
    let second = refreshed(&first).await.unwrap();
    clock.set_back(DAY);
    let third = refreshed(&second).await.unwrap();
    assert_eq!(refreshed(&second).await.unwrap(), third);
    clock.advance(Duration::from_secs(31));
    assert_eq!(refusal(refreshed(&second).await), invalid());
    assert_eq!(refusal(refreshed(&third).await), invalid());
}

async fn of_very_many_rotations_the_last_ones_are_remembered(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let mut tokens = vec![registered(&service, "ada@example.com").await.refresh_token];
    for _ in 0..17 {
        tokens.push(client.refresh(tokens.last().unwrap()).await.unwrap().refresh_token);
    }
    assert_eq!(client.refresh(&tokens[1]).await.unwrap().refresh_token, tokens[17]);
    assert_eq!(refusal(client.refresh(&tokens[0]).await), invalid());
    assert_eq!(refusal(client.refresh(&tokens[17]).await), invalid());
}

async fn without_a_grace_a_token_counts_once(engine: Engine) {
    let clock = TestClock::new();
    let service = at(engine, &clock, &[("IDENTITY_REFRESH_GRACE", "0s")]).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    clock.advance(Duration::from_secs(1));
    client.refresh(&ada.refresh_token).await.unwrap();
    clock.advance(Duration::from_micros(1));
    assert_eq!(refusal(client.refresh(&ada.refresh_token).await), invalid());
}

async fn a_session_that_is_refreshed_outlives_its_idle_time_but_not_its_longest(engine: Engine) {
    const HOUR: Duration = Duration::from_secs(3600);
    let clock = TestClock::new();
    let variables = [("IDENTITY_SESSION_IDLE", "2h"), ("IDENTITY_SESSION_MAX", "5h")];
    let service = at(engine, &clock, &variables).await;
    let client = service.client();
    let mut token = registered(&service, "ada@example.com").await.refresh_token;
    for _ in 0..4 {
        clock.advance(HOUR);
        token = client.refresh(&token).await.unwrap().refresh_token;
    }
    clock.advance(HOUR - Duration::from_micros(1));
    let last = client.refresh(&token).await.unwrap();
    // No access token outlives its session.
    assert!(last.access_token_expires_at.unwrap().seconds <= clock.now().as_unix_seconds() + 1);
    clock.advance(Duration::from_micros(1));
    assert_eq!(refusal(client.refresh(&last.refresh_token).await), invalid());

    let eve = registered(&service, "eve@example.com").await;
    clock.advance(2 * HOUR);
    assert_eq!(refusal(client.refresh(&eve.refresh_token).await), invalid());
}

async fn every_text_that_is_no_refresh_token_in_force_looks_the_same(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let ended = registered(&service, "eve@example.com").await;
    client.logout(&ended.refresh_token).await.unwrap();
    let other = TestService::start_with(
        TestDatabase::migrated(engine).await,
        &[("IDENTITY_MASTER_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")],
    )
    .await;
    let foreign = registered(&other, "ada@example.com").await.refresh_token;
    // Under the same master key, of a database that was set back or is another one.
    let twin = TestService::start(engine).await;
    let stranger = registered(&twin, "ada@example.com").await.refresh_token;

    let token = ada.refresh_token.as_str();
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    let altered = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let mut cases: Vec<(String, String)> = [
        ("nothing", ""),
        ("an access token", ada.access_token.as_str()),
        ("the token of a session that has ended", &ended.refresh_token),
        ("a token under another master key", &foreign),
        ("a token of a session that is not there", &stranger),
        ("the token cut off", &token[..token.len() - 1]),
        ("a character more", &format!("{token}A")),
        ("padding", &format!("{token}=")),
        ("white space", &format!(" {token}")),
        ("a scheme", &format!("Bearer {token}")),
        ("60,000 characters", &"A".repeat(60_000)),
        ("a NUL", "\0"),
    ]
    .map(|(what, text)| (what.to_owned(), text.to_owned()))
    .into();
    // Version, tenant, session, generation, secret, MAC.
    cases.extend([0, 1, 17, 36, 37, 69, 100].map(|at| (format!("byte {at} changed"), altered(at))));
    let mut first = None;
    for (what, text) in cases {
        let status = client.refresh(&text).await.unwrap_err();
        assert_eq!(refusal::<()>(Err(status.clone())), invalid(), "{what}");
        let seen = visible(&status);
        assert_eq!(first.get_or_insert_with(|| seen.clone()), &seen, "{what}");
    }
    // Nothing of this has harmed the session.
    client.refresh(token).await.unwrap();
}

async fn a_text_that_was_made_up_costs_no_query_and_ends_nothing(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let mut made_up = ada.refresh_token.clone();
    made_up.replace_range(0..1, "B");
    // Whoever asked the database now would hear that something is wrong with it.
    execute(&service.database, "ALTER TABLE sessions RENAME TO sessions_elsewhere");
    assert_eq!(refusal(client.refresh(&made_up).await), invalid());
    assert_eq!(refusal(client.logout(&made_up).await), invalid());
    assert_eq!(refusal(client.refresh(&ada.refresh_token).await).0, Code::Internal);
    execute(&service.database, "ALTER TABLE sessions_elsewhere RENAME TO sessions");
    client.refresh(&ada.refresh_token).await.unwrap();
}

async fn a_disabled_user_refreshes_nothing_until_enabled_again(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let user = ada.user.unwrap();
    set_state(&service.database, &user, UserState::Disabled).await;
    assert_eq!(refusal(client.refresh(&ada.refresh_token).await), invalid());
    set_state(&service.database, &user, UserState::Active).await;
    client.refresh(&ada.refresh_token).await.unwrap();
}
