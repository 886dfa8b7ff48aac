//! Units of work: all or nothing, seen by others only once kept, one at a time where they meet.

use std::sync::{Arc, Mutex};

use identity::domain::{Email, Session, SessionId, User, UserState};
use identity::storage::sessions::OpenAt;
use identity::storage::{self, Inserted, StorageError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::{
    Fixture, LONG, at, delete_surplus, insert_tenant, outcome, password, register, session, user, with_email,
};
use crate::sql::Outside;
use crate::support::service::{Engine, on_both_databases};
use crate::support::wait::eventually;

on_both_databases!(
    a_commit_that_is_sent_along_with_a_statement_that_fails_keeps_nothing,
    an_answer_is_as_old_as_its_question,
    statements_that_are_sent_together_run_in_their_order,
    what_is_not_committed_is_rolled_back_again_and_again,
    what_failed_is_rolled_back_and_the_connection_serves_on,
    a_transaction_in_which_a_statement_failed_cannot_be_committed,
    a_commit_that_breaks_a_rule_keeps_nothing_and_harms_nobody,
    tasks_aborted_anywhere_leave_nothing_and_hold_nothing,
    a_transaction_dropped_outside_of_a_runtime_is_rolled_back,
    writes_are_seen_by_others_from_the_commit_on,
    readers_do_not_wait_for_a_writer,
    of_many_who_want_one_login_name_one_gets_it,
    of_many_with_one_request_id_one_writes_and_the_others_find_it,
    whoever_opens_a_session_keeps_the_state_from_changing,
);

/// More often than there are connections.
const OFTEN: u8 = 30;

async fn what_is_not_committed_is_rolled_back_again_and_again(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    for n in 0..OFTEN {
        let mut tx = fixture.begin().await;
        register(&mut tx, &user(n)).await.unwrap();
    }
    fixture.register(&user(OFTEN)).await;
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
    assert!(fixture.can_log_in(&user(OFTEN)).await);
}

async fn what_failed_is_rolled_back_and_the_connection_serves_on(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    fixture.register(&user(0)).await;
    let mut doomed = user(1);
    doomed.tenant.id = user(2).tenant.id;
    for _ in 0..OFTEN {
        let mut tx = fixture.begin().await;
        storage::tenants::insert(&mut tx, &user(1).tenant).await.unwrap();
        let inserted = storage::users::insert(&mut tx, &doomed).await;
        let refused = inserted.and(tx.flush().await);
        assert!(matches!(refused, Err(StorageError::Refused(_))), "{refused:?}");
    }
    fixture.register(&user(1)).await;
    assert_eq!(fixture.outside().await.count("tenants").await, 2);
}

async fn a_transaction_in_which_a_statement_failed_cannot_be_committed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.register(&user(0)).await;
    let mut tx = fixture.begin().await;
    storage::tenants::insert(&mut tx, &user(1).tenant).await.unwrap();
    assert!(insert_tenant(&mut tx, &user(0).tenant).await.is_err());
    // PostgreSQL answers such a COMMIT as if it had kept something.
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(StorageError::Refused(_))), "{committed:?}");
    fixture.register(&user(2)).await;
    assert_eq!(fixture.outside().await.count("tenants").await, 2);
}

/// On PostgreSQL the server has answered the COMMIT, too, when it is read that a statement before it failed.
async fn a_commit_that_is_sent_along_with_a_statement_that_fails_keeps_nothing(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    fixture.register(&user(0)).await;
    for n in 0..OFTEN {
        let mut tx = fixture.begin().await;
        storage::tenants::insert(&mut tx, &user(1).tenant).await.unwrap();
        let doomed = storage::tenants::insert(&mut tx, &user(0).tenant).await;
        let unrelated = storage::tenants::insert(&mut tx, &user(2).tenant).await;
        let committed = doomed.and(unrelated).and(tx.commit().await);
        assert!(matches!(committed, Err(StorageError::Refused(_))), "{n}: {committed:?}");
    }
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
    fixture.register(&user(1)).await;
}

