//! Users and tenants: found, locked, changed and deleted.

use identity::domain::{
    Email, ExternalId, PersonName, Profile, Role, Tenant, TenantName, User, UserId, UserState,
};
use identity::storage::sessions::SessionStanding;
use identity::storage::tenants::TenantLock;
use identity::storage::{self, Inserted};
use uuid::Uuid;

use crate::fixture::{Fixture, at, is_done_at_once, password, session, user, with_email};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    a_user_is_locked_as_he_is_and_written_as_he_is_to_be,
    another_active_owner_is_found_and_nobody_else,
    users_are_deleted_with_all_that_is_theirs,
    how_a_session_stands_is_found_for_its_user_only,
    a_user_is_found_by_any_spelling_of_the_email,
    a_login_name_is_taken_away_and_given_anew,
    a_password_is_replaced_whether_or_not_there_was_one,
    a_tenant_is_locked_and_written_as_it_is_to_be,
    an_external_id_is_of_one_user_of_a_tenant,
);

/// The `n`th colleague of `owner`, a member who was created at `second`.
pub(crate) fn colleague(owner: &User, n: u8, second: i64) -> User {
    let colleague = User {
        id: UserId::from(Uuid::from_bytes([n; 16])),
        role: Role::Member,
        created_at: at(second),
        updated_at: at(second),
        ..owner.clone()
    };
    with_email(colleague, Email::parse(&format!("Colleague{n}@Example.com")).unwrap())
}

/// Adds users to a tenant that is there, with their login names and passwords.
pub(crate) async fn add(fixture: &Fixture, users: &[&User]) {
    let mut tx = fixture.begin().await;
    for user in users {
        assert_eq!(storage::users::insert(&mut tx, user).await.unwrap(), Inserted::Yes);
        let named = storage::logins::insert_name(&mut tx, &user.profile.email, user.tenant.id, user.id).await;
        assert_eq!(named.unwrap(), Inserted::Yes);
        storage::logins::insert_password(&mut tx, user.tenant.id, user.id, &password(), at(5)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn a_user_is_locked_as_he_is_and_written_as_he_is_to_be(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let mut tx = fixture.begin().await;
    assert_eq!(storage::users::find_locked(&mut tx, ada.tenant.id, ada.id).await.unwrap(), Some(ada.clone()));
    assert_eq!(storage::users::find_locked(&mut tx, ada.tenant.id, eve.id).await.unwrap(), None);
    assert_eq!(storage::users::find_locked(&mut tx, eve.tenant.id, ada.id).await.unwrap(), None);
    let changed = User {
        profile: Profile {
            email: Email::parse("New@Example.com").unwrap(),
            first_name: PersonName::parse("Grace").unwrap(),
            last_name: PersonName::parse("Hopper").unwrap(),
            external_id: Some(ExternalId::parse("HR/7").unwrap()),
        },
        role: Role::Member,
        state: UserState::Disabled,
        version: 7,
        updated_at: at(99),
        ..ada.clone()
    };
    // What never changes is not written.
    let written = User { created_at: at(98), ..changed.clone() };
    assert_eq!(storage::users::update(&mut tx, &written).await.unwrap(), Inserted::Yes);
    assert_eq!(
        storage::users::find_locked(&mut tx, ada.tenant.id, ada.id).await.unwrap(),
        Some(changed.clone())
    );
    // Whoever else wants to lock him waits until it is decided.
    let mut found = None;
    let mut waiting: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
        let mut tx = fixture.begin().await;
        found = storage::users::find_locked(&mut tx, ada.tenant.id, ada.id).await.unwrap();
    });
    assert!(!is_done_at_once(&mut waiting).await);
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::users::find(&mut conn, ada.tenant.id, ada.id).await.unwrap(), Some(changed.clone()));
    assert_eq!(storage::users::find(&mut conn, eve.tenant.id, eve.id).await.unwrap(), Some(eve));
    drop(conn);
    waiting.await;
    assert_eq!(found, Some(changed));
}

async fn another_active_owner_is_found_and_nobody_else(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let second = colleague(&ada, 9, 3);
    add(&fixture, &[&second]).await;
    for (role, state, is_found) in [
        (Role::Member, UserState::Active, false),
        (Role::Admin, UserState::Active, false),
        (Role::Owner, UserState::Disabled, false),
        (Role::Owner, UserState::Active, true),
    ] {
        let mut tx = fixture.begin().await;
        assert_eq!(
            storage::users::update(&mut tx, &User { role, state, ..second.clone() }).await.unwrap(),
            Inserted::Yes
        );
        let found = storage::users::find_other_owner(&mut tx, ada.tenant.id, ada.id).await.unwrap();
        assert_eq!(found, is_found, "{role:?} {state:?}");
        // Besides that one there is the first.
        assert!(storage::users::find_other_owner(&mut tx, ada.tenant.id, second.id).await.unwrap());
        assert!(!storage::users::find_other_owner(&mut tx, eve.tenant.id, eve.id).await.unwrap());
        tx.commit().await.unwrap();
    }
}

