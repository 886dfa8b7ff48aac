//! Rows: what is written reads back equal, once, and goes when it should.

use identity::domain::{
    Email, ExternalId, PasswordHash, PasswordScheme, PersonName, RequestId, Role, SessionId, TenantName,
    Timestamp, User, UserId, UserState,
};
use identity::storage::{self, Inserted, StorageError};

use crate::fixture::{Fixture, at, outcome, password, register, session, signing_key, user};
use crate::sql::Outside;
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    a_user_reads_back_as_written,
    the_longest_values_and_every_script_read_back,
    times_read_back_to_the_microsecond,
    a_login_reads_back_by_any_spelling_of_its_name,
    every_role_state_and_scheme_reads_back,
    a_session_and_its_user_are_found_together,
    an_ended_session_says_when_it_ended,
    an_update_changes_the_user_of_its_tenant_alone,
    a_hash_is_replaced_only_while_it_is_the_old_one,
    keys_are_listed_newest_first_changed_and_deleted,
    an_outcome_reads_back_and_gives_way_once_expired,
    what_is_absent_is_none,
    a_taken_login_name_leaves_the_transaction_usable,
    ids_are_taken_once,
    one_id_in_two_tenants_is_two_users,
    rows_that_make_no_sense_name_their_column_and_not_their_value,
);

async fn a_user_reads_back_as_written(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let written = User { version: i64::MAX, updated_at: at(77), ..user(1) };
    fixture.register(&written).await;
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::users::find(&mut conn, written.tenant.id, written.id).await.unwrap();
    assert_eq!(found, Some(written));
}

async fn the_longest_values_and_every_script_read_back(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // Four bytes a character, the most that UTF-8 needs.
    let wide = |chars: usize| "\u{1d49c}".repeat(chars);
    let domain = format!("{}.{}.{}", "d".repeat(63), "e".repeat(63), "f".repeat(61));
    let longest = Email::parse(&format!("{}@{domain}", "L".repeat(64))).unwrap();
    assert_eq!(longest.as_given().len(), Email::MAX_BYTES);
    let mut written = user(1);
    written.tenant.name = TenantName::parse(&wide(TenantName::MAX_CHARS)).unwrap();
    written.profile.first_name = PersonName::parse(&wide(PersonName::MAX_CHARS)).unwrap();
    written.profile.last_name =
        PersonName::parse("'; DROP TABLE users; -- \\ \" % _ العربية 漢字 🦀").unwrap();
    written.profile.email = longest;
    written.profile.external_id = Some(ExternalId::parse(&wide(ExternalId::MAX_CHARS)).unwrap());
    let mut other = user(2);
    other.profile.email = Email::parse("Ünï.ço∂e@BÜCHER.example").unwrap();
    let hash = PasswordHash { scheme: PasswordScheme::BcryptSha256, text: "h".repeat(256) };

    let mut tx = fixture.begin().await;
    for user in [&written, &other] {
        storage::tenants::insert(&mut tx, &user.tenant).await.unwrap();
        assert_eq!(storage::users::insert(&mut tx, user).await.unwrap(), Inserted::Yes);
        let named = storage::logins::insert_name(&mut tx, &user.profile.email, user.tenant.id, user.id).await;
        assert_eq!(named.unwrap(), Inserted::Yes);
        storage::logins::insert_password(&mut tx, user.tenant.id, user.id, &hash, at(5)).await.unwrap();
    }
    tx.commit().await.unwrap();

    let mut conn = fixture.storage.read().await.unwrap();
    for user in [written, other] {
        let login = storage::logins::find_by_email(&mut conn, &user.profile.email).await.unwrap().unwrap();
        assert_eq!((login.user, login.password), (user, hash.clone()));
    }
}

async fn times_read_back_to_the_microsecond(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // Before 1970, before 2000 (where PostgreSQL counts from), and the year 9999.
    let times = [-1, 0, 1, 946_684_799_999_999, 946_684_800_000_001, 253_402_300_799_999_999];
    for (n, micros) in (1..).zip(times) {
        let time = Timestamp::from_unix_micros(micros);
        let mut written = User { created_at: time, updated_at: time, ..user(n) };
        (written.tenant.created_at, written.tenant.updated_at) = (time, time);
        fixture.register(&written).await;
        let mut conn = fixture.storage.read().await.unwrap();
        let found = storage::users::find(&mut conn, written.tenant.id, written.id).await.unwrap();
        assert_eq!(found, Some(written), "{micros}");
    }
}

