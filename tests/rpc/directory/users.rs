//! Creating and deleting users, and who may.

use std::time::Duration;

use identity::proto::v1::{CreateUserRequest, Role, UserState};
use tonic::Code;

use super::{Caller, email_taken, login_failed, role_too_low, start, user_not_found};
use crate::database::census;
use crate::fixture::{TestClock, new_id, refusal, refused, visible};
use crate::support::service::{Engine, PASSWORD, TestDatabase, TestService, bad_fields, on_both_databases};
use crate::world::{House, founder, is_in, log_in, newcomer};

on_both_databases!(
    a_new_user_is_an_active_member_and_logs_in,
    members_create_nobody,
    another_tenant_does_not_exist_for_whoever_creates_a_user,
    a_taken_email_is_told_in_any_spelling,
    users_are_told_only_so_often_that_an_email_is_taken,
    whoever_is_deleted_is_gone_with_his_sessions_and_his_email,
    whoever_has_his_sessions_revoked_logs_in_anew,
);

async fn a_new_user_is_an_active_member_and_logs_in(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let billing = Caller::service(&service).await;
    let callers = [Caller::user(&client, &house.owner), Caller::user(&client, &house.admin), billing.clone()];
    for (n, caller) in callers.iter().enumerate() {
        for tenant_id in ["", house.tenant.id.as_str()] {
            let email = format!("New{n}.{}@Example.com", new_id());
            let message = CreateUserRequest {
                tenant_id: tenant_id.into(),
                first_name: " Grace\u{3000}".into(),
                ..newcomer(&email, Role::Unspecified)
            };
            if n == 2 && tenant_id.is_empty() {
                let status = caller.create(message).await.unwrap_err();
                assert_eq!(
                    (status.code(), bad_fields(&status)),
                    (Code::InvalidArgument, vec!["tenant_id".into()])
                );
                continue;
            }
            let user = caller.create(message).await.unwrap();
            assert_eq!((user.role(), user.state()), (Role::Member, UserState::Active));
            assert_eq!((user.email.as_str(), user.first_name.as_str()), (email.as_str(), "Grace"));
            assert_eq!((user.tenant.as_ref(), &user.tenant_id), (Some(&house.tenant), &house.tenant.id));
            assert_eq!(user.created_at, user.updated_at);
            assert_eq!(billing.get(&user.id).await.as_ref(), Some(&user));
            assert_eq!(log_in(&client, &email, PASSWORD).await.user, user);
        }
    }
}

async fn members_create_nobody(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let before = census(&service.database);
    let member = Caller::user(&client, &house.member);
    for tenant_id in ["", house.tenant.id.as_str(), &new_id()] {
        let message =
            CreateUserRequest { tenant_id: tenant_id.into(), ..newcomer("new@example.com", Role::Member) };
        assert_eq!(refusal(member.create(message).await), role_too_low());
    }
    assert_eq!(census(&service.database), before);
}

async fn another_tenant_does_not_exist_for_whoever_creates_a_user(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let foreign = founder(&client, "eve@example.com").await;
    let in_tenant = |tenant_id: &str| CreateUserRequest {
        tenant_id: tenant_id.to_owned(),
        ..newcomer("new@example.com", Role::Member)
    };
    let before = census(&service.database);
    for caller in [&house.owner, &house.admin] {
        let caller = Caller::user(&client, caller);
        let unknown = caller.create(in_tenant(&new_id())).await.unwrap_err();
        let existing = caller.create(in_tenant(&foreign.user.tenant_id)).await.unwrap_err();
        assert_eq!(visible(&existing), visible(&unknown));
        assert_eq!(refusal::<()>(Err(unknown)), refused(Code::NotFound, "TENANT_NOT_FOUND"));
    }
    let billing = Caller::service(&service).await;
    let result = billing.create(in_tenant(&new_id())).await;
    assert_eq!(refusal(result), refused(Code::NotFound, "TENANT_NOT_FOUND"));
    assert_eq!(census(&service.database), before);
}

async fn a_taken_email_is_told_in_any_spelling(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    founder(&client, "Zo\u{eb}@B\u{fc}cher.example").await;
    let before = census(&service.database);
    let billing = Caller::service(&service).await;
    for email in
        ["Zo\u{eb}@B\u{fc}cher.example", "zoe\u{308}@b\u{fc}cher.example", "ZO\u{cb}@XN--BCHER-KVA.EXAMPLE"]
    {
        let message =
            CreateUserRequest { tenant_id: house.tenant.id.clone(), ..newcomer(email, Role::Member) };
        assert_eq!(refusal(billing.create(message.clone()).await), email_taken());
        assert_eq!(refusal(Caller::user(&client, &house.admin).create(message).await), email_taken());
    }
    assert_eq!(census(&service.database), before);
}