async fn users_are_deleted_with_all_that_is_theirs(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let (second, third) = (colleague(&ada, 8, 3), colleague(&ada, 9, 3));
    add(&fixture, &[&second, &third]).await;
    let mut tx = fixture.begin().await;
    // Those of another tenant, and those that are not there, do not count.
    let ids = [ada.id, second.id, eve.id, UserId::from(Uuid::nil())];
    assert_eq!(storage::users::delete(&mut tx, ada.tenant.id, &ids).await.unwrap(), 2);
    assert_eq!(storage::users::delete(&mut tx, ada.tenant.id, &ids).await.unwrap(), 0);
    assert_eq!(storage::users::delete(&mut tx, ada.tenant.id, &[]).await.unwrap(), 0);
    tx.commit().await.unwrap();
    let mut outside = fixture.outside().await;
    for (table, left) in [
        ("tenants", 2),
        ("users", 2),
        ("login_names", 2),
        ("passwords", 2),
        ("sessions", 1),
        ("request_outcomes", 1),
    ] {
        assert_eq!(outside.count(table).await, left, "{table}");
    }
    assert!(!fixture.can_log_in(&ada).await && !fixture.can_log_in(&second).await);
    assert!(fixture.can_log_in(&third).await && fixture.can_log_in(&eve).await);
    add(&fixture, &[&second]).await;
}

async fn how_a_session_stands_is_found_for_its_user_only(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let opened = session(&ada);
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::sessions::find_standing(&mut conn, ada.tenant.id, opened.id, ada.id).await.unwrap();
    let expected = SessionStanding {
        role: Role::Owner,
        state: UserState::Active,
        last_used_at: opened.last_used_at,
        expires_at: opened.expires_at,
        revoked_at: None,
    };
    assert_eq!(found, Some(expected));
    for (tenant_id, session_id, user_id) in [
        (eve.tenant.id, opened.id, ada.id),
        (ada.tenant.id, session(&eve).id, ada.id),
        (ada.tenant.id, opened.id, eve.id),
    ] {
        let found = storage::sessions::find_standing(&mut conn, tenant_id, session_id, user_id).await;
        assert_eq!(found.unwrap(), None);
    }
    drop(conn);
    let mut tx = fixture.begin().await;
    let changed = User { role: Role::Member, state: UserState::Disabled, ..ada.clone() };
    assert_eq!(storage::users::update(&mut tx, &changed).await.unwrap(), Inserted::Yes);
    storage::sessions::update_revoked(&mut tx, ada.tenant.id, opened.id, at(9)).await.unwrap();
    let found = storage::sessions::find_standing(&mut tx, ada.tenant.id, opened.id, ada.id).await.unwrap();
    let expected = SessionStanding {
        role: Role::Member,
        state: UserState::Disabled,
        revoked_at: Some(at(9)),
        ..expected
    };
    assert_eq!(found, Some(expected));
}

async fn a_user_is_found_by_any_spelling_of_the_email(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let zoe = with_email(user(1), Email::parse("Zo\u{eb}@B\u{fc}cher.example").unwrap());
    fixture.register(&zoe).await;
    fixture.register(&user(2)).await;
    let mut conn = fixture.storage.read().await.unwrap();
    for (email, is_his) in [
        ("zoe\u{308}@XN--BCHER-KVA.example", true),
        ("zoe@b\u{fc}cher.example", false),
        ("%@b\u{fc}cher.example", false),
    ] {
        let email = Email::parse(email).unwrap();
        let found = storage::users::find_by_email(&mut conn, &email).await.unwrap();
        assert_eq!(found, is_his.then(|| zoe.clone()), "{}", email.as_given());
    }
}

async fn a_login_name_is_taken_away_and_given_anew(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let mut tx = fixture.begin().await;
    storage::logins::delete_name(&mut tx, ada.tenant.id, ada.id).await.unwrap();
    // Nobody has it, and to take it away again changes nothing.
    storage::logins::delete_name(&mut tx, ada.tenant.id, ada.id).await.unwrap();
    storage::logins::delete_name(&mut tx, ada.tenant.id, eve.id).await.unwrap();
    assert_eq!(storage::users::find_by_email(&mut tx, &ada.profile.email).await.unwrap(), None);
    let named =
        storage::logins::insert_name(&mut tx, &eve.profile.email, ada.tenant.id, ada.id).await.unwrap();
    assert_eq!(named, Inserted::Taken);
    let new = Email::parse("new@example.com").unwrap();
    let named = storage::logins::insert_name(&mut tx, &new, ada.tenant.id, ada.id).await.unwrap();
    assert_eq!(named, Inserted::Yes);
    assert_eq!(storage::users::find_by_email(&mut tx, &new).await.unwrap().map(|user| user.id), Some(ada.id));
    tx.commit().await.unwrap();
    assert!(!fixture.can_log_in(&ada).await && fixture.can_log_in(&eve).await);
    add(&fixture, &[&with_email(colleague(&eve, 9, 3), ada.profile.email.clone())]).await;
}

