//! Deleted tenants: nobody sees anything of them, what they had is free, and their rows are removed a few at a
//! time.

use identity::domain::{Email, Session, SessionId, Tenant, TenantId, User, UserId};
use identity::service::removal::remove_now;
use identity::storage::audit::{self, EventFilter};
use identity::storage::bulk::{self, Keys};
use identity::storage::outcomes::Outcome;
use identity::storage::removal::{self, Removed};
use identity::storage::{self, Inserted, StorageError, snapshot};
use uuid::Uuid;

use crate::directory::{add, colleague};
use crate::fixture::{Fixture, at, insert_tenant, outcome, password, session, user, with_email};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    no_query_sees_anything_of_a_deleted_tenant,
    what_a_deleted_tenant_had_is_free_at_once,
    a_tenant_that_is_there_keeps_what_it_has,
    the_rows_of_a_deleted_tenant_are_removed_a_few_at_a_time,
    a_user_with_many_sessions_is_removed_in_pieces,
    the_tenant_that_was_deleted_first_is_removed_first,
    the_id_of_a_deleted_tenant_is_in_the_way_until_its_rows_are_removed,
);

const TABLES: [&str; 6] = ["tenants", "users", "login_names", "passwords", "sessions", "request_outcomes"];

async fn delete(fixture: &Fixture, tenant_id: TenantId, second: i64) {
    let mut tx = fixture.begin().await;
    assert!(storage::tenants::delete(&mut tx, tenant_id, at(second)).await.unwrap());
    // It is gone, so it cannot be deleted again.
    assert!(!storage::tenants::delete(&mut tx, tenant_id, at(second)).await.unwrap());
    tx.commit().await.unwrap();
}

async fn counts(fixture: &Fixture) -> [usize; 6] {
    let mut outside = fixture.outside().await;
    let mut counts = [0; 6];
    for (count, table) in counts.iter_mut().zip(TABLES) {
        *count = outside.count(table).await;
    }
    counts
}

async fn no_query_sees_anything_of_a_deleted_tenant(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (goes, stays) = (user(1), user(2));
    fixture.register(&goes).await;
    fixture.register(&stays).await;
    fixture.outside().await.run("UPDATE users SET external_id = 'x'").await;
    delete(&fixture, goes.tenant.id, 9).await;
    assert_eq!(counts(&fixture).await, [2; 6]);

    let (tenant_id, id) = (goes.tenant.id, goes.id);
    let session_id = session(&goes).id;
    let mut tx = fixture.begin().await;
    let tx = &mut tx;
    assert_eq!(storage::tenants::find(tx, tenant_id).await.unwrap(), None);
    for lock in [
        storage::tenants::TenantLock::Keep,
        storage::tenants::TenantLock::Change,
        storage::tenants::TenantLock::Delete,
    ] {
        assert_eq!(storage::tenants::find_locked(tx, tenant_id, lock).await.unwrap(), None);
    }
    assert_eq!(storage::tenants::list(tx, None, 9).await.unwrap(), std::slice::from_ref(&stays.tenant));
    assert_eq!(storage::tenants::count(tx, 9).await.unwrap(), 1);
    assert_eq!(storage::users::find(tx, tenant_id, id).await.unwrap(), None);
    assert_eq!(storage::users::find_locked(tx, tenant_id, id).await.unwrap(), None);
    assert_eq!(storage::users::find_by_email(tx, &goes.profile.email).await.unwrap(), None);
    assert_eq!(storage::users::list_by_id(tx, id).await.unwrap(), []);
    assert_eq!(storage::sessions::find_standing(tx, tenant_id, session_id, id).await.unwrap(), None);
    let found = storage::users::find_with_session(tx, tenant_id, session_id, id, id).await.unwrap();
    assert!(found.is_none());
    assert_eq!(storage::sessions::find_with_user(tx, tenant_id, session_id).await.unwrap(), None);
    assert!(storage::logins::find_by_email(tx, &goes.profile.email).await.unwrap().is_none());
    assert!(storage::logins::find_by_user(tx, tenant_id, id).await.unwrap().is_none());
    for within in [None, Some(tenant_id)] {
        assert_eq!(storage::user_lists::list_by_ids(tx, within, &[id]).await.unwrap(), []);
    }
    let keys = Keys {
        tenants: vec![tenant_id, stays.tenant.id],
        users: vec![id, stays.id],
        external_ids: [&goes, &stays].map(|user| (user.tenant.id, "x".to_owned())).into(),
        emails: [&goes, &stays].map(|user| user.profile.email.as_normalized().to_owned()).into(),
    };
    let known = bulk::find_known(tx, keys).await.unwrap();
    assert_eq!(known.tenants.into_keys().collect::<Vec<_>>(), [stays.tenant.id]);
    assert_eq!(known.users.into_keys().collect::<Vec<_>>(), [stays.id]);
    assert_eq!(known.emails.into_iter().collect::<Vec<_>>(), [stays.profile.email.as_normalized()]);
    assert_eq!(known.external_ids.into_iter().collect::<Vec<_>>(), [(stays.tenant.id, "x".to_owned())]);
    let tenants = snapshot::list_tenants(tx, None, 9).await.unwrap();
    assert_eq!(tenants.iter().map(|tenant| TenantId::from(tenant.id)).collect::<Vec<_>>(), [stays.tenant.id]);
    let users = snapshot::list_users(tx, None, 9).await.unwrap();
    assert_eq!(users.iter().map(|user| user.key().1).collect::<Vec<_>>(), [stays.id]);
    assert!(users[0].password.is_some());
}

