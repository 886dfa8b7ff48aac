//! Sessions and service tokens: listing, ending, making room and sweeping.

use std::time::Duration;

use identity::domain::{
    AllowedRpcs, EndUser, ServiceName, ServiceToken, ServiceTokenId, Session, SessionId, User,
};
use identity::storage;
use identity::storage::sessions::OpenAt;
use uuid::Uuid;

use crate::fixture::{Fixture, at, delete_surplus, outcome, session, user};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    a_session_reads_back_with_its_user,
    a_session_is_rotated_once_for_each_generation,
    open_sessions_are_listed_from_behind_a_place_on,
    the_sessions_that_matter_least_make_room,
    others_are_ended_and_one_is_kept,
    what_has_expired_is_deleted_in_batches,
    a_service_token_reads_back_and_is_revoked_once,
);

/// The `n`th session of `user`, opened and used at `second`.
fn opened(user: &User, n: u8, second: i64) -> Session {
    Session {
        id: SessionId::from(Uuid::from_bytes([n; 16])),
        generation: 0,
        created_at: at(second),
        last_used_at: at(second),
        expires_at: at(1_000),
        ..session(user)
    }
}

async fn insert(fixture: &Fixture, sessions: &[Session]) {
    let mut tx = fixture.begin().await;
    for session in sessions {
        storage::sessions::insert(&mut tx, session).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// A user, and none of the sessions that a registration opens.
async fn nobody_logged_in(fixture: &Fixture, n: u8) -> User {
    let user = user(n);
    fixture.register(&user).await;
    fixture.outside().await.run("DELETE FROM sessions").await;
    user
}

const OPEN: OpenAt = OpenAt { now: at(100), unused_since: at(0) };

async fn listed(fixture: &Fixture, user: &User, after: Option<&Session>, limit: usize) -> Vec<Session> {
    let mut conn = fixture.storage.read().await.unwrap();
    let after = after.map(|session| (session.created_at, session.id));
    storage::sessions::list_open(&mut conn, user.tenant.id, user.id, OPEN, after, limit).await.unwrap()
}

async fn a_session_reads_back_with_its_user(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user = nobody_logged_in(&fixture, 1).await;
    let bare = Session { opened_by: EndUser::default(), ..opened(&user, 1, 3) };
    let revoked = Session { revoked_at: Some(at(9)), ..opened(&user, 2, 3) };
    insert(&fixture, &[session(&user), bare.clone(), revoked.clone()]).await;
    let mut tx = fixture.begin().await;
    for written in [session(&user), bare, revoked] {
        let id = written.id;
        let found = storage::sessions::find_with_user(&mut tx, user.tenant.id, id).await.unwrap();
        assert_eq!(found, Some((written, user.clone())));
        assert_eq!(
            storage::sessions::find_user_locked(&mut tx, user.tenant.id, id).await.unwrap(),
            Some(user.id)
        );
        let elsewhere = crate::fixture::user(2).tenant.id;
        assert_eq!(storage::sessions::find_with_user(&mut tx, elsewhere, id).await.unwrap(), None);
        assert_eq!(storage::sessions::find_user_locked(&mut tx, elsewhere, id).await.unwrap(), None);
    }
}

async fn a_session_is_rotated_once_for_each_generation(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user = nobody_logged_in(&fixture, 1).await;
    let session = opened(&user, 1, 3);
    insert(&fixture, std::slice::from_ref(&session)).await;
    let rotate = async |to, second| {
        let mut tx = fixture.begin().await;
        let rotated = Session {
            generation: to,
            last_used_at: at(second),
            rotations: vec![at(second), at(1)],
            ..session.clone()
        };
        let is_first = storage::sessions::ask_rotated(&mut tx, &rotated).await.unwrap();
        let is_first = is_first.receive(&mut tx.commit_and_go_on().await.unwrap()).await;
        (is_first.unwrap(), rotated)
    };
    let (is_first, rotated) = rotate(1, 5).await;
    assert!(is_first && !rotate(1, 6).await.0 && !rotate(3, 6).await.0);
    assert_eq!(listed(&fixture, &user, None, 9).await, [rotated]);
    let mut tx = fixture.begin().await;
    assert!(storage::sessions::update_revoked(&mut tx, user.tenant.id, session.id, at(7)).await.unwrap());
    tx.commit().await.unwrap();
    assert!(!rotate(2, 8).await.0);
}

async fn open_sessions_are_listed_from_behind_a_place_on(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (nobody_logged_in(&fixture, 1).await, nobody_logged_in(&fixture, 2).await);
    // Two of the same moment: the greater id first.
    let sessions = [opened(&ada, 1, 5), opened(&ada, 3, 7), opened(&ada, 2, 7), opened(&ada, 4, 6)];
    let ended = [
        Session { revoked_at: Some(at(9)), ..opened(&ada, 5, 8) },
        Session { expires_at: at(100), ..opened(&ada, 6, 8) },
        Session { created_at: at(-9), last_used_at: at(0), ..opened(&ada, 7, 8) },
    ];
    insert(&fixture, &[&sessions[..], &ended, &[opened(&eve, 8, 9)]].concat()).await;
    let [oldest, third, fourth, second_oldest] = sessions;
    let expected = [third, fourth, second_oldest, oldest];
    assert_eq!(listed(&fixture, &ada, None, 9).await, expected);
    assert_eq!(listed(&fixture, &ada, None, 2).await, expected[..2]);
    for (place, session) in expected.iter().enumerate() {
        assert_eq!(listed(&fixture, &ada, Some(session), 9).await, expected[place + 1..]);
    }
}

async fn the_sessions_that_matter_least_make_room(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (nobody_logged_in(&fixture, 1).await, nobody_logged_in(&fixture, 2).await);
    let sessions = [
        opened(&ada, 1, 5),
        opened(&ada, 2, 6),
        Session { revoked_at: Some(at(9)), ..opened(&ada, 3, 8) },
        Session { expires_at: at(99), ..opened(&ada, 4, 9) },
    ];
    insert(&fixture, &[&sessions[..], &[opened(&eve, 8, 1)]].concat()).await;
    let leave = async |kept| {
        let mut tx = fixture.begin().await;
        let deleted = delete_surplus(&mut tx, &ada, OPEN, kept).await;
        tx.commit().await.unwrap();
        (deleted, fixture.outside().await.count("sessions").await)
    };
    assert_eq!(leave(4).await, (0, 5));
    // Those that have ended go first, then the oldest.
    assert_eq!(leave(2).await, (2, 3));
    assert_eq!(listed(&fixture, &ada, None, 9).await.len(), 2);
    assert_eq!(leave(1).await, (1, 2));
    assert_eq!(listed(&fixture, &ada, None, 9).await, [sessions[1].clone()]);
    assert_eq!(listed(&fixture, &eve, None, 9).await.len(), 1);
}

async fn others_are_ended_and_one_is_kept(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (nobody_logged_in(&fixture, 1).await, nobody_logged_in(&fixture, 2).await);
    let kept = opened(&ada, 1, 5);
    let ended = Session { revoked_at: Some(at(6)), ..opened(&ada, 3, 5) };
    insert(&fixture, &[kept.clone(), opened(&ada, 2, 5), ended.clone(), opened(&eve, 4, 5)]).await;
    let mut tx = fixture.begin().await;
    let tenant_id = ada.tenant.id;
    let count = storage::sessions::update_others_revoked(&mut tx, tenant_id, ada.id, Some(kept.id), at(50))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(listed(&fixture, &ada, None, 9).await, [kept]);
    assert_eq!(listed(&fixture, &eve, None, 9).await.len(), 1);
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::sessions::find_with_user(&mut conn, tenant_id, ended.id).await.unwrap();
    assert_eq!(found.unwrap().0, ended, "what had ended keeps the time of its end");
}

async fn what_has_expired_is_deleted_in_batches(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let ada = nobody_logged_in(&fixture, 1).await;
    let expired = |n| Session { expires_at: at(100), ..opened(&ada, n, 50) };
    let unused = |n| Session { created_at: at(-9), last_used_at: at(0), ..opened(&ada, n, 0) };
    let kept = [
        Session { expires_at: at(100).plus(Duration::from_micros(1)), ..opened(&ada, 5, 50) },
        Session {
            created_at: at(-9),
            last_used_at: at(0).plus(Duration::from_micros(1)),
            ..opened(&ada, 6, 0)
        },
    ];
    insert(&fixture, &[&[expired(1), expired(2), unused(3)][..], &kept].concat()).await;
    let mut deleted = Vec::new();
    for _ in 0..3 {
        let mut tx = fixture.begin().await;
        deleted.push(storage::sessions::delete_expired(&mut tx, OPEN, 2).await.unwrap());
        tx.commit().await.unwrap();
    }
    assert_eq!(deleted, [2, 1, 0]);
    assert_eq!(fixture.outside().await.count("sessions").await, 2);

    let forgotten = outcome(&ada).expires_at;
    for (now, expected) in [(forgotten.minus(Duration::from_micros(1)), 0), (forgotten, 1), (forgotten, 0)] {
        let mut tx = fixture.begin().await;
        assert_eq!(storage::outcomes::delete_expired(&mut tx, now, 2).await.unwrap(), expected);
        tx.commit().await.unwrap();
    }
}

async fn a_service_token_reads_back_and_is_revoked_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let named = |n: u8, allowed, expires_at| ServiceToken {
        id: ServiceTokenId::from(Uuid::from_bytes([n; 16])),
        name: ServiceName::parse("billing").unwrap(),
        secret_digest: [n; 32],
        allowed,
        created_at: at(1),
        expires_at,
        revoked_at: None,
    };
    let some = AllowedRpcs::Only(vec!["a.B/C".to_owned(), "a.B/D".to_owned()]);
    let tokens = [named(1, AllowedRpcs::All, None), named(2, some, Some(at(9)))];
    let mut tx = fixture.begin().await;
    for token in &tokens {
        storage::service_tokens::insert(&mut tx, token).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::service_tokens::list(&mut conn).await.unwrap(), tokens);
    assert_eq!(
        storage::service_tokens::find(&mut conn, tokens[1].id).await.unwrap().as_ref(),
        Some(&tokens[1])
    );
    drop(conn);
    for (second, expected) in [(5, true), (6, false)] {
        let mut tx = fixture.begin().await;
        let revoked = storage::service_tokens::update_revoked(&mut tx, tokens[0].id, at(second)).await;
        assert_eq!(revoked.unwrap(), expected);
        tx.commit().await.unwrap();
    }
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::service_tokens::find(&mut conn, tokens[0].id).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, Some(at(5)));
    let unknown = ServiceTokenId::from(Uuid::from_bytes([9; 16]));
    assert_eq!(storage::service_tokens::find(&mut conn, unknown).await.unwrap(), None);
}
