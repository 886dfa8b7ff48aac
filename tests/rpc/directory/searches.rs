//! Users who are found by their ids, many at once, or by their e-mail.

use identity::domain::SystemClock;
use identity::proto::v1::BatchGetUsersRequest;

use super::{Caller, Crowd, invalid, named, role_too_low, start, user_not_found};
use crate::fixture::{new_id, refusal, visible};
use crate::support::service::{Engine, on_both_databases};
use crate::world::{House, founder};
use identity::domain::Clock as _;

on_both_databases!(
    many_users_are_found_in_the_order_of_the_request,
    a_thousand_users_are_found_at_once_and_no_more,
    a_service_finds_users_of_all_tenants_or_of_one,
    a_user_is_found_by_any_spelling_of_the_email,
    emails_of_other_tenants_belong_to_nobody,
);

async fn many_users_are_found_in_the_order_of_the_request(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let (absent, upper) = (new_id(), house.admin.id().to_uppercase());
    let asked = [
        house.member.id(),
        &absent,
        house.owner.id(),
        elsewhere.owner.id(),
        &upper,
        house.member.id(),
        elsewhere.member.id(),
        house.admin.id(),
    ];
    let expected = [&house.member, &house.owner, &house.admin].map(|person| person.user.clone());
    for person in house.people() {
        assert_eq!(Caller::user(&client, person).batch(&asked).await.unwrap(), expected);
    }
    let member = Caller::user(&client, &house.member);
    assert_eq!(member.batch(&[elsewhere.owner.id(), &absent]).await.unwrap(), []);
    // Whoever names another tenant finds nobody in it, nor in his own.
    for tenant_id in [&elsewhere.tenant.id, &absent] {
        let user_ids = vec![house.member.id().into(), elsewhere.member.id().into()];
        let message = BatchGetUsersRequest { user_ids, tenant_id: tenant_id.clone() };
        let found = client.directory.clone().batch_get_users(member.request(message)).await.unwrap();
        assert_eq!(found.into_inner().users, []);
    }
}

async fn a_thousand_users_are_found_at_once_and_no_more(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let crowd = Crowd::beside(&service, &owner).await;
    let users: Vec<_> =
        (0..1_000).map(|n| crowd.member(&format!("u{n}@example.com"), SystemClock.now())).collect();
    crowd.insert(&users).await;
    let mut ids: Vec<_> = users.iter().rev().map(|user| user.id.to_string()).collect();
    for caller in [Caller::user(&client, &owner), Caller::service(&service).await] {
        let asked: Vec<_> = ids.iter().map(String::as_str).collect();
        let found = caller.batch(&asked).await.unwrap();
        assert_eq!(found.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), asked);
        // One that is given twice counts once in the answer, and twice in the request.
        let doubled = [&asked[..], &asked[..1]].concat();
        assert_eq!(invalid(caller.batch(&doubled).await), named(&["user_ids"]));
        assert_eq!(invalid(caller.batch(&[]).await), named(&["user_ids"]));
    }
    ids[999] = "x".to_owned();
    let asked: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(invalid(Caller::user(&client, &owner).batch(&asked).await), named(&["user_ids"]));
}

async fn a_service_finds_users_of_all_tenants_or_of_one(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let billing = Caller::service(&service).await;
    let [first, second] = [&elsewhere.member, &house.member];
    let found = billing.batch(&[first.id(), &new_id(), second.id()]).await.unwrap();
    assert_eq!(found, [first.user.clone(), second.user.clone()]);
    for (tenant_id, expected) in [(&house.tenant.id, vec![second.user.clone()]), (&new_id(), Vec::new())] {
        let user_ids = vec![first.id().into(), second.id().into()];
        let message = BatchGetUsersRequest { user_ids, tenant_id: tenant_id.clone() };
        let found = client.directory.clone().batch_get_users(billing.request(message)).await.unwrap();
        assert_eq!(found.into_inner().users, expected);
    }
}

async fn a_user_is_found_by_any_spelling_of_the_email(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let zoe = founder(&client, "Zo\u{eb}@B\u{fc}cher.example").await;
    for caller in [Caller::user(&client, &zoe), Caller::service(&service).await] {
        for email in [
            "Zo\u{eb}@B\u{fc}cher.example",
            "zoe\u{308}@b\u{fc}cher.example",
            "ZO\u{cb}@XN--BCHER-KVA.EXAMPLE",
        ] {
            assert_eq!(caller.find(email).await.unwrap(), zoe.user);
        }
        assert_eq!(refusal(caller.find("zoe@b\u{fc}cher.example").await), user_not_found());
        for bad in ["", "zo\u{eb}", "zo\u{eb}@", "%@example.com\0"] {
            assert_eq!(invalid(caller.find(bad).await), named(&["email"]));
        }
    }
}

async fn emails_of_other_tenants_belong_to_nobody(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    for person in [&house.owner, &house.admin] {
        let caller = Caller::user(&client, person);
        let foreign = caller.find(&elsewhere.member.user.email).await.unwrap_err();
        let absent = caller.find("nobody@example.com").await.unwrap_err();
        assert_eq!(visible(&foreign), visible(&absent));
        assert_eq!(refusal::<()>(Err(absent)), user_not_found());
        assert_eq!(caller.find(&house.member.user.email).await.unwrap(), house.member.user);
    }
    let member = Caller::user(&client, &house.member);
    for email in [&elsewhere.member.user.email, &house.member.user.email] {
        assert_eq!(refusal(member.find(email).await), role_too_low());
    }
    let billing = Caller::service(&service).await;
    assert_eq!(billing.find(&elsewhere.member.user.email).await.unwrap(), elsewhere.member.user);
}