async fn what_a_deleted_tenant_had_is_free_at_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let goes = user(1);
    fixture.register(&goes).await;
    let second = colleague(&goes, 9, 3);
    add(&fixture, &[&second]).await;
    delete(&fixture, goes.tenant.id, 9).await;

    // Another tenant takes the e-mails over, one of them for a user of the same id, and the request id.
    let heir = with_email(user(2), goes.profile.email.clone());
    let namesake = with_email(User { id: second.id, ..colleague(&heir, 9, 3) }, second.profile.email.clone());
    let mut tx = fixture.begin().await;
    storage::tenants::insert(&mut tx, &heir.tenant).await.unwrap();
    for user in [&heir, &namesake] {
        assert_eq!(storage::users::insert(&mut tx, user).await.unwrap(), Inserted::Yes);
        let (tenant_id, id) = (user.tenant.id, user.id);
        let named = storage::logins::insert_name(&mut tx, &user.profile.email, tenant_id, id).await.unwrap();
        assert_eq!(named, Inserted::Yes);
        storage::logins::insert_password(&mut tx, tenant_id, id, &password(), at(5)).await.unwrap();
    }
    let again = Outcome { request_id: outcome(&goes).request_id, ..outcome(&heir) };
    assert_eq!(storage::outcomes::insert(&mut tx, &again).await.unwrap(), Inserted::Yes);
    tx.commit().await.unwrap();
    assert_belongs_to(&fixture, &goes.profile.email, &heir).await;

    // What is removed afterwards takes nothing of it along.
    remove_now(&fixture.storage, &Still, goes.tenant.id).await.unwrap();
    assert_belongs_to(&fixture, &goes.profile.email, &heir).await;
    assert_belongs_to(&fixture, &second.profile.email, &namesake).await;
    assert_eq!(counts(&fixture).await, [1, 2, 2, 2, 0, 1]);
    let mut tx = fixture.begin().await;
    assert_eq!(storage::outcomes::find(&mut tx, again.request_id).await.unwrap(), Some(again));
}

async fn assert_belongs_to(fixture: &Fixture, email: &Email, user: &User) {
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::logins::find_by_email(&mut conn, email).await.unwrap().unwrap();
    assert_eq!(&found.user, user);
}

