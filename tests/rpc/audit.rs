//! The audit log: every change is in it, with who made it, and without secrets.

use std::collections::HashSet;
use std::time::Duration;

use identity::domain::{Action, Actor, AuditEvent as DomainEvent, Clock as _, TenantId};
use identity::proto::v1::{
    ActorKind, AuditChange, AuditEvent, DeleteTenantRequest, DeleteUserRequest, ListAuditEventsRequest,
    LoginRequest, RevokeUserSessionsRequest, Role, SetPasswordRequest, SetUserStateRequest, Tenant,
    UpdateTenantRequest, UpdateUserRequest, User, UserState,
};
use identity::storage;
use prost_types::FieldMask;
use tonic::{Code, Request, Response, Status};

use crate::database::{census_becomes, count, execute, storage, values};
use crate::fixture::{TestClock, claim, new_id, refusal, refused};
use crate::services::{SERVICE_TOKEN, token, with};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, bad_fields, on_both_databases, registration,
};
use crate::support::wait::eventually;
use crate::world::{Person, create, founder, hire, log_in};

on_both_databases!(
    every_change_of_the_directory_is_told_with_who_made_it,
    registrations_logins_and_failures_are_told,
    the_ends_of_sessions_are_told,
    a_service_that_calls_for_a_user_is_named,
    refusals_are_counted_into_one_event_a_source_and_minute,
    refusals_for_want_of_room_are_counted_too,
    events_are_filtered_and_paged,
    the_events_of_a_tenant_outlive_it,
    events_are_kept_as_long_as_the_setting_says,
    bad_fields_are_named,
    no_secret_is_in_the_log,
    events_of_one_moment_come_in_the_order_in_which_they_were_written,
    a_word_that_this_version_does_not_know_is_passed_on,
);

async fn list(
    client: &Client,
    by: &Person,
    message: ListAuditEventsRequest,
) -> Result<(Vec<AuditEvent>, String), Status> {
    let listed = client.audit.clone().list_audit_events(by.request(message)).await;
    listed.map(Response::into_inner).map(|page| (page.events, page.next_page_token))
}

/// The newest events of a user's tenant.
async fn events(client: &Client, by: &Person) -> Vec<AuditEvent> {
    list(client, by, ListAuditEventsRequest { page_size: 1_000, ..Default::default() }).await.unwrap().0
}

/// Events of no tenant, or of any other, as a service sees them.
async fn events_for_service(service: &TestService, tenant_id: &str) -> Vec<AuditEvent> {
    let (_, token) = token(&service.database, &[]).await;
    let message =
        ListAuditEventsRequest { tenant_id: tenant_id.into(), page_size: 1_000, ..Default::default() };
    let request = with(message, &[(SERVICE_TOKEN, token.as_str())]);
    service.client().audit.list_audit_events(request).await.unwrap().into_inner().events
}

fn changed(field: &str, before: &str, after: &str) -> AuditChange {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    AuditChange { field: field.into(), before: text(before), after: text(after) }
}

