//! Changes of users, field by field, and what they mean for their sessions.

use identity::proto::v1::{Role, User};
use tonic::Code;

use super::{Caller, email_taken, invalid, login_failed, named, role_too_low, start};
use crate::fixture::{claim, refusal, refused};
use crate::support::service::{Engine, PASSWORD, on_both_databases};
use crate::world::{House, is_in, log_in};

on_both_databases!(
    a_change_is_of_what_the_mask_names_and_nothing_else,
    what_changes_nothing_leaves_the_etag,
    another_email_ends_the_sessions_and_frees_the_old_one,
    whoever_changes_his_own_email_stays,
    whoever_has_only_a_stolen_token_gets_no_other_email,
    another_spelling_of_the_same_email_ends_nothing,
    a_taken_email_changes_nothing,
    two_who_want_each_others_emails_keep_theirs,
    another_role_is_in_force_at_the_next_call_and_in_the_next_token,
    members_change_their_own_names_and_nothing_else,
);

async fn a_change_is_of_what_the_mask_names_and_nothing_else(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let mut expected = house.member.user.clone();
    // What the mask does not name may be anything.
    let new = |n: usize| User {
        id: expected.id.clone(),
        email: format!("new{n}@example.com"),
        first_name: format!("First{n}"),
        last_name: format!("Last{n}"),
        role: Role::Admin.into(),
        state: 77,
        ..User::default()
    };
    type Change = fn(&mut User, &User);
    let changes: [(&[&str], Change); 5] = [
        (&["first_name"], |user, new| user.first_name.clone_from(&new.first_name)),
        (&["last_name", "last_name"], |user, new| user.last_name.clone_from(&new.last_name)),
        (&["email"], |user, new| user.email.clone_from(&new.email)),
        (&["role"], |user, new| user.role = new.role),
        (&["role", "email", "last_name", "first_name"], |user, new| {
            *user = User { state: user.state, ..new.clone() };
        }),
    ];
    let news: Vec<_> = (0..changes.len()).map(new).collect();
    for ((paths, change), new) in changes.into_iter().zip(news) {
        let before = expected.clone();
        let updated = owner.update(new.clone(), paths).await.unwrap();
        change(&mut expected, &new);
        assert_ne!(updated.etag, before.etag, "{paths:?}");
        expected = User {
            tenant_id: before.tenant_id,
            tenant: before.tenant,
            created_at: before.created_at,
            updated_at: updated.updated_at,
            etag: updated.etag.clone(),
            ..expected
        };
        assert_eq!(updated, expected, "{paths:?}");
        assert_eq!(owner.get(&expected.id).await, Some(updated));
    }
    assert_eq!(log_in(&client, "new4@example.com", PASSWORD).await.user, expected);
}

async fn what_changes_nothing_leaves_the_etag(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let member = house.member.user.clone();
    let all = ["email", "first_name", "last_name", "role"];
    for caller in [Caller::user(&client, &house.admin), Caller::service(&service).await] {
        let updated = caller.update(member.clone(), &all).await.unwrap();
        assert_eq!(updated, member);
    }
    assert!(is_in(&service, &house.member).await);
}

async fn another_email_ends_the_sessions_and_frees_the_old_one(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let old = &house.member.user.email;
    owner.set_email(house.member.id(), "new@example.com").await.unwrap();
    assert!(!is_in(&service, &house.member).await);
    assert!(client.refresh(&house.member.refresh_token).await.is_err());
    assert_eq!(refusal(client.login(old, PASSWORD).await), login_failed());
    let member = log_in(&client, "new@example.com", PASSWORD).await;
    assert_eq!(member.id(), house.member.id());
    // Free for somebody else, and, when that one has another in turn, for the first one again.
    owner.set_email(house.other_member.id(), old).await.unwrap();
    assert_eq!(log_in(&client, old, PASSWORD).await.id(), house.other_member.id());
    owner.set_email(house.other_member.id(), "other@example.com").await.unwrap();
    owner.set_email(house.member.id(), old).await.unwrap();
    assert_eq!(log_in(&client, old, PASSWORD).await.id(), house.member.id());
}

async fn whoever_changes_his_own_email_stays(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let elsewhere = log_in(&client, &house.admin.user.email, PASSWORD).await;
    let admin = Caller::user(&client, &house.admin);
    admin.set_email(house.admin.id(), "new@example.com").await.unwrap();
    assert!(is_in(&service, &house.admin).await);
    assert!(!is_in(&service, &elsewhere).await);
    client.refresh(&house.admin.refresh_token).await.unwrap();
}