async fn a_login_reads_back_by_any_spelling_of_its_name(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let written = user(1);
    fixture.register(&written).await;
    let mut conn = fixture.storage.read().await.unwrap();
    for spelling in ["user1@example.com", "USER1@EXAMPLE.COM"] {
        let email = Email::parse(spelling).unwrap();
        let login = storage::logins::find_by_email(&mut conn, &email).await.unwrap().unwrap();
        assert_eq!((login.user, login.password), (written.clone(), password()));
        assert_eq!(login.password_changed_at, at(5));
    }
    let login = storage::logins::find_by_user(&mut conn, written.tenant.id, written.id).await.unwrap();
    let login = login.unwrap();
    assert_eq!((&login.user, &login.password), (&written, &password()));
    assert_eq!(login.password_changed_at, at(5));
    // The characters that LIKE takes for others are no wildcards here.
    for pattern in ["%@example.com", "user_@example.com"] {
        let email = Email::parse(pattern).unwrap();
        assert!(storage::logins::find_by_email(&mut conn, &email).await.unwrap().is_none(), "{pattern}");
    }
}

async fn every_role_state_and_scheme_reads_back(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let kinds = [
        (Role::Owner, UserState::Active, PasswordScheme::Bcrypt),
        (Role::Admin, UserState::Disabled, PasswordScheme::BcryptSha256),
        (Role::Member, UserState::Active, PasswordScheme::BcryptTruncated),
    ];
    for (n, (role, state, scheme)) in (1..).zip(kinds) {
        let written = User { role, state, ..user(n) };
        let hash = PasswordHash { scheme, text: "hash".to_owned() };
        let mut tx = fixture.begin().await;
        storage::tenants::insert(&mut tx, &written.tenant).await.unwrap();
        assert_eq!(storage::users::insert(&mut tx, &written).await.unwrap(), Inserted::Yes);
        storage::logins::insert_password(&mut tx, written.tenant.id, written.id, &hash, at(5)).await.unwrap();
        tx.commit().await.unwrap();
        let mut conn = fixture.storage.read().await.unwrap();
        let login = storage::logins::find_by_user(&mut conn, written.tenant.id, written.id).await.unwrap();
        let login = login.unwrap();
        assert_eq!((login.user, login.password), (written, hash));
    }
}

async fn a_session_and_its_user_are_found_together(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (caller, stranger) = (user(1), user(2));
    let mut colleague = User { id: user(3).id, role: Role::Member, ..user(3) };
    colleague.tenant = caller.tenant.clone();
    fixture.register(&caller).await;
    fixture.register(&stranger).await;
    let mut tx = fixture.begin().await;
    assert_eq!(storage::users::insert(&mut tx, &colleague).await.unwrap(), Inserted::Yes);
    tx.commit().await.unwrap();

    let mut conn = fixture.storage.read().await.unwrap();
    let tenant_id = caller.tenant.id;
    let session_id = session(&caller).id;
    for wanted in [&caller, &colleague] {
        let found =
            storage::users::find_with_session(&mut conn, tenant_id, session_id, caller.id, wanted.id).await;
        let (standing, found) = found.unwrap().unwrap();
        assert_eq!((standing.role, standing.state), (Role::Owner, UserState::Active));
        assert_eq!((standing.expires_at, standing.revoked_at), (session(&caller).expires_at, None));
        assert_eq!(found.as_ref(), Some(wanted));
    }
    // Another tenant's user is absent; so is a session that is another user's or another tenant's.
    let found =
        storage::users::find_with_session(&mut conn, tenant_id, session_id, caller.id, stranger.id).await;
    assert_eq!(found.unwrap().unwrap().1, None);
    for (tenant, session_id, user) in [
        (tenant_id, session_id, colleague.id),
        (stranger.tenant.id, session_id, caller.id),
        (tenant_id, session(&stranger).id, caller.id),
    ] {
        let found = storage::users::find_with_session(&mut conn, tenant, session_id, user, caller.id).await;
        assert_eq!(found.unwrap(), None);
    }
}