async fn every_change_of_the_directory_is_told_with_who_made_it(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let tenant_id = ada.user.tenant_id.clone();
    let mut directory = client.directory.clone();
    let bob = create(&client, &ada, "bob@example.com", Role::Member).await;
    let expected_of = |action: &str, target_kind: &str, target_id: &str, changes: Vec<AuditChange>| {
        (action.to_owned(), target_kind.to_owned(), target_id.to_owned(), changes)
    };
    let created = expected_of(
        "user.created",
        "user",
        &bob.id,
        vec![
            changed("email", "", "bob@example.com"),
            changed("first_name", "", "Grace"),
            changed("last_name", "", "Hopper"),
            changed("role", "", "member"),
            changed("state", "", "active"),
        ],
    );
    let mask = |paths: &[&str]| Some(FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() });
    let new = User {
        id: bob.id.clone(),
        email: "Robert@example.com".into(),
        first_name: "Robert".into(),
        role: Role::Admin.into(),
        ..User::default()
    };
    let message = UpdateUserRequest {
        user: Some(new),
        update_mask: mask(&["email", "first_name", "role", "last_name"]),
        current_password: PASSWORD.into(),
    };
    // A name may not be empty; nothing of the update is made then, and nothing told.
    let refused = directory.update_user(ada.request(message.clone())).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["user.last_name"]);
    let message = UpdateUserRequest { update_mask: mask(&["email", "first_name", "role"]), ..message };
    directory.update_user(ada.request(message.clone())).await.unwrap();
    // What is so already is no change.
    directory.update_user(ada.request(message)).await.unwrap();
    let updated = expected_of(
        "user.updated",
        "user",
        &bob.id,
        vec![
            changed("email", "bob@example.com", "Robert@example.com"),
            changed("first_name", "Grace", "Robert"),
            changed("role", "member", "admin"),
        ],
    );
    for state in [UserState::Disabled, UserState::Disabled, UserState::Active] {
        let message =
            SetUserStateRequest { user_id: bob.id.clone(), state: state.into(), ..Default::default() };
        directory.set_user_state(ada.request(message)).await.unwrap();
    }
    let disabled =
        expected_of("user.disabled", "user", &bob.id, vec![changed("state", "active", "disabled")]);
    let enabled = expected_of("user.enabled", "user", &bob.id, vec![changed("state", "disabled", "active")]);
    let message = SetPasswordRequest {
        user_id: bob.id.clone(),
        new_password: "another good one".into(),
        ..Default::default()
    };
    directory.set_password(ada.request(message)).await.unwrap();
    let password_set = expected_of("user.password_set", "user", &bob.id, vec![]);
    log_in(&client, "robert@example.com", "another good one").await;
    // The second time there is nothing to end, and nothing to tell.
    for _ in 0..2 {
        let message = RevokeUserSessionsRequest { user_id: bob.id.clone(), ..Default::default() };
        directory.revoke_user_sessions(ada.request(message)).await.unwrap();
    }
    let revoked =
        expected_of("user.sessions_revoked", "user", &bob.id, vec![changed("sessions_ended", "", "1")]);
    let message = DeleteUserRequest { user_id: bob.id.clone(), ..Default::default() };
    let mut request = ada.request(message);
    request.metadata_mut().insert("x-request-id", "delete-bob".parse().unwrap());
    directory.delete_user(request).await.unwrap();
    let deleted = expected_of(
        "user.deleted",
        "user",
        &bob.id,
        vec![
            changed("email", "Robert@example.com", ""),
            changed("first_name", "Robert", ""),
            changed("last_name", "Hopper", ""),
            changed("role", "admin", ""),
            changed("state", "active", ""),
        ],
    );
    let tenant = Tenant { name: "Difference Engines".into(), ..Tenant::default() };
    let message = UpdateTenantRequest { tenant: Some(tenant), update_mask: mask(&["name"]) };
    directory.update_tenant(ada.request(message)).await.unwrap();
    let renamed = expected_of(
        "tenant.updated",
        "tenant",
        &tenant_id,
        vec![changed("name", "ada@example.com's", "Difference Engines")],
    );

    let told: Vec<_> =
        events(&client, &ada).await.into_iter().filter(|event| event.actor_id == ada.user.id).collect();
    for event in &told {
        assert_eq!(event.actor_kind(), ActorKind::User);
        assert_eq!((event.tenant_id.as_str(), event.count), (tenant_id.as_str(), 1));
        assert_eq!(event.source, "127.0.0.1");
        assert!(!event.request_id.is_empty() && event.occurred_at.is_some());
    }
    assert_eq!(told.iter().filter(|event| event.request_id == "delete-bob").count(), 1);
    let told: Vec<_> = told
        .into_iter()
        .rev()
        .filter(|event| event.action != "session.opened")
        .map(|event| (event.action, event.target_kind, event.target_id, event.changes))
        .collect();
    let expected = [created, updated, disabled, enabled, password_set, revoked, deleted, renamed];
    assert_eq!(told, expected);
}