/// A connection prepares a statement before it is sent for the first time; those behind it have been prepared.
async fn statements_that_are_sent_together_run_in_their_order(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    for n in 0..OFTEN {
        let user = user(n);
        let mut tx = fixture.begin().await;
        // Each needs the rows of those before it.
        register(&mut tx, &user).await.unwrap();
        storage::sessions::delete(&mut tx, user.tenant.id, &[session(&user).id]).await.unwrap();
        storage::sessions::insert(&mut tx, &session(&user)).await.unwrap();
        storage::logins::delete_name(&mut tx, user.tenant.id, user.id).await.unwrap();
        assert_eq!(
            storage::users::update(&mut tx, &User { version: 7, ..user.clone() }).await.unwrap(),
            Inserted::Yes
        );
        tx.commit().await.unwrap();
        let mut conn = fixture.storage.read().await.unwrap();
        let found = storage::users::find(&mut conn, user.tenant.id, user.id).await.unwrap();
        assert_eq!(found.map(|user| user.version), Some(7));
    }
    let mut outside = fixture.outside().await;
    let counts = (outside.count("users").await, outside.count("sessions").await);
    assert_eq!(counts, (usize::from(OFTEN), usize::from(OFTEN)));
    assert_eq!(outside.count("login_names").await, 0);
}

/// What was asked before is answered before what comes behind it runs.
async fn an_answer_is_as_old_as_its_question(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    let user = user(0);
    fixture.register(&user).await;
    let mut tx = fixture.begin().await;
    let before = storage::logins::ask_locked(&mut tx, &user.tenant, user.id).await.unwrap();
    assert_eq!(
        storage::users::update(&mut tx, &User { version: 9, ..user.clone() }).await.unwrap(),
        Inserted::Yes
    );
    let after = storage::logins::ask_locked(&mut tx, &user.tenant, user.id).await.unwrap();
    let version = |found: Option<(User, _)>| found.map(|(user, _)| user.version);
    assert_eq!(version(before.receive(&mut tx).await.unwrap()), Some(user.version));
    assert_eq!(version(after.receive(&mut tx).await.unwrap()), Some(9));
}

async fn a_commit_that_breaks_a_rule_keeps_nothing_and_harms_nobody(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    for _ in 0..OFTEN {
        let mut tx = fixture.begin().await;
        storage::tenants::insert(&mut tx, &user(1).tenant).await.unwrap();
        // Its user is looked for at the commit, and is not there.
        assert_eq!(storage::outcomes::insert(&mut tx, &outcome(&user(1))).await.unwrap(), Inserted::Yes);
        let committed = tx.commit().await;
        assert!(matches!(committed, Err(StorageError::Refused(_))), "{committed:?}");
    }
    fixture.register(&user(1)).await;
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
}

async fn tasks_aborted_anywhere_leave_nothing_and_hold_nothing(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 2).await;
    for n in 0..OFTEN {
        let storage = fixture.storage.clone();
        let (begun, has_begun) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut begun = Some(begun);
            for id in 0..=u8::MAX {
                let mut tx = storage.begin("aborted").await.unwrap();
                storage::tenants::insert(&mut tx, &user(id).tenant).await.unwrap();
                begun.take().map(|begun| begun.send(()));
                for other in (0..=u8::MAX).filter(|other| *other != id) {
                    storage::tenants::insert(&mut tx, &user(other).tenant).await.unwrap();
                }
            }
        });
        has_begun.await.unwrap();
        // At another place each time, most of them in the middle of a statement.
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    timeout(LONG, fixture.register(&user(0))).await.unwrap();
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
    // All connections are there.
    let mut held = vec![fixture.begin().await];
    if engine == Engine::Postgres {
        held.push(timeout(LONG, fixture.begin()).await.unwrap());
    }
}

async fn a_transaction_dropped_outside_of_a_runtime_is_rolled_back(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 1).await;
    let mut tx = fixture.begin().await;
    register(&mut tx, &user(1)).await.unwrap();
    tokio::task::block_in_place(|| std::thread::spawn(move || drop(tx)).join().unwrap());
    fixture.register(&user(2)).await;
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
}

async fn writes_are_seen_by_others_from_the_commit_on(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 3).await;
    let mut outside = fixture.outside().await;
    for n in 1..=OFTEN {
        let mut tx = fixture.begin().await;
        register(&mut tx, &user(n)).await.unwrap();
        // The writer sees it, nobody else does: neither this process nor another.
        assert!(storage::logins::find_by_email(&mut tx, &user(n).profile.email).await.unwrap().is_some());
        assert!(!fixture.can_log_in(&user(n)).await);
        assert_eq!(outside.count("login_names").await, usize::from(n) - 1);
        tx.commit().await.unwrap();
        assert!(fixture.can_log_in(&user(n)).await);
        assert_eq!(outside.count("login_names").await, usize::from(n));
    }
}