async fn an_ended_session_says_when_it_ended(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user = user(1);
    fixture.register(&user).await;
    let mut tx = fixture.begin().await;
    let session_id = session(&user).id;
    let ended = [at(10), at(20)]
        .map(|now| (now, SessionId::from(session_id.as_uuid())))
        .map(|(now, id)| (now, id, user.tenant.id));
    let mut outcomes = Vec::new();
    for (now, id, tenant_id) in ended {
        outcomes.push(storage::sessions::update_revoked(&mut tx, tenant_id, id, now).await.unwrap());
    }
    tx.commit().await.unwrap();
    assert_eq!(outcomes, [true, false], "what has ended does not end again");
    let mut conn = fixture.storage.read().await.unwrap();
    let found =
        storage::users::find_with_session(&mut conn, user.tenant.id, session_id, user.id, user.id).await;
    assert_eq!(found.unwrap().unwrap().0.revoked_at, Some(at(10)));
}

async fn an_update_changes_the_user_of_its_tenant_alone(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (user, other) = (user(1), user(2));
    fixture.register(&user).await;
    fixture.register(&other).await;
    let mut tx = fixture.begin().await;
    let disabled = User { state: UserState::Disabled, version: 2, updated_at: at(9), ..user.clone() };
    assert_eq!(storage::users::update(&mut tx, &disabled).await.unwrap(), Inserted::Yes);
    let elsewhere = User { tenant: other.tenant.clone(), ..disabled.clone() };
    assert_eq!(storage::users::update(&mut tx, &elsewhere).await.unwrap(), Inserted::Yes);
    let found = storage::users::find_locked(&mut tx, user.tenant.id, user.id).await.unwrap();
    assert_eq!(found, Some(disabled.clone()));
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    let found = storage::users::find(&mut conn, user.tenant.id, user.id).await.unwrap();
    assert_eq!(found, Some(disabled));
    let found = storage::users::find(&mut conn, other.tenant.id, other.id).await.unwrap();
    assert_eq!(found, Some(other));
}

async fn a_hash_is_replaced_only_while_it_is_the_old_one(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user = user(1);
    fixture.register(&user).await;
    let new = PasswordHash { scheme: PasswordScheme::BcryptSha256, text: "new".to_owned() };
    let same_text = PasswordHash { scheme: PasswordScheme::BcryptTruncated, ..password() };
    let mut tx = fixture.begin().await;
    for (old, replaced) in [(same_text, false), (password(), true), (password(), false)] {
        let update = storage::logins::update_hash(&mut tx, user.tenant.id, user.id, &old, &new).await;
        assert_eq!(update.unwrap(), replaced, "{old:?}");
    }
    let changed_at = storage::logins::find_password_changed_at(&mut tx, user.tenant.id, user.id).await;
    assert_eq!(changed_at.unwrap(), Some(at(5)), "the password is the same");
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    let login = storage::logins::find_by_email(&mut conn, &user.profile.email).await.unwrap().unwrap();
    assert_eq!(login.password, new);
}

async fn keys_are_listed_newest_first_changed_and_deleted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let longest = storage::signing_keys::StoredSigningKey {
        algorithm: "RS256".to_owned(),
        public_key: vec![0; 4_096],
        sealed_private_key: vec![255; 8_192],
        signs_from: at(2),
        published_until: Some(at(50)),
        ..signing_key(&"k".repeat(128))
    };
    let mut written = [signing_key("b"), longest, signing_key("a"), signing_key("gone")];
    let mut tx = fixture.begin().await;
    storage::signing_keys::lock(&mut tx).await.unwrap();
    for key in &written {
        storage::signing_keys::insert(&mut tx, key).await.unwrap();
    }
    let [b, longest, a, gone] = written.clone();
    assert_eq!(storage::signing_keys::list(&mut tx).await.unwrap(), [longest, a, b, gone]);

    storage::signing_keys::delete(&mut tx, "gone").await.unwrap();
    storage::signing_keys::delete(&mut tx, "never there").await.unwrap();
    let [b, longest, _, gone] = &mut written;
    (b.signs_from, b.published_until) = (at(3), Some(at(4)));
    b.sealed_private_key = vec![1; 32];
    longest.published_until = None;
    for key in [&*b, longest, gone] {
        storage::signing_keys::update(&mut tx, key).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    let [b, longest, a, _] = written;
    assert_eq!(storage::signing_keys::list(&mut conn).await.unwrap(), [b, longest, a]);
}