async fn registrations_logins_and_failures_are_told(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let again = log_in(&client, "ada@example.com", PASSWORD).await;
    client.login("ada@example.com", "wrong").await.unwrap_err();
    client.login("nobody@example.com", "wrong").await.unwrap_err();
    client.change_password(&ada.access_token, "wrong", "another good one").await.unwrap_err();
    client.change_password(&ada.access_token, PASSWORD, "another good one").await.unwrap();
    client.register(registration("ADA@example.com")).await.unwrap_err();
    let told = events(&client, &ada).await;
    let of = |action: &str| told.iter().filter(|event| event.action == action).collect::<Vec<_>>();
    for (action, target_id) in [
        ("tenant.created", &ada.user.tenant_id),
        ("user.created", &ada.user.id),
        ("user.password_changed", &ada.user.id),
    ] {
        let [event] = of(action)[..] else { panic!("one {action} in {told:?}") };
        assert_eq!(&event.target_id, target_id);
    }
    let mut opened: Vec<_> = of("session.opened").iter().map(|event| event.target_id.clone()).collect();
    opened.sort_unstable();
    let mut sessions = [claim(&ada.access_token, "sid"), claim(&again.access_token, "sid")];
    sessions.sort_unstable();
    assert_eq!(opened, sessions);
    let failed = of("login.failed");
    assert_eq!(failed.len(), 2);
    for event in failed {
        assert_eq!((event.reason.as_str(), &event.target_id), ("wrong_password", &ada.user.id));
    }
    assert_eq!(told.len(), 3 + 2 + 2, "{told:?}");
    let of_nobody = events_for_service(&service, "").await;
    let of_nobody: Vec<_> =
        of_nobody.iter().map(|event| (event.action.as_str(), event.reason.as_str())).collect();
    assert!(of_nobody.contains(&("login.failed", "unknown_email")), "{of_nobody:?}");
    assert!(of_nobody.contains(&("email.taken", "")), "{of_nobody:?}");

    let bob = create(
        &client,
        &log_in(&client, "ada@example.com", "another good one").await,
        "bob@example.com",
        Role::Member,
    )
    .await;
    let ada = log_in(&client, "ada@example.com", "another good one").await;
    let message = SetUserStateRequest {
        user_id: bob.id.clone(),
        state: UserState::Disabled.into(),
        ..Default::default()
    };
    client.directory.clone().set_user_state(ada.request(message)).await.unwrap();
    client.login("bob@example.com", PASSWORD).await.unwrap_err();
    let told = events(&client, &ada).await;
    let event = told.iter().find(|event| event.action == "login.failed" && event.target_id == bob.id);
    assert_eq!(event.unwrap().reason, "user_disabled");
}

async fn the_ends_of_sessions_are_told(engine: Engine) {
    let clock = TestClock::new();
    let service = TestService::start_at(
        TestDatabase::migrated(engine).await,
        &[("IDENTITY_SESSION_LIMIT", "4")],
        clock.clone(),
    )
    .await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let left = log_in(&client, "ada@example.com", PASSWORD).await;
    client.logout(&left.refresh_token).await.unwrap();
    // Of the second time there is nothing to tell.
    client.logout(&left.refresh_token).await.unwrap();
    let other = log_in(&client, "ada@example.com", PASSWORD).await;
    client.revoke_session(&ada.access_token, &claim(&other.access_token, "sid")).await.unwrap();
    let copied = log_in(&client, "ada@example.com", PASSWORD).await;
    client.refresh(&copied.refresh_token).await.unwrap();
    clock.advance(Duration::from_secs(60));
    client.refresh(&copied.refresh_token).await.unwrap_err();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(1));
        log_in(&client, "ada@example.com", PASSWORD).await;
    }
    let ada = log_in(&client, "ada@example.com", PASSWORD).await;
    let told = events(&client, &ada).await;
    let ended = |reason: &str| {
        let ended = told.iter().filter(|event| event.action == "session.ended" && event.reason == reason);
        ended.map(|event| event.target_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ended("logout"), [claim(&left.access_token, "sid")]);
    assert_eq!(ended(""), [claim(&other.access_token, "sid")]);
    assert_eq!(ended("refresh_token_reused"), [claim(&copied.access_token, "sid")]);
    assert!(!ended("too_many_sessions").is_empty());
}

async fn a_service_that_calls_for_a_user_is_named(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let (_, token) = token(&service.database, &[]).await;
    let stated = [(SERVICE_TOKEN, token.as_str()), ("x-identity-end-user-address", "192.0.2.7")];
    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    client.service.clone().login(with(login, &stated)).await.unwrap();
    let message = RevokeUserSessionsRequest { user_id: ada.user.id.clone(), ..Default::default() };
    client.directory.clone().revoke_user_sessions(with(message, &stated)).await.unwrap();
    let ada = log_in(&client, "ada@example.com", PASSWORD).await;
    let told = events(&client, &ada).await;
    let opened = told.iter().find(|event| event.action == "session.opened" && event.actor_name == "billing");
    let opened = opened.unwrap();
    assert_eq!((opened.actor_kind(), opened.source.as_str()), (ActorKind::User, "192.0.2.7"));
    let revoked = told.iter().find(|event| event.action == "user.sessions_revoked").unwrap();
    assert_eq!((revoked.actor_kind(), revoked.actor_name.as_str()), (ActorKind::Service, "billing"));
    assert_eq!(revoked.actor_id, "");
}

