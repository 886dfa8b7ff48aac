//! Which users a caller sees.

use identity::domain::{Clock as _, SystemClock, UserId};
use identity::proto::v1::{Role, UserState};
use identity::service::access::Access;
use tonic::Code;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::database::{add_member, delete_tenant, execute, revoke, set_state, user_id_of};
use crate::fixture::{call_raw, claim, refusal, refused, registered, row, rpcs, visible};
use crate::support::service::{Engine, TestService, bad_fields, on_both_databases};

on_both_databases!(
    every_rpc_that_is_for_users_refuses_strangers,
    a_caller_sees_himself,
    a_caller_sees_the_others_of_his_tenant,
    a_user_of_another_tenant_looks_like_one_that_does_not_exist,
    two_users_of_the_same_id_in_two_tenants_are_kept_apart,
    what_is_no_uuid_is_named_but_not_to_strangers,
    what_is_no_uuid_is_not_named_to_those_whose_session_has_ended,
);

async fn every_rpc_that_is_for_users_refuses_strangers(engine: Engine) {
    let service = TestService::start(engine).await;
    let mut refused_ones = 0;
    for rpc in rpcs().into_iter().filter(|rpc| row(rpc) != Access::Open) {
        let answer = call_raw(&service.client(), &rpc, Vec::new(), MetadataMap::new()).await;
        assert_eq!(refusal(answer), refused(Code::Unauthenticated, "TOKEN_INVALID"), "{rpc}");
        refused_ones += 1;
    }
    assert!(refused_ones > 0);
}

async fn a_caller_sees_himself(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let id = ada.user.as_ref().unwrap().id.clone();
    for wanted in ["", id.as_str(), &id.to_uppercase()] {
        assert_eq!(client.get_user(Some(&ada.access_token), wanted).await.unwrap().user, ada.user);
    }
    let of = user_id_of("ada@example.com");
    execute(&service.database, &format!("UPDATE users SET role = 'admin', version = 42 WHERE id = {of}"));
    let now = client.get_user(Some(&ada.access_token), "").await.unwrap().user.unwrap();
    assert_eq!((now.role(), now.etag.as_str()), (Role::Admin, "\"2a\""));
}

async fn a_caller_sees_the_others_of_his_tenant(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await;
    let owner = ada.user.unwrap();
    let member = add_member(&service.database, &owner).await;
    let found = service.client().get_user(Some(&ada.access_token), &member).await.unwrap().user.unwrap();
    assert_eq!((&found.id, &found.tenant), (&member, &owner.tenant));
    assert_eq!((found.role(), found.email.as_str()), (Role::Member, "member@example.com"));
    set_state(&service.database, &found, identity::domain::UserState::Disabled).await;
    let found = service.client().get_user(Some(&ada.access_token), &member).await.unwrap().user.unwrap();
    assert_eq!((found.state(), found.etag.as_str()), (UserState::Disabled, "\"2\""));
}

async fn a_user_of_another_tenant_looks_like_one_that_does_not_exist(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let [eve, bob] = ["eve@example.com", "bob@example.com"].map(|email| registered(&service, email));
    let (eve, bob) = (eve.await.user.unwrap(), bob.await.user.unwrap());
    let of_eve = add_member(&service.database, &eve).await;
    delete_tenant(&service.database, &bob).await;
    let unknown = UserId::generate(SystemClock.now()).to_string();
    let absent = client.get_user(Some(&ada.access_token), &unknown).await.unwrap_err();
    assert_eq!(refusal::<()>(Err(absent.clone())), refused(Code::NotFound, "USER_NOT_FOUND"));
    for (whose, id) in [
        ("an owner of another tenant", eve.id.clone()),
        ("the same, shouted", eve.id.to_uppercase()),
        ("a member of another tenant", of_eve),
        ("another tenant", eve.tenant_id),
        ("the own tenant", ada.user.unwrap().tenant_id),
        ("somebody deleted", bob.id),
        ("nobody", Uuid::nil().to_string()),
        ("everybody", Uuid::max().to_string()),
        ("a UUID of version 4", "9b2f6a8e-3c1d-4e5f-8a7b-6c5d4e3f2a1b".to_owned()),
    ] {
        let status = client.get_user(Some(&ada.access_token), &id).await.unwrap_err();
        assert_eq!(visible(&status), visible(&absent), "{whose}");
    }
}

/// An import may bring the same id twice; the key leads with the tenant.
async fn two_users_of_the_same_id_in_two_tenants_are_kept_apart(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let eve = registered(&service, "eve@example.com").await;
    let of_eve = add_member(&service.database, eve.user.as_ref().unwrap()).await;
    let (from, to) = (user_id_of("ada@example.com"), "'member@example.com'");
    execute(&service.database, &format!("UPDATE users SET id = {from} WHERE email = {to}"));
    let id = &ada.user.as_ref().unwrap().id;
    assert_eq!(client.get_user(Some(&ada.access_token), id).await.unwrap().user, ada.user);
    let twin = client.get_user(Some(&eve.access_token), id).await.unwrap().user.unwrap();
    assert_eq!((twin.id.as_str(), twin.email.as_str()), (id.as_str(), "member@example.com"));
    assert_eq!(twin.tenant, eve.user.unwrap().tenant);
    let gone = client.get_user(Some(&eve.access_token), &of_eve).await;
    assert_eq!(refusal(gone), refused(Code::NotFound, "USER_NOT_FOUND"));
}

async fn what_is_no_uuid_is_named_but_not_to_strangers(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let id = ada.user.unwrap().id;
    for text in ["1", "me", " ", &format!("{id} "), &format!("{{{id}}}"), &id.replace('-', ""), "\0", "'"] {
        let status = client.get_user(Some(&ada.access_token), text).await.unwrap_err();
        let named = (status.code(), bad_fields(&status));
        assert_eq!(named, (Code::InvalidArgument, vec!["user_id".to_owned()]), "{text:?}");
        let stranger = client.get_user(None, text).await;
        assert_eq!(refusal(stranger), refused(Code::Unauthenticated, "TOKEN_INVALID"), "{text:?}");
    }
}

async fn what_is_no_uuid_is_not_named_to_those_whose_session_has_ended(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let eve = registered(&service, "eve@example.com").await;
    let (user, disabled) = (ada.user.unwrap(), eve.user.unwrap());
    revoke(&service.database, &user, &claim(&ada.access_token, "sid")).await;
    set_state(&service.database, &disabled, identity::domain::UserState::Disabled).await;
    for token in [&ada.access_token, &eve.access_token] {
        let well_formed = client.get_user(Some(token), &user.id).await.unwrap_err();
        assert_eq!(refusal::<()>(Err(well_formed.clone())), refused(Code::Unauthenticated, "TOKEN_INVALID"));
        let malformed = client.get_user(Some(token), "1").await.unwrap_err();
        assert_eq!(visible(&malformed), visible(&well_formed));
    }
}