async fn an_outcome_reads_back_and_gives_way_once_expired(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (first, second) = (user(1), user(2));
    fixture.register(&first).await;
    let mut tx = fixture.begin().await;
    let known = outcome(&first);
    assert_eq!(storage::outcomes::find(&mut tx, known.request_id).await.unwrap(), Some(known.clone()));
    storage::tenants::insert(&mut tx, &second.tenant).await.unwrap();
    assert_eq!(storage::users::insert(&mut tx, &second).await.unwrap(), Inserted::Yes);
    let end = known.expires_at;
    let later = storage::outcomes::Outcome {
        fingerprint: [1; 32],
        created_at: end.minus(std::time::Duration::from_micros(1)),
        expires_at: end.plus(std::time::Duration::from_secs(1)),
        request_id: known.request_id,
        ..outcome(&second)
    };
    assert_eq!(storage::outcomes::insert(&mut tx, &later).await.unwrap(), Inserted::Taken);
    assert_eq!(storage::outcomes::find(&mut tx, known.request_id).await.unwrap(), Some(known));
    let later = storage::outcomes::Outcome { created_at: end, ..later };
    assert_eq!(storage::outcomes::insert(&mut tx, &later).await.unwrap(), Inserted::Yes);
    assert_eq!(storage::outcomes::find(&mut tx, later.request_id).await.unwrap(), Some(later));
    tx.commit().await.unwrap();
}

async fn what_is_absent_is_none(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let absent = user(1);
    let (tenant_id, user_id) = (absent.tenant.id, absent.id);
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::users::find(&mut conn, tenant_id, user_id).await.unwrap(), None);
    assert!(storage::logins::find_by_email(&mut conn, &absent.profile.email).await.unwrap().is_none());
    assert!(storage::logins::find_by_user(&mut conn, tenant_id, user_id).await.unwrap().is_none());
    assert_eq!(storage::signing_keys::list(&mut conn).await.unwrap(), []);
    let mut tx = fixture.begin().await;
    assert_eq!(storage::users::find_locked(&mut tx, tenant_id, user_id).await.unwrap(), None);
    assert_eq!(storage::logins::find_locked(&mut tx, &absent.tenant, user_id).await.unwrap(), None);
    let changed_at = storage::logins::find_password_changed_at(&mut tx, tenant_id, user_id).await;
    assert_eq!(changed_at.unwrap(), None);
    let request_id = RequestId::from(user_id.as_uuid());
    assert_eq!(storage::outcomes::find(&mut tx, request_id).await.unwrap(), None);
    assert!(!storage::tenants::delete(&mut tx, tenant_id, at(9)).await.unwrap());
    let ended = storage::sessions::update_revoked(&mut tx, tenant_id, session(&absent).id, at(0)).await;
    assert!(!ended.unwrap());
    let replaced = storage::logins::update_hash(&mut tx, tenant_id, user_id, &password(), &password()).await;
    assert!(!replaced.unwrap());
}

async fn a_taken_login_name_leaves_the_transaction_usable(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (first, second) = (user(1), user(2));
    fixture.register(&first).await;
    let mut tx = fixture.begin().await;
    storage::tenants::insert(&mut tx, &second.tenant).await.unwrap();
    assert_eq!(storage::users::insert(&mut tx, &second).await.unwrap(), Inserted::Yes);
    let (tenant_id, id) = (second.tenant.id, second.id);
    let other_spelling = Email::parse("uSER1@example.COM").unwrap();
    let named = storage::logins::insert_name(&mut tx, &other_spelling, tenant_id, id).await;
    assert_eq!(named.unwrap(), Inserted::Taken);
    let named = storage::logins::insert_name(&mut tx, &second.profile.email, tenant_id, id).await;
    assert_eq!(named.unwrap(), Inserted::Yes);
    storage::logins::insert_password(&mut tx, tenant_id, id, &password(), at(5)).await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    for user in [first, second] {
        let login = storage::logins::find_by_email(&mut conn, &user.profile.email).await.unwrap().unwrap();
        assert_eq!(login.user, user);
    }
}

async fn ids_are_taken_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let taken = user(1);
    fixture.register(&taken).await;
    let mut tx = fixture.begin().await;
    storage::signing_keys::insert(&mut tx, &signing_key("kid")).await.unwrap();
    tx.commit().await.unwrap();

    let (tenant_id, id) = (taken.tenant.id, taken.id);
    let email = Email::parse("second-name@example.com").unwrap();
    for what in ["tenant", "user", "second name", "password", "session", "signing key"] {
        let mut tx = fixture.begin().await;
        let refused = match what {
            "tenant" => storage::tenants::insert(&mut tx, &taken.tenant).await,
            "user" => storage::users::insert(&mut tx, &taken).await.map(drop),
            "second name" => storage::logins::insert_name(&mut tx, &email, tenant_id, id).await.map(drop),
            "password" => storage::logins::insert_password(&mut tx, tenant_id, id, &password(), at(0)).await,
            "session" => storage::sessions::insert(&mut tx, &session(&taken)).await,
            _ => storage::signing_keys::insert(&mut tx, &signing_key("kid")).await,
        };
        // Statements whose answers nobody waits for fail at the commit.
        let refused = match refused {
            Ok(()) => tx.commit().await,
            Err(error) => Err(error),
        };
        assert!(matches!(refused, Err(StorageError::Refused(_))), "{what}: {refused:?}");
    }
}

