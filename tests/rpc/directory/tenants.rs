//! Tenants: found, renamed, listed, and deleted with all that is theirs.

use identity::proto::v1::{ListTenantsRequest, Tenant};
use tonic::Code;

use super::{Caller, assert_refused_by_every_rpc, invalid, login_failed, named, role_too_low, start};
use crate::database::{census, census_becomes};
use crate::fixture::{new_id, refusal, refused, visible};
use crate::support::service::{Engine, PASSWORD, on_both_databases, registration};
use crate::world::{House, Person, founder, is_in};

on_both_databases!(
    everybody_finds_his_tenant_and_no_other,
    owners_rename_their_tenant,
    a_tenant_is_deleted_with_all_that_is_its,
    a_tenant_is_deleted_whatever_its_users_do_meanwhile,
    all_tenants_are_listed_page_by_page,
    only_services_list_tenants,
);

const NEW_PASSWORD: &str = "battery staple horse";

fn tenant_not_found() -> (Code, String) {
    refused(Code::NotFound, "TENANT_NOT_FOUND")
}

async fn everybody_finds_his_tenant_and_no_other(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    for person in house.people() {
        let caller = Caller::user(&client, person);
        for tenant_id in ["", house.tenant.id.as_str(), &house.tenant.id.to_uppercase()] {
            assert_eq!(caller.get_tenant(tenant_id).await.unwrap(), house.tenant);
        }
        let foreign = caller.get_tenant(&elsewhere.tenant.id).await.unwrap_err();
        let unknown = caller.get_tenant(&new_id()).await.unwrap_err();
        assert_eq!(visible(&foreign), visible(&unknown));
        assert_eq!(refusal::<()>(Err(unknown)), tenant_not_found());
    }
    let billing = Caller::service(&service).await;
    assert_eq!(billing.get_tenant(&elsewhere.tenant.id).await.unwrap(), elsewhere.tenant);
    assert_eq!(refusal(billing.get_tenant(&new_id()).await), tenant_not_found());
    assert_eq!(invalid(billing.get_tenant("").await), named(&["tenant_id"]));
}

async fn owners_rename_their_tenant(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let owner = Caller::user(&client, &house.owner);
    let billing = Caller::service(&service).await;
    let mut before = house.tenant.clone();
    for (caller, tenant_id, name) in [
        (&owner, "", "First"),
        (&owner, house.tenant.id.as_str(), "Second"),
        (&billing, &house.tenant.id, "Third"),
    ] {
        let renamed = caller.update_tenant(tenant_id, &format!(" {name} "), "").await.unwrap();
        let expected = Tenant {
            name: name.into(),
            etag: renamed.etag.clone(),
            updated_at: renamed.updated_at,
            ..before.clone()
        };
        assert_eq!(renamed, expected);
        assert_ne!(renamed.etag, before.etag);
        // The same name again changes nothing.
        assert_eq!(caller.update_tenant(tenant_id, name, "").await.unwrap(), renamed);
        assert_eq!(owner.get_tenant("").await.unwrap(), renamed);
        assert_eq!(owner.get(house.member.id()).await.unwrap().tenant, Some(renamed.clone()));
        before = renamed;
    }
    assert_eq!(invalid(billing.update_tenant("", "New", "").await), named(&["tenant.id"]));
    assert_eq!(refusal(billing.update_tenant(&new_id(), "New", "").await), tenant_not_found());
    let foreign = owner.update_tenant(&elsewhere.tenant.id, "New", "").await.unwrap_err();
    let unknown = owner.update_tenant(&new_id(), "New", "").await.unwrap_err();
    assert_eq!(visible(&foreign), visible(&unknown));
    for person in [&house.admin, &house.member] {
        let caller = Caller::user(&client, person);
        assert_eq!(refusal(caller.update_tenant("", "New", "").await), role_too_low());
        assert_eq!(refusal(caller.delete_tenant(&house.tenant.id, "").await), role_too_low());
    }
    assert_eq!(owner.get_tenant("").await.unwrap(), before);
    assert_eq!(billing.get_tenant(&elsewhere.tenant.id).await.unwrap(), elsewhere.tenant);
    assert!(house.people().len() == 5 && is_in(&service, &house.member).await);
}