async fn whoever_has_only_a_stolen_token_gets_no_other_email(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let wanted = User { id: house.owner.id().into(), email: "new@example.com".into(), ..User::default() };
    let result = owner.update_with(wanted.clone(), &["email"], "").await;
    assert_eq!(invalid(result), named(&["current_password"]));
    // As many guesses as a login allows, and no more, whether or not they are right.
    for _ in 0..10 {
        let result = owner.update_with(wanted.clone(), &["email"], "wrong horse battery").await;
        assert_eq!(refusal(result), login_failed());
    }
    let result = owner.update_with(wanted.clone(), &["email"], PASSWORD).await;
    assert_eq!(refusal(result), refused(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
    assert_eq!(owner.get(house.owner.id()).await.as_ref(), Some(&house.owner.user));
    // What is so already, names, and the e-mails of others want no password.
    let own = User { email: house.admin.user.email.clone(), ..wanted.clone() };
    let admin = Caller::user(&client, &house.admin);
    let own = User { id: house.admin.id().into(), ..own };
    assert_eq!(admin.update_with(own, &["email"], "").await.unwrap(), house.admin.user);
    let named = User { id: house.admin.id().into(), first_name: "Ada".into(), ..User::default() };
    admin.update_with(named, &["first_name"], "").await.unwrap();
    let others = User { id: house.member.id().into(), ..wanted.clone() };
    admin.update_with(others, &["email"], "").await.unwrap();
    // A member may not, whatever the password.
    let member = Caller::user(&client, &house.other_member);
    let own = User { id: house.other_member.id().into(), ..wanted };
    assert_eq!(refusal(member.update_with(own, &["email"], "").await), role_too_low());
}

async fn another_spelling_of_the_same_email_ends_nothing(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let spelling = house.member.user.email.to_uppercase();
    let updated = Caller::user(&client, &house.owner).set_email(house.member.id(), &spelling).await.unwrap();
    assert_eq!(updated.email, spelling);
    assert_ne!(updated.etag, house.member.user.etag);
    assert!(is_in(&service, &house.member).await);
    assert_eq!(log_in(&client, &house.member.user.email, PASSWORD).await.user, updated);
}

async fn a_taken_email_changes_nothing(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let member = &house.member;
    for caller in [Caller::user(&client, &house.admin), Caller::service(&service).await] {
        for taken in [&house.other_member.user.email, &elsewhere.member.user.email.to_uppercase()] {
            let new = User {
                id: member.id().into(),
                email: taken.clone(),
                first_name: "New".into(),
                ..User::default()
            };
            assert_eq!(refusal(caller.update(new, &["first_name", "email"]).await), email_taken());
        }
        assert_eq!(caller.get(member.id()).await.as_ref(), Some(&member.user));
        assert!(is_in(&service, member).await);
        assert_eq!(log_in(&client, &member.user.email, PASSWORD).await.id(), member.id());
    }
}

async fn two_who_want_each_others_emails_keep_theirs(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let (billing, again) = (Caller::service(&service).await, Caller::service(&service).await);
    let (one, other) = (&house.member, &house.other_member);
    for round in 0..50 {
        let (first, second) = tokio::join!(
            billing.set_email(one.id(), &other.user.email),
            again.set_email(other.id(), &one.user.email),
        );
        for result in [first, second] {
            assert_eq!(refusal(result), email_taken(), "round {round}");
        }
    }
    assert_eq!(log_in(&client, &one.user.email, PASSWORD).await.user, one.user);
}

async fn another_role_is_in_force_at_the_next_call_and_in_the_next_token(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let (id, member) = (house.member.id(), Caller::user(&client, &house.member));
    assert_eq!(refusal(member.find("nobody@example.com").await), role_too_low());
    owner.set_role(id, Role::Admin).await.unwrap();
    member.find(&house.other_member.user.email).await.unwrap();
    assert_eq!(client.verify_token(&house.member.access_token).await.unwrap().role(), Role::Admin);
    assert_eq!(claim(&house.member.access_token, "role"), "member");
    let next = client.refresh(&house.member.refresh_token).await.unwrap();
    assert_eq!(claim(&next.access_token, "role"), "admin");
    // And back, by himself.
    member.set_role(id, Role::Member).await.unwrap();
    assert_eq!(refusal(member.find(&house.other_member.user.email).await), role_too_low());
    assert!(is_in(&service, &house.member).await);
    let next = client.refresh(&next.refresh_token).await.unwrap();
    assert_eq!(claim(&next.access_token, "role"), "member");
}

async fn members_change_their_own_names_and_nothing_else(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let member = Caller::user(&client, &house.member);
    let new = |id: &str, role: Role| User {
        id: id.to_owned(),
        email: "new@example.com".into(),
        first_name: "New".into(),
        last_name: "Name".into(),
        role: role.into(),
        ..User::default()
    };
    let own = house.member.id();
    for paths in [&["email"][..], &["role"], &["first_name", "role"], &["last_name", "email"]] {
        for role in [Role::Owner, Role::Member] {
            assert_eq!(refusal(member.update(new(own, role), paths).await), role_too_low(), "{paths:?}");
        }
    }
    for other in [&house.other_member, &house.admin, &house.owner] {
        let result = member.update(new(other.id(), Role::Member), &["first_name"]).await;
        assert_eq!(refusal(result), role_too_low());
        assert_eq!(member.get(other.id()).await.as_ref(), Some(&other.user));
    }
    assert_eq!(member.get(own).await.as_ref(), Some(&house.member.user));
    let updated = member.update(new(own, Role::Owner), &["first_name", "last_name"]).await.unwrap();
    let expected = User {
        first_name: "New".into(),
        last_name: "Name".into(),
        etag: updated.etag.clone(),
        updated_at: updated.updated_at,
        ..house.member.user.clone()
    };
    assert_eq!(updated, expected);
}