async fn a_password_is_replaced_whether_or_not_there_was_one(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let new = identity::domain::PasswordHash { text: "$2b$04$new".to_owned(), ..password() };
    for is_missing in [false, true] {
        if is_missing {
            fixture.outside().await.run("DELETE FROM passwords").await;
        }
        let mut tx = fixture.begin().await;
        storage::logins::replace_password(&mut tx, ada.tenant.id, ada.id, &new, at(9)).await.unwrap();
        tx.commit().await.unwrap();
        let mut conn = fixture.storage.read().await.unwrap();
        let login = storage::logins::find_by_user(&mut conn, ada.tenant.id, ada.id).await.unwrap().unwrap();
        assert_eq!((login.password, login.password_changed_at), (new.clone(), at(9)));
        let other = storage::logins::find_by_user(&mut conn, eve.tenant.id, eve.id).await.unwrap();
        assert_eq!(other.map(|login| login.password), (!is_missing).then(password));
    }
    let mut tx = fixture.begin().await;
    let nobody = UserId::from(Uuid::nil());
    let replaced = storage::logins::replace_password(&mut tx, ada.tenant.id, nobody, &new, at(9)).await;
    let refused = replaced.and(tx.flush().await);
    assert!(matches!(refused, Err(storage::StorageError::Refused(_))), "{refused:?}");
}

async fn a_tenant_is_locked_and_written_as_it_is_to_be(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    for lock in [TenantLock::Keep, TenantLock::Change, TenantLock::Delete] {
        let mut tx = fixture.begin().await;
        let found = storage::tenants::find_locked(&mut tx, ada.tenant.id, lock).await.unwrap();
        assert_eq!(found.as_ref(), Some(&ada.tenant), "{lock:?}");
        let absent = storage::tenants::find_locked(&mut tx, user(3).tenant.id, lock).await.unwrap();
        assert_eq!(absent, None, "{lock:?}");
    }
    let changed = Tenant {
        name: TenantName::parse("New").unwrap(),
        version: 2,
        updated_at: at(50),
        ..ada.tenant.clone()
    };
    let mut tx = fixture.begin().await;
    storage::tenants::update(&mut tx, &Tenant { created_at: at(49), ..changed.clone() }).await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::tenants::find(&mut conn, ada.tenant.id).await.unwrap(), Some(changed));
    assert_eq!(storage::tenants::find(&mut conn, eve.tenant.id).await.unwrap(), Some(eve.tenant));
    assert_eq!(storage::tenants::find(&mut conn, user(3).tenant.id).await.unwrap(), None);
}

async fn an_external_id_is_of_one_user_of_a_tenant(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let with_external_id = |user: User, id: &str| {
        let external_id = Some(ExternalId::parse(id).unwrap());
        User { profile: Profile { external_id, ..user.profile }, ..user }
    };
    let ada = with_external_id(user(1), "7");
    fixture.register(&ada).await;
    fixture.register(&with_external_id(user(2), "7")).await;
    let other = colleague(&user(1), 9, 3);
    add(&fixture, &[&other]).await;

    let mut tx = fixture.begin().await;
    let taken = storage::users::insert(&mut tx, &with_external_id(colleague(&ada, 8, 3), "7")).await.unwrap();
    assert_eq!(taken, Inserted::Taken);
    drop(tx);
    for (id, expected) in [("7", Inserted::Taken), ("8", Inserted::Yes), ("8", Inserted::Yes)] {
        let changed = with_external_id(other.clone(), id);
        let mut tx = fixture.begin().await;
        assert_eq!(storage::users::update(&mut tx, &changed).await.unwrap(), expected, "{id}");
        if expected == Inserted::Yes {
            tx.commit().await.unwrap();
            let mut conn = fixture.storage.read().await.unwrap();
            let found = storage::users::find(&mut conn, other.tenant.id, other.id).await.unwrap();
            assert_eq!(found, Some(changed));
        }
    }
    let mut tx = fixture.begin().await;
    assert_eq!(storage::users::update(&mut tx, &other).await.unwrap(), Inserted::Yes);
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::users::find(&mut conn, other.tenant.id, other.id).await.unwrap(), Some(other));
}
