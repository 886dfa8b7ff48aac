//! Changes that are made only while something is what the caller has seen.

use identity::proto::v1::{Role, User, UserState};

use super::{Caller, etag_stale, start};
use crate::fixture::refusal;
use crate::support::service::{Engine, PASSWORD, on_both_databases};
use crate::world::{House, create, is_in, log_in};

on_both_databases!(
    a_stale_etag_changes_nothing,
    the_current_etag_lets_a_change_pass,
    of_changes_at_once_with_one_etag_one_is_made,
);

fn names(id: &str, first_name: &str, etag: &str) -> User {
    User { id: id.into(), first_name: first_name.into(), etag: etag.into(), ..User::default() }
}

async fn a_stale_etag_changes_nothing(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let (old, old_tenant) = (house.member.user.etag.clone(), house.tenant.etag.clone());
    let owner = Caller::user(&client, &house.owner);
    let member = owner.rename(house.member.id(), "Newer").await.unwrap();
    let tenant = owner.update_tenant("", "Newer", "").await.unwrap();
    let padded = format!("{} ", member.etag);
    let weak = format!("W/{}", member.etag);
    let garbage = ["x", "*", "\"\"", "\"-1\"", "\0", padded.as_str(), &weak, "\"ffffffffffffffff\""];
    for caller in [owner.clone(), Caller::service(&service).await] {
        for etag in garbage.into_iter().chain([old.as_str()]) {
            let id = member.id.as_str();
            let results = [
                caller.update(names(id, "Newest", etag), &["first_name"]).await.map(drop),
                // What would change nothing is refused as well.
                caller.update(names(id, "Newer", etag), &["first_name"]).await.map(drop),
                caller.set_state(id, UserState::Disabled, etag).await.map(drop),
                caller.set_state(id, UserState::Active, etag).await.map(drop),
                caller.delete(id, etag).await,
            ];
            for result in results {
                assert_eq!(refusal(result), etag_stale(), "{etag:?}");
            }
        }
        for etag in garbage.into_iter().chain([old_tenant.as_str()]) {
            let renamed = caller.update_tenant(&house.tenant.id, "Newest", etag).await;
            assert_eq!(refusal(renamed), etag_stale(), "{etag:?}");
            assert_eq!(refusal(caller.delete_tenant(&house.tenant.id, etag).await), etag_stale(), "{etag:?}");
        }
    }
    assert_eq!(owner.get_tenant("").await.unwrap(), tenant);
    assert_eq!(owner.get(&member.id).await, Some(User { tenant: Some(tenant), ..member }));
    assert!(is_in(&service, &house.member).await);
}

async fn the_current_etag_lets_a_change_pass(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    for caller in [Caller::user(&client, &house.owner), Caller::service(&service).await] {
        let name = format!("{}x", caller.get(house.member.id()).await.unwrap().first_name);
        let user = caller.get(house.member.id()).await.unwrap();
        let user = caller.update(names(&user.id, &name, &user.etag), &["first_name"]).await.unwrap();
        let user = caller.set_state(&user.id, UserState::Disabled, &user.etag).await.unwrap();
        let user = caller.set_state(&user.id, UserState::Active, &user.etag).await.unwrap();
        let role = User { role: Role::Admin.into(), ..names(&user.id, "", &user.etag) };
        caller.update(role, &["role"]).await.unwrap();
        let other = create(&client, &house.owner, &format!("{name}@example.com"), Role::Member).await;
        caller.delete(&other.id, &other.etag).await.unwrap();
        assert_eq!(caller.get(&other.id).await, None);
        let tenant = caller.get_tenant(&house.tenant.id).await.unwrap();
        caller.update_tenant(&house.tenant.id, &name, &tenant.etag).await.unwrap();
    }
    // A login is no change of the user.
    let member = log_in(&client, &house.other_member.user.email, PASSWORD).await;
    assert_eq!(member.user.etag, house.other_member.user.etag);
    let owner = Caller::user(&client, &house.owner);
    let tenant = owner.get_tenant("").await.unwrap();
    owner.delete_tenant(&house.tenant.id, &tenant.etag).await.unwrap();
}

async fn of_changes_at_once_with_one_etag_one_is_made(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    for round in 0..10 {
        let before = owner.get(house.member.id()).await.unwrap();
        let tenant = owner.get_tenant("").await.unwrap();
        let calls: Vec<_> = (0..6)
            .map(|n| {
                let (caller, id, etag) = (owner.clone(), before.id.clone(), before.etag.clone());
                let (tenant_id, tenant_etag) = (tenant.id.clone(), tenant.etag.clone());
                let name = format!("Round{round}.{n}");
                tokio::spawn(async move {
                    let user = caller.update(names(&id, &name, &etag), &["first_name"]);
                    let tenant = caller.update_tenant(&tenant_id, &name, &tenant_etag);
                    tokio::join!(user, tenant)
                })
            })
            .collect();
        let (mut users, mut tenants) = (Vec::new(), Vec::new());
        for call in calls {
            let (user, tenant) = call.await.unwrap();
            match user {
                Ok(user) => users.push(user),
                Err(status) => assert_eq!(refusal::<()>(Err(status)), etag_stale()),
            }
            match tenant {
                Ok(tenant) => tenants.push(tenant),
                Err(status) => assert_eq!(refusal::<()>(Err(status)), etag_stale()),
            }
        }
        assert_eq!((users.len(), tenants.len()), (1, 1), "round {round}");
        assert_eq!(owner.get_tenant("").await.unwrap(), tenants[0]);
        assert_eq!(owner.get(&before.id).await.unwrap().first_name, users[0].first_name);
    }
}
