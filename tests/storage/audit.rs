//! Audit events: what is written, listed, and refused to be changed by anybody.

use std::time::Duration;

use identity::domain::{
    Action, Actor, AuditEvent, AuditEventId, AuditOrigin, FieldChange, LoggedEvent, Reason, ServiceTokenId,
    SessionId, Target, TenantId, UserId,
};
use identity::storage::audit::{self, EventFilter};
use uuid::Uuid;

use crate::fixture::{Fixture, at, user};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    an_event_is_read_as_it_was_written,
    events_are_filtered_and_the_newest_come_first,
    nobody_changes_or_deletes_an_event_above_the_cutoff,
    a_cutoff_lies_in_the_past_and_stays,
    an_event_of_another_version_is_read_in_its_words,
    events_of_one_moment_are_listed_in_the_order_in_which_they_were_written,
);

fn event(n: i64, tenant_id: Option<TenantId>, action: Action) -> AuditEvent {
    AuditEvent::new(at(n), tenant_id, Actor::System, action)
}

fn logged(events: &[&AuditEvent]) -> Vec<LoggedEvent> {
    events.iter().map(|event| (*event).clone().into()).collect()
}

async fn write(fixture: &Fixture, events: &[&AuditEvent]) {
    let mut tx = fixture.begin().await;
    for event in events {
        audit::insert(&mut tx, event).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn list(fixture: &Fixture, filter: &EventFilter, after: Option<AuditEventId>) -> Vec<LoggedEvent> {
    let mut conn = fixture.storage.read().await.unwrap();
    let listed = audit::list(&mut conn, filter, after, 100, 1_000).await.unwrap();
    assert_eq!(listed.to, None);
    // In pieces of a row or two, it is the same.
    for (limit, rows) in [(100, 1), (100, 2), (1, 2), (2, 100)] {
        let (mut after, mut events) = (after, Vec::new());
        loop {
            let piece = audit::list(&mut conn, filter, after, limit, rows).await.unwrap();
            assert!(piece.events.len() <= limit);
            events.extend(piece.events);
            let Some(to) = piece.to else { break };
            after = Some(to);
        }
        assert_eq!(events, listed.events, "{filter:?} {limit} {rows}");
    }
    listed.events
}

async fn an_event_is_read_as_it_was_written(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let user_id = UserId::generate(at(0));
    let actors = [
        Actor::Anonymous { via: None },
        Actor::User { id: user_id, via: Some("billing".to_owned()) },
        Actor::Service { name: "spiffe://example.com/billing".to_owned() },
        Actor::Operator { name: Some("root".to_owned()) },
        Actor::System,
    ];
    let targets = [
        Target::User(user_id),
        Target::Tenant(TenantId::generate(at(0))),
        Target::Session(SessionId::generate(at(0))),
        Target::ServiceToken(ServiceTokenId::generate(at(0))),
        Target::SigningKey("kid".to_owned()),
    ];
    let tenant_id = TenantId::generate(at(0));
    for (n, (actor, target)) in actors.into_iter().zip(targets).enumerate() {
        let mut event = event(i64::try_from(n).unwrap(), Some(tenant_id), Action::ALL[n]);
        event.actor = actor;
        event.target = Some(target);
        event.changes = vec![
            FieldChange::set("email", "ada@example.com"),
            FieldChange::between("first_name", "A\"da", "\u{1f980}\u{0}").unwrap(),
        ];
        event.reason = Some(Reason::ALL[n]);
        event.origin = AuditOrigin { request_id: Some("r-1".into()), source: Some("2001:db8::1".into()) };
        event.count = 7;
        write(&fixture, &[&event]).await;
        let filter = EventFilter { tenant_id: Some(tenant_id), ..EventFilter::default() };
        assert_eq!(list(&fixture, &filter, None).await[0], event.into());
    }
    let bare = event(9, None, Action::AuditPruned);
    write(&fixture, &[&bare]).await;
    assert_eq!(list(&fixture, &EventFilter::default(), None).await, [bare.into()]);
}

async fn events_are_filtered_and_the_newest_come_first(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (tenant_id, other) = (TenantId::generate(at(0)), TenantId::generate(at(0)));
    let (ada, eve) = (UserId::generate(at(0)), UserId::generate(at(0)));
    let mut created = event(1, Some(tenant_id), Action::UserCreated);
    created.target = Some(Target::User(ada));
    let mut updated = event(2, Some(tenant_id), Action::UserUpdated);
    updated.target = Some(Target::User(ada));
    updated.actor = Actor::User { id: eve, via: None };
    let opened = event(3, Some(tenant_id), Action::SessionOpened);
    let elsewhere = event(4, Some(other), Action::UserCreated);
    write(&fixture, &[&updated, &opened, &elsewhere, &created]).await;

    let all = EventFilter { tenant_id: Some(tenant_id), ..EventFilter::default() };
    let cases = [
        (all.clone(), vec![&opened, &updated, &created]),
        (EventFilter { actions: vec![Action::UserCreated], ..all.clone() }, vec![&created]),
        (
            EventFilter { actions: vec![Action::UserCreated, Action::SessionOpened], ..all.clone() },
            vec![&opened, &created],
        ),
        (EventFilter { actor: Some(eve), ..all.clone() }, vec![&updated]),
        (EventFilter { target: Some(ada.as_uuid()), ..all.clone() }, vec![&updated, &created]),
        (EventFilter { target: Some(ada.as_uuid()), actor: Some(eve), ..all.clone() }, vec![&updated]),
        (EventFilter { from: Some(at(2)), ..all.clone() }, vec![&opened, &updated]),
        (EventFilter { until: Some(at(2)), ..all.clone() }, vec![&created]),
        (EventFilter { from: Some(at(2)), until: Some(at(3)), ..all.clone() }, vec![&updated]),
        (EventFilter { tenant_id: None, ..all.clone() }, vec![]),
    ];
    for (filter, expected) in cases {
        let found = list(&fixture, &filter, None).await;
        assert_eq!(found, logged(&expected), "{filter:?}");
    }
    assert_eq!(list(&fixture, &all, Some(opened.id)).await, logged(&[&updated, &created]));
}

async fn nobody_changes_or_deletes_an_event_above_the_cutoff(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let tenant_id = Some(user(1).tenant.id);
    let events: Vec<_> = (1..=4).map(|n| event(n, tenant_id, Action::UserCreated)).collect();
    write(&fixture, &events.iter().collect::<Vec<_>>()).await;
    let mut outside = fixture.outside().await;
    let mut forbidden = vec!["UPDATE audit_events SET count = 2", "DELETE FROM audit_events"];
    match engine {
        Engine::Postgres => forbidden.extend([
            "TRUNCATE audit_events",
            "INSERT INTO audit_events SELECT * FROM audit_events LIMIT 1 ON CONFLICT (tenant_id, id) DO UPDATE SET count = 2",
        ]),
        Engine::Sqlite => forbidden.extend([
            "REPLACE INTO audit_events SELECT * FROM audit_events LIMIT 1",
            "INSERT INTO audit_events SELECT * FROM audit_events LIMIT 1 ON CONFLICT DO UPDATE SET count = 2",
        ]),
    }
    for sql in &forbidden {
        assert!(outside.try_run(sql).await.is_err(), "{sql}");
    }
    let mut tx = fixture.begin().await;
    assert!(audit::delete_before(&mut tx, at(0), at(3), 10).await.is_err(), "no cutoff was recorded");
    drop(tx);

    let mut tx = fixture.begin().await;
    audit::insert_cutoff(&mut tx, at(3), at(9)).await.unwrap();
    assert_eq!(audit::find_oldest(&mut tx, at(0)).await.unwrap(), Some(at(1)));
    assert_eq!(audit::find_oldest(&mut tx, at(2)).await.unwrap(), Some(at(2)));
    assert_eq!(audit::find_oldest(&mut tx, at(5)).await.unwrap(), None);
    assert!(audit::lock_cutoff(&mut tx, at(3)).await.unwrap());
    assert!(!audit::lock_cutoff(&mut tx, at(2)).await.unwrap(), "no such cutoff was recorded");
    assert_eq!(audit::delete_before(&mut tx, at(2), at(2), 10).await.unwrap(), 0);
    assert_eq!(audit::delete_before(&mut tx, at(0), at(3), 1).await.unwrap(), 1);
    assert_eq!(audit::delete_before(&mut tx, at(0), at(3), 10).await.unwrap(), 1);
    assert_eq!(audit::delete_before(&mut tx, at(0), at(3), 10).await.unwrap(), 0);
    tx.commit().await.unwrap();
    for sql in &forbidden {
        assert!(outside.try_run(sql).await.is_err(), "{sql}");
    }
    let filter = EventFilter { tenant_id, ..EventFilter::default() };
    assert_eq!(list(&fixture, &filter, None).await, logged(&[&events[3], &events[2]]));
}

async fn a_cutoff_lies_in_the_past_and_stays(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut tx = fixture.begin().await;
    let late = at(9).plus(Duration::from_micros(1));
    assert!(audit::insert_cutoff(&mut tx, late, at(9)).await.is_err());
    drop(tx);
    let mut tx = fixture.begin().await;
    audit::insert_cutoff(&mut tx, at(9), at(9)).await.unwrap();
    audit::insert_cutoff(&mut tx, at(9), at(10)).await.unwrap();
    tx.commit().await.unwrap();
    let mut outside = fixture.outside().await;
    for sql in ["UPDATE audit_cutoffs SET recorded_at = cutoff", "DELETE FROM audit_cutoffs"] {
        assert!(outside.try_run(sql).await.is_err(), "{sql}");
    }
    assert_eq!(outside.count("audit_cutoffs").await, 1);
}

async fn an_event_of_another_version_is_read_in_its_words(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let [before, after] = [1, 3].map(|n| event(n, None, Action::AuditPruned));
    write(&fixture, &[&before, &after]).await;
    let id = AuditEventId::generate(at(2)).as_uuid();
    let changes = r#"[{"field":"quota","before":1}]"#;
    let (of_nobody, id_value, time) = match engine {
        Engine::Postgres => {
            let time = format!("to_timestamp({}::numeric / 1000000)", at(2).as_unix_micros());
            (format!("'{}'", Uuid::nil()), format!("'{id}'"), time)
        }
        Engine::Sqlite => {
            let time = at(2).as_unix_micros().to_string();
            (format!("X'{}'", Uuid::nil().as_simple()), format!("X'{}'", id.as_simple()), time)
        }
    };
    let mut outside = fixture.outside().await;
    outside.without_word_checks().await;
    outside
        .run(&format!(
            "INSERT INTO audit_events (tenant_id, id, occurred_at, actor_kind, actor_name, action, target_kind,
                 target_id, changes, reason, count)
             VALUES ({of_nobody}, {id_value}, {time}, 'robot', 'R2', 'user.merged', 'group', {id_value},
                 '{changes}', 'policy', 1)"
        ))
        .await;
    let told = list(&fixture, &EventFilter::default(), None).await;
    let [last, unknown, first] = &told[..] else { panic!("{told:?}") };
    assert_eq!([first, last], [&before.into(), &after.into()]);
    let expected = LoggedEvent {
        id: id.into(),
        tenant_id: None,
        occurred_at: at(2),
        actor_kind: "robot".to_owned(),
        actor_id: None,
        actor_name: Some("R2".to_owned()),
        action: "user.merged".to_owned(),
        target_kind: Some("group".to_owned()),
        target_id: Some(id.to_string()),
        changes: vec![FieldChange::set("changes", changes)],
        reason: Some("policy".to_owned()),
        origin: AuditOrigin::default(),
        count: 1,
    };
    assert_eq!(*unknown, expected);
}

async fn events_of_one_moment_are_listed_in_the_order_in_which_they_were_written(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let events: Vec<_> = (0..50).map(|_| event(1, None, Action::LoginFailed)).collect();
    let (one, all) = events.split_at(1);
    write(&fixture, &[&one[0]]).await;
    let mut tx = fixture.begin().await;
    audit::insert_all(&mut tx, all).await.unwrap();
    tx.commit().await.unwrap();
    let told = list(&fixture, &EventFilter::default(), None).await;
    assert_eq!(told, logged(&events.iter().rev().collect::<Vec<_>>()));
}