async fn users_are_told_only_so_often_that_an_email_is_taken(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    let client = service.client();
    let house = House::build(&client).await;
    let (owner, admin) = (Caller::user(&client, &house.owner), Caller::user(&client, &house.admin));
    let taken = &house.member.user.email;
    for n in 0..30 {
        let result = match n % 2 {
            0 => owner.create(newcomer(taken, Role::Member)).await,
            _ => owner.set_email(house.other_member.id(), taken).await,
        };
        assert_eq!(refusal(result), email_taken(), "answer {n}");
    }
    let too_many = refused(Code::ResourceExhausted, "TOO_MANY_REGISTRATIONS");
    // A free one is refused alike.
    for email in [taken, "free@example.com"] {
        assert_eq!(refusal(owner.create(newcomer(email, Role::Member)).await), too_many);
        assert_eq!(refusal(owner.set_email(house.other_member.id(), email).await), too_many);
    }
    // A colleague's are counted apart.
    assert_eq!(refusal(admin.create(newcomer(taken, Role::Member)).await), email_taken());
    owner.rename(house.other_member.id(), "Other").await.unwrap();
    let billing = Caller::service(&service).await;
    for _ in 0..32 {
        let message =
            CreateUserRequest { tenant_id: house.tenant.id.clone(), ..newcomer(taken, Role::Member) };
        assert_eq!(refusal(billing.create(message).await), email_taken());
        assert_eq!(refusal(billing.set_email(house.other_member.id(), taken).await), email_taken());
    }
    clock.advance(Duration::from_secs(15 * 60));
    let owner = Caller::user(&client, &log_in(&client, &house.owner.user.email, PASSWORD).await);
    assert_eq!(refusal(owner.create(newcomer(taken, Role::Member)).await), email_taken());
    owner.create(newcomer("free@example.com", Role::Member)).await.unwrap();
}

async fn whoever_is_deleted_is_gone_with_his_sessions_and_his_email(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let billing = Caller::service(&service).await;
    for (caller, target) in
        [(&owner, &house.member), (&billing, &house.other_member), (&owner, &house.second_owner)]
    {
        caller.delete(target.id(), "").await.unwrap();
        super::assert_refused_by_every_rpc(&client, target).await;
        assert!(client.refresh(&target.refresh_token).await.is_err());
        assert_eq!(refusal(client.login(&target.user.email, PASSWORD).await), login_failed());
        assert_eq!(owner.get(target.id()).await, None);
        for caller in [&owner, &billing] {
            let id = target.id();
            assert_eq!(refusal(caller.delete(id, "").await), user_not_found());
            assert_eq!(refusal(caller.rename(id, "Grace").await), user_not_found());
            assert_eq!(refusal(caller.set_state(id, UserState::Active, "").await), user_not_found());
            assert_eq!(refusal(caller.set_password(id, PASSWORD).await), user_not_found());
            assert_eq!(refusal(caller.revoke_sessions(id).await), user_not_found());
            assert_eq!(refusal(caller.find(&target.user.email).await), user_not_found());
        }
        let again = owner.create(newcomer(&target.user.email, Role::Member)).await.unwrap();
        assert_ne!(again.id, target.id());
        log_in(&client, &target.user.email, PASSWORD).await;
    }
    assert!(is_in(&service, &house.admin).await);
    // Himself, who is not the last one any more.
    owner.set_role(house.admin.id(), Role::Owner).await.unwrap();
    owner.delete(house.owner.id(), "").await.unwrap();
    assert!(!is_in(&service, &house.owner).await);
}

async fn whoever_has_his_sessions_revoked_logs_in_anew(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let second = log_in(&client, &house.member.user.email, PASSWORD).await;
    Caller::user(&client, &house.admin).revoke_sessions(house.member.id()).await.unwrap();
    for ended in [&house.member, &second] {
        assert!(!is_in(&service, ended).await);
        assert!(client.refresh(&ended.refresh_token).await.is_err());
    }
    assert!(is_in(&service, &house.other_member).await);
    // A member by himself: the session of the call ends as well.
    let member = log_in(&client, &house.member.user.email, PASSWORD).await;
    assert_eq!(member.user.etag, house.member.user.etag);
    Caller::user(&client, &member).revoke_sessions(member.id()).await.unwrap();
    assert!(!is_in(&service, &member).await);
    log_in(&client, &house.member.user.email, PASSWORD).await;
}