async fn a_tenant_that_is_there_keeps_what_it_has(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (stays, other) = (user(1), user(2));
    fixture.register(&stays).await;
    fixture.register(&other).await;
    let deleted = user(3);
    fixture.register(&deleted).await;
    delete(&fixture, deleted.tenant.id, 9).await;
    let mut tx = fixture.begin().await;
    storage::logins::delete_name(&mut tx, other.tenant.id, other.id).await.unwrap();
    let named =
        storage::logins::insert_name(&mut tx, &stays.profile.email, other.tenant.id, other.id).await.unwrap();
    assert_eq!(named, Inserted::Taken);
    let again = Outcome { request_id: outcome(&stays).request_id, ..outcome(&other) };
    assert_eq!(storage::outcomes::insert(&mut tx, &again).await.unwrap(), Inserted::Taken);
    let keys = Keys {
        tenants: vec![stays.tenant.id],
        users: vec![stays.id],
        external_ids: Vec::new(),
        emails: vec![stays.profile.email.as_normalized().to_owned()],
    };
    assert_eq!(bulk::make_room(&mut tx, keys).await.unwrap(), []);
    tx.commit().await.unwrap();
    assert!(fixture.can_log_in(&stays).await);
    assert!(!removal::find_locked(&mut fixture.begin().await, stays.tenant.id).await.unwrap());
}

async fn the_rows_of_a_deleted_tenant_are_removed_a_few_at_a_time(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (goes, stays) = (user(1), user(2));
    fixture.register(&goes).await;
    fixture.register(&stays).await;
    // Among them one with the least id there is.
    let mut users: Vec<_> = (10..15).map(|n| colleague(&goes, n, 3)).collect();
    users[0].id = UserId::from(Uuid::nil());
    add(&fixture, &users.iter().collect::<Vec<_>>()).await;
    let tenant_id = goes.tenant.id;
    let mut tx = fixture.begin().await;
    assert_eq!(removal::find_first_deleted(&mut tx).await.unwrap(), None);
    assert_eq!(removal::find_due_locked(&mut tx, at(99)).await.unwrap(), None);
    drop(tx);
    delete(&fixture, tenant_id, 9).await;

    let mut ids: Vec<_> = users.iter().chain([&goes]).map(|user| user.id).collect();
    ids.sort_unstable();
    let mut after = None;
    for two in ids.chunks(2) {
        let mut tx = fixture.begin().await;
        assert_eq!(removal::find_first_deleted(&mut tx).await.unwrap(), Some(at(9)));
        assert_eq!(removal::find_due_locked(&mut tx, at(8)).await.unwrap(), None);
        assert_eq!(removal::find_due_locked(&mut tx, at(9)).await.unwrap(), Some(tenant_id));
        let removed = removal::delete(&mut tx, tenant_id, after, 2).await.unwrap();
        assert_eq!(removed, Removed::Some(Some(two[1])));
        tx.commit().await.unwrap();
        after = Some(two[1]);
    }
    let mut tx = fixture.begin().await;
    assert_eq!(removal::delete(&mut tx, tenant_id, after, 2).await.unwrap(), Removed::Some(None));
    let removed = removal::delete(&mut tx, tenant_id, None, 2).await.unwrap();
    assert_eq!(removed, Removed::All { users: 6 });
    tx.commit().await.unwrap();
    assert_eq!(counts(&fixture).await, [1; 6]);
    assert!(fixture.can_log_in(&stays).await);
    // The ids are free as well.
    fixture.register(&goes).await;
    assert!(fixture.can_log_in(&goes).await);
}

async fn a_user_with_many_sessions_is_removed_in_pieces(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let goes = user(1);
    fixture.register(&goes).await;
    let mut tx = fixture.begin().await;
    for n in 0_u64..1_500 {
        let id = SessionId::from(Uuid::from_u64_pair(7, n));
        storage::sessions::insert(&mut tx, &Session { id, ..session(&goes) }).await.unwrap();
    }
    tx.commit().await.unwrap();
    delete(&fixture, goes.tenant.id, 9).await;
    let mut tx = fixture.begin().await;
    let removed = removal::delete(&mut tx, goes.tenant.id, None, 9).await.unwrap();
    assert_eq!(removed, Removed::Some(None));
    tx.commit().await.unwrap();
    assert_eq!(counts(&fixture).await, [1, 1, 1, 1, 501, 1]);
    remove_now(&fixture.storage, &Still, goes.tenant.id).await.unwrap();
    assert_eq!(counts(&fixture).await, [0; 6]);
}

