//! Users by their ids in other systems.

use identity::proto::v1::{
    AuditChange, CreateUserRequest, ListAuditEventsRequest, ListUsersRequest, Role, User,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{Caller, invalid, named, role_too_low, start, user_not_found};
use crate::database::census;
use crate::fixture::{new_id, refusal, refused, visible};
use crate::support::service::{Engine, on_both_databases};
use crate::world::{House, newcomer};

on_both_databases!(
    an_external_id_is_given_changed_and_taken_away,
    a_taken_external_id_is_told_and_nothing_is_written,
    of_many_who_want_one_external_id_one_gets_it,
    two_tenants_may_have_the_same_external_id,
    users_may_not_set_an_external_id,
    an_external_id_that_breaks_a_rule_is_refused,
    the_audit_log_tells_of_external_ids,
    a_user_is_found_by_the_external_id,
    external_ids_of_other_tenants_belong_to_nobody,
);

/// A new user of the house, with that external id.
fn from_elsewhere(house: &House, external_id: &str) -> CreateUserRequest {
    CreateUserRequest {
        tenant_id: house.tenant.id.clone(),
        external_id: external_id.to_owned(),
        ..newcomer(&format!("{}@example.com", new_id()), Role::Member)
    }
}

async fn set_external_id(caller: &Caller, id: &str, external_id: &str) -> Result<User, Status> {
    let user = User { id: id.to_owned(), external_id: external_id.to_owned(), ..User::default() };
    caller.update(user, &["external_id"]).await
}

fn external_id_taken() -> (Code, String) {
    refused(Code::AlreadyExists, "EXTERNAL_ID_TAKEN")
}

async fn an_external_id_is_given_changed_and_taken_away(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let user = billing.create(from_elsewhere(&house, "Zoe\u{308} / 7")).await.unwrap();
    assert_eq!(user.external_id, "Zo\u{eb} / 7");
    // Everybody who sees the user sees it.
    for caller in [billing.clone(), Caller::user(&client, &house.owner), Caller::user(&client, &house.member)]
    {
        assert_eq!(caller.get(&user.id).await, Some(user.clone()));
        let list = ListUsersRequest { tenant_id: house.tenant.id.clone(), ..ListUsersRequest::default() };
        assert!(caller.list(list).await.unwrap().users.contains(&user));
    }
    assert_eq!(billing.find(&user.email).await.unwrap(), user);

    // Who has one already, and who had none.
    for id in [user.id.as_str(), house.member.id()] {
        let before = billing.get(id).await.unwrap();
        let changed = set_external_id(&billing, id, &format!("new {id}")).await.unwrap();
        assert_eq!(changed.external_id, format!("new {id}"));
        assert_ne!(changed.etag, before.etag);
        // A change of something else leaves it as it is.
        let renamed = billing.rename(id, "Renamed").await.unwrap();
        assert_eq!(renamed.external_id, changed.external_id);
        let cleared = set_external_id(&billing, id, "").await.unwrap();
        assert_eq!(cleared.external_id, "");
        assert_eq!(billing.get(id).await, Some(cleared));
    }
}

async fn a_taken_external_id_is_told_and_nothing_is_written(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let first = billing.create(from_elsewhere(&house, "zo\u{eb}")).await.unwrap();
    let before = census(&service.database);
    let member = billing.get(house.member.id()).await;
    for taken in ["zo\u{eb}", "zoe\u{308}"] {
        assert_eq!(refusal(billing.create(from_elsewhere(&house, taken)).await), external_id_taken());
        let result = set_external_id(&billing, house.member.id(), taken).await;
        assert_eq!(refusal(result), external_id_taken());
    }
    assert_eq!(billing.get(house.member.id()).await, member);
    assert_eq!(census(&service.database), before);
    // One's own is no other's, and another case is another id.
    set_external_id(&billing, &first.id, "zo\u{eb}").await.unwrap();
    set_external_id(&billing, house.member.id(), "Zo\u{eb}").await.unwrap();

    // It is free once its user has another one, or is deleted.
    set_external_id(&billing, &first.id, "other").await.unwrap();
    let second = billing.create(from_elsewhere(&house, "zo\u{eb}")).await.unwrap();
    billing.delete(&second.id, "").await.unwrap();
    set_external_id(&billing, &first.id, "zo\u{eb}").await.unwrap();
}

async fn of_many_who_want_one_external_id_one_gets_it(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    for round in 0..3 {
        let wanted = format!("wanted {round}");
        let mut wanting = JoinSet::new();
        for person in [&house.owner, &house.admin, &house.member, &house.other_member] {
            let (caller, newcomer) = (billing.clone(), from_elsewhere(&house, &wanted));
            wanting.spawn(async move { caller.create(newcomer).await });
            let (caller, id, wanted) = (billing.clone(), person.id().to_owned(), wanted.clone());
            wanting.spawn(async move { set_external_id(&caller, &id, &wanted).await });
        }
        let results = wanting.join_all().await;
        let (got, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((got.len(), refused.len()), (1, 7), "round {round}");
        for result in refused {
            assert_eq!(refusal(result), external_id_taken(), "round {round}");
        }
    }
}

async fn two_tenants_may_have_the_same_external_id(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let billing = Caller::service(&service).await;
    let one = billing.create(from_elsewhere(&house, "7")).await.unwrap();
    let other = billing.create(from_elsewhere(&elsewhere, "7")).await.unwrap();
    assert_eq!(one.external_id, other.external_id);
    assert_ne!(one.id, other.id);
}

async fn users_may_not_set_an_external_id(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let before = census(&service.database);
    for person in [&house.owner, &house.admin] {
        let caller = Caller::user(&client, person);
        assert_eq!(invalid(caller.create(from_elsewhere(&house, "7")).await), named(&["external_id"]));
    }
    for person in [&house.owner, &house.admin, &house.member] {
        let caller = Caller::user(&client, person);
        for external_id in ["7", ""] {
            let result = set_external_id(&caller, house.member.id(), external_id).await;
            assert_eq!(invalid(result), named(&["user.external_id"]));
        }
    }
    assert_eq!(census(&service.database), before);
    let billing = Caller::service(&service).await;
    assert_eq!(billing.get(house.member.id()).await, Some(house.member.user.clone()));
}

async fn an_external_id_that_breaks_a_rule_is_refused(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    for bad in
        ["x".repeat(256), " 7".into(), "7\u{3000}".into(), "7\n7".into(), "\0".into(), "\u{200b}".into()]
    {
        let created = billing.create(from_elsewhere(&house, &bad)).await;
        assert_eq!(invalid(created), named(&["external_id"]), "{bad:?}");
        let changed = set_external_id(&billing, house.member.id(), &bad).await;
        assert_eq!(invalid(changed), named(&["user.external_id"]), "{bad:?}");
    }
    let longest = "\u{1f980}".repeat(255);
    assert_eq!(billing.create(from_elsewhere(&house, &longest)).await.unwrap().external_id, longest);
}

async fn the_audit_log_tells_of_external_ids(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let user = billing.create(from_elsewhere(&house, "7")).await.unwrap();
    set_external_id(&billing, &user.id, "8").await.unwrap();
    set_external_id(&billing, &user.id, "8").await.unwrap();
    set_external_id(&billing, &user.id, "").await.unwrap();
    set_external_id(&billing, &user.id, "9").await.unwrap();
    billing.delete(&user.id, "").await.unwrap();

    let message = ListAuditEventsRequest { tenant_id: house.tenant.id.clone(), ..Default::default() };
    let listed = client.audit.clone().list_audit_events(billing.request(message)).await.unwrap();
    let events = listed.into_inner().events;
    let told: Vec<_> = events
        .into_iter()
        .rev()
        .flat_map(|event| event.changes.into_iter().map(move |change| (event.action.clone(), change)))
        .filter(|(_, change)| change.field == "external_id")
        .collect();
    let change = |action: &str, before: Option<&str>, after: Option<&str>| {
        let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
        (action.to_owned(), AuditChange { field: "external_id".to_owned(), before, after })
    };
    let expected = [
        change("user.created", None, Some("7")),
        change("user.updated", Some("7"), Some("8")),
        change("user.updated", Some("8"), None),
        change("user.updated", None, Some("9")),
        change("user.deleted", Some("9"), None),
    ];
    assert_eq!(told, expected);
}

async fn a_user_is_found_by_the_external_id(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let user = billing.create(from_elsewhere(&house, "Zo\u{eb} 7")).await.unwrap();
    let tenant_id = house.tenant.id.as_str();
    for external_id in ["Zo\u{eb} 7", "Zoe\u{308} 7"] {
        assert_eq!(billing.find_external(tenant_id, external_id).await.unwrap(), user);
        for person in [&house.owner, &house.admin] {
            let caller = Caller::user(&client, person);
            for tenant_id in [tenant_id, ""] {
                assert_eq!(caller.find_external(tenant_id, external_id).await.unwrap(), user);
            }
        }
    }
    for absent in ["zo\u{eb} 7", "Zo\u{eb}", "7", &user.id] {
        assert_eq!(refusal(billing.find_external(tenant_id, absent).await), user_not_found(), "{absent}");
    }
    // A service has to say whose it is.
    assert_eq!(invalid(billing.find_external("", "Zo\u{eb} 7").await), named(&["tenant_id"]));
    let member = Caller::user(&client, &house.member);
    assert_eq!(refusal(member.find_external(tenant_id, "Zo\u{eb} 7").await), role_too_low());

    set_external_id(&billing, &user.id, "").await.unwrap();
    assert_eq!(refusal(billing.find_external(tenant_id, "Zo\u{eb} 7").await), user_not_found());
}

async fn external_ids_of_other_tenants_belong_to_nobody(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let billing = Caller::service(&service).await;
    let ours = billing.create(from_elsewhere(&house, "7")).await.unwrap();
    let theirs = billing.create(from_elsewhere(&elsewhere, "7")).await.unwrap();
    billing.create(from_elsewhere(&elsewhere, "8")).await.unwrap();
    for person in [&house.owner, &house.admin] {
        let caller = Caller::user(&client, person);
        assert_eq!(caller.find_external("", "7").await.unwrap(), ours);
        let absent = caller.find_external("", "9").await.unwrap_err();
        for (tenant_id, external_id) in [("", "8"), (&*elsewhere.tenant.id, "7"), (&*new_id(), "7")] {
            let foreign = caller.find_external(tenant_id, external_id).await.unwrap_err();
            assert_eq!(visible(&foreign), visible(&absent), "{external_id}");
        }
        assert_eq!(refusal::<()>(Err(absent)), user_not_found());
    }
    assert_eq!(billing.find_external(&house.tenant.id, "7").await.unwrap(), ours);
    assert_eq!(billing.find_external(&elsewhere.tenant.id, "7").await.unwrap(), theirs);
    assert_eq!(refusal(billing.find_external(&new_id(), "7").await), user_not_found());
}
