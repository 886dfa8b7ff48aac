//! Nobody grants, edits or removes a role above his own.

use identity::proto::v1::{CreateUserRequest, Role, User, UserState};

use super::{Caller, role_too_low, start};
use crate::fixture::{new_id, refusal};
use crate::support::service::{Client, Engine, PASSWORD, TestService, on_both_databases};
use crate::world::{House, newcomer};

on_both_databases!(
    nobody_touches_a_role_above_his_own,
    nobody_grants_a_role_above_his_own,
    members_touch_nobody_but_themselves,
);

const NEW_PASSWORD: &str = "battery staple horse";

/// Everybody who may call, by how high he stands.
async fn callers(service: &TestService, client: &Client, house: &House) -> [(i32, Caller); 4] {
    [
        (1, Caller::user(client, &house.member)),
        (2, Caller::user(client, &house.admin)),
        (3, Caller::user(client, &house.owner)),
        (4, Caller::service(service).await),
    ]
}

const ROLES: [(i32, Role); 3] = [(1, Role::Member), (2, Role::Admin), (3, Role::Owner)];

async fn nobody_touches_a_role_above_his_own(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let target = async |role| {
        let email = format!("{}@example.com", new_id());
        let message = CreateUserRequest { tenant_id: house.tenant.id.clone(), ..newcomer(&email, role) };
        billing.create(message).await.unwrap()
    };
    for (height, caller) in callers(&service, &client, &house).await {
        for (above, role) in ROLES {
            let may = height >= 2 && height >= above;
            for method in ["names", "email", "demote", "disable", "enable", "password", "revoke", "delete"] {
                let target = target(role).await;
                let session = client.login(&target.email, PASSWORD).await.unwrap();
                let id = target.id.as_str();
                let result = match method {
                    "names" => caller.rename(id, "New").await.map(drop),
                    "email" => caller.set_email(id, &format!("{}@example.com", new_id())).await.map(drop),
                    "demote" => caller.set_role(id, Role::Member).await.map(drop),
                    "disable" => caller.set_state(id, UserState::Disabled, "").await.map(drop),
                    "enable" => caller.set_state(id, UserState::Active, "").await.map(drop),
                    "password" => caller.set_password(id, NEW_PASSWORD).await,
                    "revoke" => caller.revoke_sessions(id).await,
                    _ => caller.delete(id, "").await,
                };
                let about = format!("{method} of {role:?} by {height}");
                if may {
                    result.expect(&about);
                    continue;
                }
                assert_eq!(refusal(result), role_too_low(), "{about}");
                assert_eq!(billing.get(id).await.as_ref(), Some(&target), "{about}");
                assert!(client.verify_token(&session.access_token).await.unwrap().active, "{about}");
                client.login(&target.email, PASSWORD).await.expect(&about);
            }
        }
    }
}

async fn nobody_grants_a_role_above_his_own(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    for (height, caller) in callers(&service, &client, &house).await {
        for (granted, role) in ROLES {
            let about = format!("{role:?} by {height}");
            let may = height >= 2 && height >= granted;
            let email = format!("{}@example.com", new_id());
            let message = CreateUserRequest { tenant_id: house.tenant.id.clone(), ..newcomer(&email, role) };
            let created = caller.create(message).await.map(|user| user.role());
            let updated = caller.set_role(house.other_member.id(), role).await.map(|user| user.role());
            // Himself as well: who is below cannot lift himself.
            let own = match height {
                1 => Some(&house.member),
                2 => Some(&house.admin),
                _ => None,
            };
            if let Some(own) = own.filter(|_| granted > height) {
                assert_eq!(refusal(caller.set_role(own.id(), role).await), role_too_low(), "{about}");
            }
            if may {
                assert_eq!((created.unwrap(), updated.unwrap()), (role, role), "{about}");
                Caller::service(&service)
                    .await
                    .set_role(house.other_member.id(), Role::Member)
                    .await
                    .unwrap();
            } else {
                assert_eq!(refusal(created), role_too_low(), "{about}");
                assert_eq!(refusal(updated), role_too_low(), "{about}");
            }
        }
    }
}

async fn members_touch_nobody_but_themselves(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let member = Caller::user(&client, &house.member);
    let own = house.member.id();
    for id in [own, house.other_member.id()] {
        let disabled = member.set_state(id, UserState::Disabled, "").await;
        let etag = house.member.user.etag.as_str();
        let results = [
            disabled.map(drop),
            member.set_password(id, NEW_PASSWORD).await,
            member.delete(id, etag).await,
            member.delete(id, "\"stale\"").await,
            member.find(&house.member.user.email).await.map(drop),
            member.update_tenant("", "New", "").await.map(drop),
            member.delete_tenant(&house.tenant.id, "").await,
        ];
        for result in results {
            assert_eq!(refusal(result), role_too_low());
        }
    }
    assert_eq!(refusal(member.revoke_sessions(house.other_member.id()).await), role_too_low());
    let users: Vec<User> = member.batch(&house.people().map(|person| person.id())).await.unwrap();
    assert_eq!(users, house.people().map(|person| person.user.clone()));
    member.revoke_sessions(own).await.unwrap();
}