async fn the_tenant_that_was_deleted_first_is_removed_first(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for n in 1..=3 {
        fixture.register(&user(n)).await;
    }
    delete(&fixture, user(2).tenant.id, 7).await;
    delete(&fixture, user(1).tenant.id, 8).await;
    let mut first = fixture.begin().await;
    assert_eq!(removal::find_first_deleted(&mut first).await.unwrap(), Some(at(7)));
    assert_eq!(removal::find_due_locked(&mut first, at(9)).await.unwrap(), Some(user(2).tenant.id));
    if engine == Engine::Postgres {
        // Another process takes the next one meanwhile.
        let mut second = fixture.begin().await;
        assert_eq!(removal::find_due_locked(&mut second, at(9)).await.unwrap(), Some(user(1).tenant.id));
        let mut third = fixture.begin().await;
        assert_eq!(removal::find_due_locked(&mut third, at(9)).await.unwrap(), None);
    }
    drop(first);
    for n in [2, 1] {
        remove_now(&fixture.storage, &Still, user(n).tenant.id).await.unwrap();
    }
    // Of one that is not deleted, nothing is removed.
    remove_now(&fixture.storage, &Still, user(3).tenant.id).await.unwrap();
    assert_eq!(counts(&fixture).await, [1; 6]);
    // Of each that was, one event tells.
    for n in 1..=3 {
        let filter = EventFilter { tenant_id: Some(user(n).tenant.id), ..EventFilter::default() };
        let mut conn = fixture.storage.read().await.unwrap();
        let told = audit::list(&mut conn, &filter, None, 9, 9).await.unwrap().events;
        let told: Vec<_> =
            told.iter().map(|event| (event.action.clone(), event.changes[0].after.clone())).collect();
        let erased = ("tenant.erased".to_owned(), Some("1".to_owned()));
        assert_eq!(told, if n == 3 { vec![] } else { vec![erased] });
    }
}

async fn the_id_of_a_deleted_tenant_is_in_the_way_until_its_rows_are_removed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let goes = user(1);
    fixture.register(&goes).await;
    delete(&fixture, goes.tenant.id, 9).await;
    let keys = Keys {
        tenants: vec![goes.tenant.id],
        users: vec![goes.id],
        external_ids: Vec::new(),
        emails: vec![goes.profile.email.as_normalized().to_owned()],
    };
    let mut tx = fixture.begin().await;
    assert_eq!(bulk::make_room(&mut tx, keys.clone()).await.unwrap(), [goes.tenant.id]);
    tx.commit().await.unwrap();
    // The e-mail is free already.
    assert_eq!(counts(&fixture).await, [1, 1, 0, 1, 1, 1]);
    let mut tx = fixture.begin().await;
    let again = Tenant { created_at: at(2), updated_at: at(2), ..goes.tenant.clone() };
    let refused = insert_tenant(&mut tx, &again).await;
    assert!(matches!(refused, Err(StorageError::Refused(_))), "{refused:?}");
    drop(tx);
    remove_now(&fixture.storage, &Still, goes.tenant.id).await.unwrap();
    let mut tx = fixture.begin().await;
    assert_eq!(bulk::make_room(&mut tx, keys).await.unwrap(), []);
    storage::tenants::insert(&mut tx, &again).await.unwrap();
    tx.commit().await.unwrap();
}

/// A clock that stands still.
struct Still;

impl identity::domain::Clock for Still {
    fn now(&self) -> identity::domain::Timestamp {
        at(100)
    }
}
