//! Every tenant has an active owner, whatever anybody does.

use identity::proto::v1::{Role, UserState};
use tonic::Status;

use super::{Caller, last_owner, role_too_low, start};
use crate::database::values;
use crate::fixture::{new_id, refusal};
use crate::support::service::{Engine, TestService, on_both_databases};
use crate::world::{House, founder, hire, is_in};

on_both_databases!(
    the_last_owner_stays,
    a_disabled_owner_does_not_count,
    two_owners_who_remove_each_other_at_once_leave_one,
    all_owners_who_leave_at_once_leave_one,
);

const METHODS: [&str; 3] = ["demote", "disable", "delete"];

async fn remove(caller: &Caller, method: &str, id: &str) -> Result<(), Status> {
    match method {
        "demote" => caller.set_role(id, Role::Admin).await.map(drop),
        "disable" => caller.set_state(id, UserState::Disabled, "").await.map(drop),
        _ => caller.delete(id, "").await,
    }
}

fn active_owners(service: &TestService, tenant_name: &str) -> usize {
    let sql = format!(
        "SELECT u.email AS value FROM users u JOIN tenants t ON t.id = u.tenant_id \
         WHERE t.name = '{tenant_name}' AND u.role = 'owner' AND u.state = 'active'"
    );
    values(&service.database, &sql).len()
}

async fn the_last_owner_stays(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let owner = Caller::user(&client, &house.owner);
    owner.delete(house.second_owner.id(), "").await.unwrap();
    let id = house.owner.id();
    for method in METHODS {
        for caller in [&owner, &billing] {
            assert_eq!(refusal(remove(caller, method, id).await), last_owner(), "{method}");
            let member = caller.set_role(id, Role::Member).await;
            assert_eq!(refusal(member), last_owner());
        }
        let admin = Caller::user(&client, &house.admin);
        assert_eq!(refusal(remove(&admin, method, id).await), role_too_low(), "{method}");
    }
    assert_eq!(owner.get(id).await.as_ref(), Some(&house.owner.user));
    assert!(is_in(&service, &house.owner).await);
    // Everything else may be done to him.
    assert_eq!(owner.set_role(id, Role::Owner).await.unwrap(), house.owner.user);
    owner.rename(id, "Last").await.unwrap();
    owner.set_email(id, &format!("{}@example.com", new_id())).await.unwrap();
    // And with a second one, anything.
    owner.set_role(house.admin.id(), Role::Owner).await.unwrap();
    owner.set_role(id, Role::Member).await.unwrap();
    assert_eq!(refusal(billing.delete(house.admin.id(), "").await), last_owner());
}

async fn a_disabled_owner_does_not_count(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let owner = Caller::user(&client, &house.owner);
    owner.set_state(house.second_owner.id(), UserState::Disabled, "").await.unwrap();
    for method in METHODS {
        assert_eq!(refusal(remove(&owner, method, house.owner.id()).await), last_owner(), "{method}");
        assert_eq!(refusal(remove(&billing, method, house.owner.id()).await), last_owner(), "{method}");
    }
    // He himself is not the last one, whatever happens to him.
    billing.set_role(house.second_owner.id(), Role::Member).await.unwrap();
    billing.set_role(house.second_owner.id(), Role::Owner).await.unwrap();
    assert_eq!(refusal(billing.delete(house.owner.id(), "").await), last_owner());
    billing.set_state(house.second_owner.id(), UserState::Active, "").await.unwrap();
    billing.delete(house.owner.id(), "").await.unwrap();
    assert_eq!(refusal(billing.delete(house.second_owner.id(), "").await), last_owner());
}

async fn two_owners_who_remove_each_other_at_once_leave_one(engine: Engine) {
    let service = start(engine).await;
    let (client, other_client) = (service.client(), service.client());
    for round in 0..4 {
        for (first, second) in METHODS.iter().flat_map(|first| METHODS.map(|second| (*first, second))) {
            let email = format!("{}@example.com", new_id());
            let one = founder(&client, &email).await;
            let other = hire(&client, &one, &format!("{}@example.com", new_id()), Role::Owner).await;
            let (by_one, by_other) = (Caller::user(&client, &one), Caller::user(&other_client, &other));
            let results =
                tokio::join!(remove(&by_one, first, other.id()), remove(&by_other, second, one.id()));
            let about = format!("{first} against {second} in round {round}: {results:?}");
            assert!(results.0.is_ok() != results.1.is_ok(), "{about}");
            assert_eq!(active_owners(&service, &format!("{email}''s")), 1, "{about}");
            let refusal = refusal(results.0.and(results.1));
            let lost = ["LAST_OWNER", "TOKEN_INVALID", "ROLE_TOO_LOW"];
            assert!(lost.contains(&refusal.1.as_str()), "{about}");
        }
    }
}

async fn all_owners_who_leave_at_once_leave_one(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    for method in METHODS {
        let email = format!("{}@example.com", new_id());
        let first = founder(&client, &email).await;
        let mut owners = vec![first.clone()];
        for _ in 0..4 {
            owners.push(hire(&client, &first, &format!("{}@example.com", new_id()), Role::Owner).await);
        }
        let leaving = owners.iter().map(|owner| {
            let (caller, id) = (Caller::user(&client, owner), owner.id().to_owned());
            tokio::spawn(async move { remove(&caller, method, &id).await })
        });
        let leaving: Vec<_> = leaving.collect();
        let mut stayed = 0;
        for leaving in leaving {
            if let Err(status) = leaving.await.unwrap() {
                assert_eq!(refusal::<()>(Err(status)), last_owner(), "{method}");
                stayed += 1;
            }
        }
        assert_eq!((stayed, active_owners(&service, &format!("{email}''s"))), (1, 1), "{method}");
    }
}