async fn a_tenant_is_deleted_with_all_that_is_its(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let elsewhere = House::build(&client).await;
    let before = census(&service.database);
    let billing = Caller::service(&service).await;
    for by_service in [false, true] {
        let house = House::build(&client).await;
        let caller = if by_service { billing.clone() } else { Caller::user(&client, &house.owner) };
        assert_eq!(invalid(caller.delete_tenant("", "").await), named(&["tenant_id"]));
        if !by_service {
            let foreign = caller.delete_tenant(&elsewhere.tenant.id, "").await.unwrap_err();
            let unknown = caller.delete_tenant(&new_id(), "").await.unwrap_err();
            assert_eq!(visible(&foreign), visible(&unknown));
        }
        caller.delete_tenant(&house.tenant.id, "").await.unwrap();
        for person in house.people() {
            assert_refused_by_every_rpc(&client, person).await;
            assert!(client.refresh(&person.refresh_token).await.is_err());
            let login = client.login(&person.user.email, PASSWORD).await;
            assert_eq!(refusal(login), login_failed());
        }
        assert_eq!(refusal(billing.delete_tenant(&house.tenant.id, "").await), tenant_not_found());
        assert_eq!(refusal(billing.get_tenant(&house.tenant.id).await), tenant_not_found());
        for person in [&house.owner, &house.member] {
            let again = client.register(registration(&person.user.email)).await.unwrap().user.unwrap();
            billing.delete_tenant(&again.tenant_id, "").await.unwrap();
        }
    }
    census_becomes(&service.database, before).await;
    for person in elsewhere.people() {
        assert!(is_in(&service, person).await);
    }
}

async fn a_tenant_is_deleted_whatever_its_users_do_meanwhile(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let before = census(&service.database);
    let billing = Caller::service(&service).await;
    for round in 0..30 {
        let house = House::build(&client).await;
        let people = house.people().map(Person::clone);
        let calls: Vec<_> = people
            .into_iter()
            .map(|person| {
                let client = service.client();
                tokio::spawn(async move {
                    let changed = client.change_password(&person.access_token, PASSWORD, NEW_PASSWORD).await;
                    let login = client.login(&person.user.email, NEW_PASSWORD).await.map(drop);
                    let refreshed = client.refresh(&person.refresh_token).await.map(drop);
                    [changed, login, refreshed]
                })
            })
            .collect();
        billing.delete_tenant(&house.tenant.id, "").await.unwrap();
        for call in calls {
            for status in call.await.unwrap().into_iter().filter_map(Result::err) {
                assert_eq!(status.code(), Code::Unauthenticated, "round {round}: {status:?}");
            }
        }
    }
    census_becomes(&service.database, before).await;
}

async fn all_tenants_are_listed_page_by_page(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let mut expected = Vec::new();
    for n in 0..11 {
        let Person { user, .. } = founder(&client, &format!("ada{n}@example.com")).await;
        expected.insert(0, user.tenant.unwrap());
    }
    let billing = Caller::service(&service).await;
    let all =
        billing.list_tenants(ListTenantsRequest { count_total: true, ..Default::default() }).await.unwrap();
    assert_eq!((all.tenants.as_slice(), all.total_size), (expected.as_slice(), 11));
    assert_eq!(all.next_page_token, "");
    for page_size in [1, 2, 3, 10, 11, 12, i32::MAX] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let message = ListTenantsRequest { page_size, page_token, count_total: false };
            let page = billing.list_tenants(message).await.unwrap();
            assert_eq!(page.total_size, 0);
            listed.extend(page.tenants);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, expected, "in pages of {page_size}");
    }
    // Who comes or goes between two pages moves nobody.
    let of = |page_size, page_token| ListTenantsRequest { page_size, page_token, count_total: true };
    let first = billing.list_tenants(of(4, String::new())).await.unwrap();
    founder(&client, "eve@example.com").await;
    billing.delete_tenant(&first.tenants[3].id, "").await.unwrap();
    billing.delete_tenant(&expected[5].id, "").await.unwrap();
    let rest = billing.list_tenants(of(1_000, first.next_page_token.clone())).await.unwrap();
    let mut left = expected[4..].to_vec();
    left.remove(1);
    assert_eq!((rest.tenants, rest.total_size), (left, 10));
    for page_size in [-1, i32::MIN] {
        assert_eq!(invalid(billing.list_tenants(of(page_size, String::new())).await), named(&["page_size"]));
    }
    for token in ["x", &first.next_page_token[1..]] {
        assert_eq!(invalid(billing.list_tenants(of(1, token.to_owned())).await), named(&["page_token"]));
    }
}

async fn only_services_list_tenants(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    for person in house.people() {
        for page_size in [0, -1] {
            let message = ListTenantsRequest { page_size, ..ListTenantsRequest::default() };
            let result = Caller::user(&client, person).list_tenants(message).await;
            assert_eq!(refusal(result), refused(Code::PermissionDenied, "PERMISSION_DENIED"));
        }
    }
}
