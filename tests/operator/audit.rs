//! `identity audit`, and what other commands leave there.

use std::time::Duration;

use identity::domain::{Action, Actor, AuditEvent, Clock as _, FieldChange, SystemClock, TenantId};
use identity::storage;

use crate::shell::{OPERATOR, Shell, actor, events, storage};
use crate::support::service::{Engine, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    old_events_are_pruned_and_that_is_an_event_itself,
    tokens_of_services_are_made_and_revoked_by_somebody,
    signing_keys_are_changed_by_somebody,
    an_operator_has_the_name_of_his_account_if_it_has_one,
);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// More than is deleted at once.
const OLD: u32 = 1_001;

async fn old_events_are_pruned_and_that_is_an_event_itself(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let now = SystemClock.now();
    let tenant = TenantId::generate(now);
    let event = |tenant, age| AuditEvent::new(now.minus(age), tenant, Actor::System, Action::LoginFailed);
    let young = event(Some(tenant), 89 * DAY);
    let mut tx = storage(&database).begin("fill").await.unwrap();
    for n in 0..OLD {
        let old = event((n % 2 == 0).then_some(tenant), 91 * DAY + Duration::from_secs(n.into()));
        storage::audit::insert(&mut tx, &old).await.unwrap();
    }
    storage::audit::insert(&mut tx, &young).await.unwrap();
    tx.commit().await.unwrap();

    let pruned = shell.run("audit prune --older-than 90d --yes").await.json();
    assert_eq!(pruned["deleted"], OLD);
    assert_eq!(events(&database, Some(&tenant.to_string())).await, [young.into()]);
    let [recorded] = &events(&database, None).await[..] else { panic!("one event") };
    assert_eq!(recorded.action, "audit.pruned");
    assert_eq!(actor(recorded), ("operator", Some(OPERATOR)));
    let [cutoff, number] = &recorded.changes[..] else { panic!("{recorded:?}") };
    assert_eq!(*number, FieldChange::set("events_deleted", OLD.to_string()));
    let shown = cutoff.after.as_ref().unwrap().trim_end_matches('Z');
    assert!(cutoff.field == "cutoff" && pruned["cutoff"].as_str().unwrap().starts_with(shown), "{cutoff:?}");

    let listed = shell.run("audit list").await.json();
    assert_eq!(listed[0]["id"], recorded.id.to_string());
    assert_eq!((&listed[0]["action"], &listed[0]["actor_name"]), (&"audit.pruned".into(), &OPERATOR.into()));
    assert_eq!((&listed[0]["tenant_id"], &listed[0]["count"]), (&().into(), &1.into()));

    // Nothing is left to delete.
    assert_eq!(shell.run("audit prune --older-than 90d --yes").await.json()["deleted"], 0);
    assert_eq!(events(&database, None).await.len(), 2);
}

async fn tokens_of_services_are_made_and_revoked_by_somebody(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let create = "service-token create --name billing --allow GetUser --allow Login --expires never";
    let made = shell.run(create).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let [created] = &events(&database, None).await[..] else { panic!("one event") };
    assert_eq!(created.action, "service_token.created");
    let methods = "identity.v1.IdentityService/GetUser identity.v1.IdentityService/Login";
    let changes = [FieldChange::set("name", "billing"), FieldChange::set("allowed", methods)];
    assert_eq!(created.changes, changes);
    let id = created.target_id.as_deref().unwrap();

    for code in [Some(0), Some(1)] {
        assert_eq!(shell.run(&format!("service-token revoke {id}")).await.code, code);
    }
    let [_, revoked] = &events(&database, None).await[..] else { panic!("two events") };
    assert_eq!((&*revoked.action, &revoked.target_id), ("service_token.revoked", &created.target_id));
    assert_eq!(revoked.target_kind.as_deref(), Some("service_token"));
    assert_eq!(revoked.changes, [FieldChange::removed("name", "billing")]);
    assert_eq!([actor(created), actor(revoked)], [("operator", Some(OPERATOR)); 2]);
    shell.run("service-token create --name billing --allow NoSuch").await.refused(64);
}

async fn signing_keys_are_changed_by_somebody(engine: Engine) {
    let service = TestService::start(engine).await;
    let database = &service.database;
    let mut shell = Shell::at(database);
    let mut told = 0;
    let mut fresh = async || {
        let all = events(database, None).await;
        let some = all[told..].iter().map(|event| format!("{} by {}", event.action, event.actor_kind));
        let some: Vec<_> = some.collect();
        told = all.len();
        (some, all.last().unwrap().target_id.clone())
    };
    let (made, first) = fresh().await;
    assert_eq!(made, ["signing_key.created by system"]);
    let first = first.unwrap();

    assert_eq!(shell.run("keys rotate").await.code, Some(0));
    assert_eq!(fresh().await.0, ["signing_key.created by operator"]);
    assert_eq!(shell.run("keys rotate").await.code, Some(1));
    assert_eq!(shell.run("keys rotate --now").await.code, Some(0));
    assert_eq!(fresh().await.0, ["signing_key.advanced by operator"]);
    let arguments = ["keys", "retire", &first];
    assert_eq!(shell.run_with(&arguments, "").await.code, Some(0));
    let retired = vec!["signing_key.retired by operator".to_owned()];
    assert_eq!(fresh().await, (retired, Some(first)));

    let (_, old) = shell.variables.iter().find(|(name, _)| *name == "IDENTITY_MASTER_KEY").unwrap().clone();
    shell.variables.push(("IDENTITY_MASTER_KEY_PREVIOUS", old));
    let new = shell.run("keys master").await.out;
    shell.variables.push(("IDENTITY_MASTER_KEY", new.trim().to_owned()));
    assert_eq!(shell.run("keys master --reseal").await.code, Some(0));
    let resealed = vec!["signing_key.resealed by operator".to_owned()];
    assert_eq!(fresh().await, (resealed, None));
    // Those that are already stay as they are, which is no event.
    assert_eq!(shell.run("keys master --reseal").await.code, Some(0));
    assert_eq!(fresh().await.0, [""; 0]);
}

async fn an_operator_has_the_name_of_his_account_if_it_has_one(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut shell = Shell::at(&database);
    for (variables, name) in [
        ([("USER", "grace"), ("LOGNAME", "ada")], Some("grace")),
        ([("USER", ""), ("LOGNAME", "ada")], Some("ada")),
        ([("USER", ""), ("LOGNAME", "")], None),
    ] {
        shell.variables.extend(variables.map(|(variable, value)| (variable, value.to_owned())));
        let tenant = shell.tenant("Analytical Engines").await;
        let [created] = &events(&database, Some(&tenant)).await[..] else { panic!("one event") };
        assert_eq!(actor(created), ("operator", name));
    }
}