async fn readers_do_not_wait_for_a_writer(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 5).await;
    fixture.register(&user(1)).await;
    let mut tx = fixture.begin().await;
    assert!(storage::tenants::delete(&mut tx, user(1).tenant.id, at(9)).await.unwrap());
    let mut readers = JoinSet::new();
    for _ in 0..32 {
        let storage = fixture.storage.clone();
        readers.spawn(async move {
            let mut conn = storage.read().await.unwrap();
            storage::users::find(&mut conn, user(1).tenant.id, user(1).id).await.unwrap()
        });
    }
    for found in timeout(LONG, readers.join_all()).await.unwrap() {
        assert_eq!(found, Some(user(1)), "as it was before");
    }
    tx.commit().await.unwrap();
    assert!(!fixture.can_log_in(&user(1)).await);
}

async fn of_many_who_want_one_login_name_one_gets_it(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 8).await;
    let mut wanting = JoinSet::new();
    for n in 1..=8 {
        let storage = fixture.storage.clone();
        wanting.spawn(async move {
            let mut user = user(n);
            user.profile.email = crate::fixture::user(1).profile.email;
            let mut tx = storage.begin("test").await.unwrap();
            storage::tenants::insert(&mut tx, &user.tenant).await.unwrap();
            assert_eq!(storage::users::insert(&mut tx, &user).await.unwrap(), Inserted::Yes);
            let named =
                storage::logins::insert_name(&mut tx, &user.profile.email, user.tenant.id, user.id).await;
            let named = named.unwrap();
            if named == Inserted::Yes {
                tx.commit().await.unwrap();
            }
            named
        });
    }
    let outcomes = wanting.join_all().await;
    assert_eq!(outcomes.iter().filter(|named| **named == Inserted::Yes).count(), 1, "{outcomes:?}");
    let mut outside = fixture.outside().await;
    assert_eq!((outside.count("users").await, outside.count("login_names").await), (1, 1));
}

async fn of_many_with_one_request_id_one_writes_and_the_others_find_it(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 8).await;
    let request_id = outcome(&user(1)).request_id;
    let mut wanting = JoinSet::new();
    for n in 1..=8 {
        let storage = fixture.storage.clone();
        wanting.spawn(async move {
            let user = user(n);
            let outcome = storage::outcomes::Outcome { request_id, ..outcome(&user) };
            let mut tx = storage.begin("test").await.unwrap();
            if storage::outcomes::insert(&mut tx, &outcome).await.unwrap() == Inserted::Taken {
                return (storage::outcomes::find(&mut tx, request_id).await.unwrap().unwrap(), 0);
            }
            storage::tenants::insert(&mut tx, &user.tenant).await.unwrap();
            assert_eq!(storage::users::insert(&mut tx, &user).await.unwrap(), Inserted::Yes);
            tx.commit().await.unwrap();
            (outcome, 1)
        });
    }
    let outcomes = wanting.join_all().await;
    assert_eq!(outcomes.iter().map(|(_, wrote)| wrote).sum::<i32>(), 1);
    assert!(outcomes.iter().all(|(found, _)| *found == outcomes[0].0), "{outcomes:?}");
    assert_eq!(fixture.outside().await.count("tenants").await, 1);
}

async fn whoever_opens_a_session_keeps_the_state_from_changing(engine: Engine) {
    let fixture = Fixture::with_connections(engine, 3).await;
    let user = user(1);
    fixture.register(&user).await;
    let order = Arc::new(Mutex::new(Vec::new()));

    let mut opening = fixture.begin().await;
    let found = storage::logins::find_locked(&mut opening, &user.tenant, user.id).await.unwrap();
    assert_eq!(found, Some((user.clone(), at(5))));
    let disabling = tokio::spawn({
        let (storage, user, order) = (fixture.storage.clone(), user.clone(), Arc::clone(&order));
        async move {
            let mut tx = storage.begin("disable").await.unwrap();
            let disabled = User { state: UserState::Disabled, ..user };
            storage::users::find_locked(&mut tx, disabled.tenant.id, disabled.id).await.unwrap();
            order.lock().unwrap().push("disabled");
            assert_eq!(storage::users::update(&mut tx, &disabled).await.unwrap(), Inserted::Yes);
            tx.commit().await.unwrap();
        }
    });
    let mut outside = fixture.outside().await;
    match &mut outside {
        Outside::Postgres(_) => {
            let waiting = "SELECT 'waits' AS cell FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            eventually("the update waits for the session", async || outside.texts(waiting).await.len() == 1)
                .await;
        }
        // It waits for its turn in this process, which nobody else can see: give it some.
        Outside::Sqlite(_) => {
            for _ in 0..50 {
                assert!(fixture.can_log_in(&user).await);
            }
        }
    }
    let second = Session { id: SessionId::from(user.tenant.id.as_uuid()), ..session(&user) };
    storage::sessions::insert(&mut opening, &second).await.unwrap();
    order.lock().unwrap().push("opened");
    opening.commit().await.unwrap();
    disabling.await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["opened", "disabled"]);

    let mut tx = fixture.begin().await;
    let found = storage::users::find_locked(&mut tx, user.tenant.id, user.id).await.unwrap().unwrap();
    assert_eq!(found.state, UserState::Disabled);
}