async fn one_id_in_two_tenants_is_two_users(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (one, mut other) = (user(1), user(2));
    other.id = one.id;
    let mut tx = fixture.begin().await;
    for user in [&one, &other] {
        storage::tenants::insert(&mut tx, &user.tenant).await.unwrap();
        assert_eq!(storage::users::insert(&mut tx, user).await.unwrap(), Inserted::Yes);
    }
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    for user in [one, other] {
        let found = storage::users::find(&mut conn, user.tenant.id, user.id).await.unwrap();
        assert_eq!(found, Some(user));
    }
}

async fn rows_that_make_no_sense_name_their_column_and_not_their_value(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user = user(1);
    fixture.register(&user).await;
    let mut outside = fixture.outside().await;
    outside.run("UPDATE users SET external_id = '7'").await;
    for (table, column) in [
        ("users", "email"),
        ("users", "first_name"),
        ("users", "last_name"),
        ("users", "external_id"),
        ("users", "role"),
        ("users", "state"),
        ("tenants", "name"),
        ("passwords", "scheme"),
    ] {
        let sound = outside.texts(&format!("SELECT {column} AS cell FROM {table}")).await.remove(0);
        update_unchecked(&mut outside, table, column, "'Nonsen\u{7}se'").await;
        let mut conn = fixture.storage.read().await.unwrap();
        let found = storage::logins::find_by_email(&mut conn, &user.profile.email).await;
        assert_corrupt(found, table, column);
        let found = storage::logins::find_by_user(&mut conn, user.tenant.id, user.id).await;
        assert_corrupt(found, table, column);
        if table != "passwords" {
            let found = storage::users::find(&mut conn, user.tenant.id, user.id).await;
            assert_corrupt(found, table, column);
            let found = storage::users::find_with_session(
                &mut conn,
                user.tenant.id,
                session(&user).id,
                user.id,
                UserId::from(user.id.as_uuid()),
            );
            assert_corrupt(found.await, table, column);
        }
        if column == "state" {
            let mut tx = fixture.begin().await;
            let found = storage::users::find_locked(&mut tx, user.tenant.id, user.id).await;
            assert_corrupt(found, table, column);
        }
        update_unchecked(&mut outside, table, column, &format!("'{sound}'")).await;
        assert!(fixture.can_log_in(&user).await);
    }

    let bytes = match engine {
        Engine::Sqlite => "x'4e6f6e73656e7365'",
        Engine::Postgres => "'\\x4e6f6e73656e7365'",
    };
    update_unchecked(&mut outside, "request_outcomes", "fingerprint", bytes).await;
    let mut tx = fixture.begin().await;
    let found = storage::outcomes::find(&mut tx, outcome(&user).request_id).await;
    assert_corrupt(found, "request_outcomes", "fingerprint");
    drop(tx);

    // A user who is as good as new can be written beside the one that made no sense.
    let mut tx = fixture.begin().await;
    register(&mut tx, &crate::fixture::user(2)).await.unwrap();
    tx.commit().await.unwrap();
}

/// Writes a value that the rules of the table forbid.
async fn update_unchecked(outside: &mut Outside, table: &str, column: &str, value: &str) {
    let before = match outside {
        Outside::Sqlite(_) => "PRAGMA ignore_check_constraints = ON".to_owned(),
        Outside::Postgres(_) => {
            format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_{column}_check")
        }
    };
    outside.run(&before).await;
    outside.run(&format!("UPDATE {table} SET {column} = {value}")).await;
}

fn assert_corrupt<T: std::fmt::Debug>(found: Result<T, StorageError>, table: &str, column: &str) {
    match found {
        Err(StorageError::Corrupt(text)) => {
            assert!(text.contains(&format!("{table}.{column}")), "{text}");
            assert!(!text.contains("Nonsen"), "{text}");
        }
        other => panic!("{table}.{column}: {other:?}"),
    }
}