async fn refusals_are_counted_into_one_event_a_source_and_minute(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    let client = service.client();
    founder(&client, "ada@example.com").await;
    for _ in 0..10 {
        client.login("ada@example.com", "wrong").await.unwrap_err();
    }
    let before = count(&service.database, "audit_events");
    for _ in 0..50 {
        let refusal = refusal(client.login("ada@example.com", PASSWORD).await);
        assert_eq!(refusal, refused(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
    }
    assert_eq!(count(&service.database, "audit_events"), before, "nothing is written for each");
    let (stopped, database) = service.stop().await;
    assert!(stopped.writes_finished);
    assert_eq!(count(&database, "audit_events"), before + 1);
    let service = TestService::start_at(database, &[], clock).await;
    let told = events_for_service(&service, "").await;
    let told: Vec<_> = told.iter().filter(|event| event.action == "call.refused").collect();
    let [event] = told[..] else { panic!("one event in {told:?}") };
    assert_eq!((event.count, event.source.as_str()), (50, "127.0.0.1"));
    assert_eq!(event.changes, [changed("too_many_attempts", "", "50")]);
}

async fn refusals_for_want_of_room_are_counted_too(engine: Engine) {
    // Nobody's hash is computed in that time.
    let dear = [("IDENTITY_BCRYPT_COST", "16"), ("IDENTITY_HASH_MAX_WAIT", "100ms")];
    let clock = TestClock::new();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &dear, clock.clone()).await;
    for _ in 0..5 {
        let refusal = refusal(service.client().login("nobody@example.com", PASSWORD).await);
        assert_eq!(refusal, refused(Code::ResourceExhausted, "OVERLOADED"));
    }
    let (_, database) = service.stop().await;
    let service = TestService::start_at(database, &[], clock).await;
    let told = events_for_service(&service, "").await;
    let event = told.iter().find(|event| event.action == "call.refused").unwrap();
    assert_eq!((event.count, &event.changes[..]), (5, &[changed("overloaded", "", "5")][..]));
}

async fn events_are_filtered_and_paged(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let admin = hire(&client, &ada, "admin@example.com", Role::Admin).await;
    let eve = founder(&client, "eve@example.com").await;
    for n in 0..7 {
        create(&client, &admin, &format!("user{n}@example.com"), Role::Member).await;
    }
    let by_admin = ListAuditEventsRequest {
        actions: vec!["user.created".into()],
        actor_id: admin.user.id.clone(),
        page_size: 3,
        ..Default::default()
    };
    let mut found = Vec::new();
    let mut page_token = String::new();
    let mut tokens = Vec::new();
    loop {
        let message = ListAuditEventsRequest { page_token, ..by_admin.clone() };
        let (page, next) = list(&client, &ada, message).await.unwrap();
        assert!(page.len() <= 3);
        found.extend(page);
        if next.is_empty() {
            break;
        }
        tokens.push(next.clone());
        page_token = next;
    }
    assert_eq!(found.len(), 7);
    assert!(found.is_sorted_by(|a, b| a.id > b.id));
    let about_admin = ListAuditEventsRequest {
        target_id: admin.user.id.clone(),
        actions: vec!["user.created".into()],
        ..Default::default()
    };
    assert_eq!(list(&client, &ada, about_admin).await.unwrap().0.len(), 1);
    let created_at = found[3].occurred_at;
    let from = ListAuditEventsRequest { occurred_from: created_at, page_size: 100, ..by_admin.clone() };
    let until = ListAuditEventsRequest { occurred_until: created_at, page_size: 100, ..by_admin.clone() };
    assert_eq!(list(&client, &ada, from).await.unwrap().0, found[..4]);
    assert_eq!(list(&client, &ada, until).await.unwrap().0, found[4..]);
    // A token goes on with the same list, for the same caller.
    let token = tokens.remove(0);
    let of_others = [
        (&admin, ListAuditEventsRequest { page_token: token.clone(), ..by_admin.clone() }),
        (&eve, ListAuditEventsRequest { page_token: token.clone(), ..by_admin.clone() }),
        (
            &ada,
            ListAuditEventsRequest { page_token: token.clone(), actor_id: String::new(), ..by_admin.clone() },
        ),
        (&ada, ListAuditEventsRequest { page_token: token.clone(), actions: vec![], ..by_admin.clone() }),
        (&ada, ListAuditEventsRequest { page_token: format!("{token}A"), ..by_admin.clone() }),
    ];
    for (by, message) in of_others {
        assert_eq!(bad_fields(&list(&client, by, message).await.unwrap_err()), ["page_token"]);
    }
}

async fn the_events_of_a_tenant_outlive_it(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    hire(&client, &ada, "bob@example.com", Role::Member).await;
    let tenant_id = ada.user.tenant_id.clone();
    let message = DeleteTenantRequest { tenant_id: tenant_id.clone(), ..Default::default() };
    client.directory.clone().delete_tenant(ada.request(message)).await.unwrap();
    let told = events_for_service(&service, &tenant_id).await;
    let deleted = told.iter().find(|event| event.action == "tenant.deleted").unwrap();
    assert_eq!(deleted.actor_id, ada.user.id);
    assert_eq!(deleted.changes, [changed("name", "ada@example.com's", "")]);
    assert!(told.iter().any(|event| event.action == "user.created"));

    // When its last row is removed, that is told, too.
    census_becomes(&service.database, [0; 5]).await;
    let told = events_for_service(&service, &tenant_id).await;
    let erased = told.iter().find(|event| event.action == "tenant.erased").unwrap();
    assert_eq!(erased.actor_kind(), ActorKind::System);
    assert_eq!((erased.target_kind.as_str(), &erased.target_id), ("tenant", &tenant_id));
    assert_eq!(erased.changes, [changed("users_removed", "", "2")]);
}

async fn events_are_kept_as_long_as_the_setting_says(engine: Engine) {
    /// More than is deleted at once.
    const OLD: usize = 600;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let clock = TestClock::new();
    let now = clock.now();
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    let tenant = TenantId::generate(now);
    let event = |n, age| {
        let tenant = (n % 2 == 0).then_some(tenant);
        DomainEvent::new(now.minus(age), tenant, Actor::System, Action::LoginFailed)
    };
    let old: Vec<_> = (0..OLD).map(|n| event(n, 32 * DAY)).collect();
    let young = [event(0, 29 * DAY), event(1, 29 * DAY)];
    let mut tx = storage(&service.database).begin("fill").await.unwrap();
    storage::audit::insert_all(&mut tx, &[&old[..], &young[..]].concat()).await.unwrap();
    tx.commit().await.unwrap();
    let failures = "SELECT CAST(count(*) AS text) AS value FROM audit_events WHERE action = 'login.failed'";
    let left = |database: &TestDatabase| values(database, failures).remove(0).parse::<usize>().unwrap();

    // For ever, unless it is said how long.
    let (_, database) = service.stop().await;
    let retention = [("IDENTITY_AUDIT_RETENTION", "30d")];
    let service = TestService::start_at(database, &[], clock.clone()).await;
    assert_eq!(left(&service.database), OLD + 2);
    let (_, database) = service.stop().await;
    let service = TestService::start_at(database, &retention, clock.clone()).await;
    let told = async |service: &TestService| {
        let mut told = events_for_service(service, "").await;
        told.retain(|event| event.action == "audit.pruned");
        told
    };
    eventually("the old events are deleted", async || !told(&service).await.is_empty()).await;
    assert_eq!(left(&service.database), 2);
    let [pruned] = &told(&service).await[..] else { panic!("one event tells") };
    assert_eq!(pruned.actor_kind(), ActorKind::System);
    assert_eq!(pruned.changes[1], changed("events_deleted", "", "600"));

    // Where nothing is too old, nothing is told.
    let (_, database) = service.stop().await;
    let service = TestService::start_at(database, &retention, clock.clone()).await;
    assert_eq!((left(&service.database), told(&service).await.len()), (2, 1));
    assert_eq!(count(&service.database, "audit_cutoffs"), 1);
    // Two days later, the others are.
    let (_, database) = service.stop().await;
    clock.advance(3 * DAY);
    let service = TestService::start_at(database, &retention, clock.clone()).await;
    eventually("the others are deleted", async || left(&service.database) == 0).await;
}

async fn bad_fields_are_named(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let good = ListAuditEventsRequest::default();
    let cases: [(ListAuditEventsRequest, &[&str]); 8] = [
        (ListAuditEventsRequest { tenant_id: "x".into(), ..good.clone() }, &["tenant_id"]),
        (ListAuditEventsRequest { page_size: -1, ..good.clone() }, &["page_size"]),
        (ListAuditEventsRequest { actions: vec!["user.gone".into()], ..good.clone() }, &["actions"]),
        (ListAuditEventsRequest { actor_id: "x".into(), ..good.clone() }, &["actor_id"]),
        (ListAuditEventsRequest { target_id: "x".into(), ..good.clone() }, &["target_id"]),
        (ListAuditEventsRequest { occurred_from: time(i64::MAX, 0), ..good.clone() }, &["occurred_from"]),
        (ListAuditEventsRequest { occurred_until: time(0, -1), ..good.clone() }, &["occurred_until"]),
        (
            ListAuditEventsRequest { tenant_id: "x".into(), page_size: -1, ..good.clone() },
            &["tenant_id", "page_size"],
        ),
    ];
    for (message, fields) in cases {
        assert_eq!(bad_fields(&list(&client, &ada, message).await.unwrap_err()), fields);
    }
    let elsewhere = ListAuditEventsRequest { tenant_id: new_id(), ..good };
    assert_eq!(refusal(list(&client, &ada, elsewhere).await), refused(Code::NotFound, "TENANT_NOT_FOUND"));
    let anonymous = Request::new(ListAuditEventsRequest::default());
    let anonymous = client.audit.clone().list_audit_events(anonymous).await;
    assert_eq!(refusal(anonymous), refused(Code::Unauthenticated, "TOKEN_INVALID"));
}

async fn no_secret_is_in_the_log(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    hire(&client, &ada, "bob@example.com", Role::Member).await;
    client.login("ada@example.com", "a wrong secret").await.unwrap_err();
    client.change_password(&ada.access_token, PASSWORD, "another good secret").await.unwrap();
    let sql = "SELECT coalesce(changes, '') || coalesce(actor_name, '') || coalesce(target_name, '') \
               || coalesce(request_id, '') || coalesce(source, '') AS value FROM audit_events";
    let all = values(&service.database, sql).join("\n");
    assert!(all.contains("bob@example.com"));
    for secret in
        [PASSWORD, "a wrong secret", "another good secret", "$2b$", &ada.refresh_token, &ada.access_token]
    {
        assert!(!all.contains(secret), "{secret}");
    }
}

async fn events_of_one_moment_come_in_the_order_in_which_they_were_written(engine: Engine) {
    // Its clock stands still.
    let service = TestService::start_at(TestDatabase::migrated(engine).await, &[], TestClock::new()).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let mut expected = ["tenant.created", "user.created", "session.opened"].map(str::to_owned).to_vec();
    for n in 0..10 {
        let message = UpdateTenantRequest {
            tenant: Some(Tenant { name: format!("Engines {n}"), ..Tenant::default() }),
            update_mask: Some(FieldMask { paths: vec!["name".into()] }),
        };
        client.directory.clone().update_tenant(ada.request(message)).await.unwrap();
        expected.push("tenant.updated".to_owned());
    }
    let mut told = events(&client, &ada).await;
    told.reverse();
    let moments: HashSet<_> = told.iter().map(|event| event.occurred_at.unwrap().nanos).collect();
    assert_eq!(moments.len(), 1);
    assert_eq!(told.iter().map(|event| event.action.clone()).collect::<Vec<_>>(), expected);
    let names: Vec<_> = told[3..].iter().map(|event| event.changes[0].after.clone().unwrap()).collect();
    assert_eq!(names, (0..10).map(|n| format!("Engines {n}")).collect::<Vec<_>>());
}

async fn a_word_that_this_version_does_not_know_is_passed_on(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let lift_rules = match engine {
        Engine::Postgres => {
            "ALTER TABLE audit_events DISABLE TRIGGER USER, DROP CONSTRAINT audit_events_actor_kind_check"
        }
        Engine::Sqlite => "DROP TRIGGER audit_events_are_final; PRAGMA ignore_check_constraints = ON",
    };
    let columns = ["action", "reason", "actor_kind", "target_kind"];
    let words = columns.map(|column| format!("{column} = 'of_tomorrow'")).join(", ");
    execute(&service.database, &format!("{lift_rules}; UPDATE audit_events SET {words}"));
    let told = events(&client, &ada).await;
    assert_eq!(told.len(), 3);
    for event in told {
        let words = [&event.action, &event.reason, &event.actor_kind_name, &event.target_kind];
        assert_eq!(words, ["of_tomorrow"; 4]);
        assert_eq!(event.actor_kind(), ActorKind::Unspecified);
        assert!(!event.target_id.is_empty());
    }
}