/// A phone and a laptop: the second has to see the session of the first, or a user would have too many.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_open_a_session_of_one_user_the_second_waits_for_the_first() {
    let fixture = Fixture::with_connections(Engine::Postgres, 2).await;
    let user = user(1);
    fixture.register(&user).await;
    let mut first = fixture.begin().await;
    storage::logins::find_locked(&mut first, &user.tenant, user.id).await.unwrap().unwrap();
    let second = tokio::spawn({
        let (storage, user) = (fixture.storage.clone(), user.clone());
        async move {
            let mut tx = storage.begin("second").await.unwrap();
            storage::logins::find_locked(&mut tx, &user.tenant, user.id).await.unwrap().unwrap();
            let (open, kept) = (OpenAt { now: at(0), unused_since: at(-9) }, 0);
            delete_surplus(&mut tx, &user, open, kept).await
        }
    });
    let mut outside = fixture.outside().await;
    let waiting = "SELECT 'waits' AS cell FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the second waits", async || outside.texts(waiting).await.len() == 1).await;
    let of_the_first = Session { id: SessionId::from(user.tenant.id.as_uuid()), ..session(&user) };
    storage::sessions::insert(&mut first, &of_the_first).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), 2, "that of the registration and that of the first");
}

/// Or else a login that was checked against the old password would open a session.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waited_for_a_user_reads_the_password_that_was_set_meanwhile() {
    let fixture = Fixture::with_connections(Engine::Postgres, 2).await;
    let user = user(1);
    fixture.register(&user).await;
    let (tenant_id, id) = (user.tenant.id, user.id);
    let mut setting = fixture.begin().await;
    storage::users::find_locked(&mut setting, tenant_id, id).await.unwrap();
    let opening = tokio::spawn({
        let (storage, user) = (fixture.storage.clone(), user.clone());
        async move {
            let mut tx = storage.begin("login").await.unwrap();
            storage::logins::find_locked(&mut tx, &user.tenant, user.id).await.unwrap()
        }
    });
    let mut outside = fixture.outside().await;
    let waiting = "SELECT 'waits' AS cell FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the login waits", async || outside.texts(waiting).await.len() == 1).await;
    storage::logins::replace_password(&mut setting, tenant_id, id, &password(), at(9)).await.unwrap();
    let renamed = with_email(user.clone(), Email::parse("new@example.com").unwrap());
    assert_eq!(storage::users::update(&mut setting, &renamed).await.unwrap(), Inserted::Yes);
    setting.commit().await.unwrap();
    assert_eq!(opening.await.unwrap(), Some((renamed, at(9))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_aborted_while_it_waits_for_a_lock_writes_nothing_and_frees_its_connection() {
    let fixture = Fixture::with_connections(Engine::Postgres, 2).await;
    let user = user(1);
    fixture.register(&user).await;
    for _ in 0..5 {
        let mut holding = fixture.begin().await;
        storage::users::find_locked(&mut holding, user.tenant.id, user.id).await.unwrap();
        let task = tokio::spawn({
            let (storage, user) = (fixture.storage.clone(), user.clone());
            async move {
                let mut tx = storage.begin("aborted").await.unwrap();
                let disabled = User { state: UserState::Disabled, ..user };
                storage::users::find_locked(&mut tx, disabled.tenant.id, disabled.id).await.unwrap();
                assert_eq!(storage::users::update(&mut tx, &disabled).await.unwrap(), Inserted::Yes);
                tx.commit().await.unwrap();
            }
        });
        let mut outside = fixture.outside().await;
        let waiting = "SELECT 'waits' AS cell FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the update waits", async || outside.texts(waiting).await.len() == 1).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        holding.commit().await.unwrap();
        let pair = (fixture.begin().await, fixture.begin().await);
        drop(pair);
    }
    let mut tx = fixture.begin().await;
    let found = storage::users::find_locked(&mut tx, user.tenant.id, user.id).await.unwrap().unwrap();
    assert_eq!(found.state, UserState::Active);
}
