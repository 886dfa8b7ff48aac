//! Passwords that somebody else sets.

use super::{Caller, invalid, login_failed, named, start};
use crate::database::{stored_hash, values};
use crate::fixture::refusal;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases};
use crate::support::wait::eventually;
use crate::world::{House, REGISTRATIONS, create, founder, is_in, log_in};
use identity::proto::v1::Role;

on_both_databases!(
    a_password_that_was_set_replaces_the_old_one_and_ends_the_sessions,
    whoever_has_only_a_stolen_token_sets_no_password,
    a_password_that_is_the_email_is_refused,
    a_login_that_was_checked_with_the_old_password_opens_nothing,
);

const NEW_PASSWORD: &str = "battery staple horse";

async fn a_password_that_was_set_replaces_the_old_one_and_ends_the_sessions(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let callers = [Caller::user(&client, &house.admin), Caller::service(&service).await];
    for (caller, target) in callers.iter().zip([&house.member, &house.owner]) {
        let second = log_in(&client, &target.user.email, PASSWORD).await;
        caller.set_password(target.id(), NEW_PASSWORD).await.unwrap();
        for ended in [target, &second] {
            assert!(!is_in(&service, ended).await);
            assert!(client.refresh(&ended.refresh_token).await.is_err());
        }
        assert_eq!(refusal(client.login(&target.user.email, PASSWORD).await), login_failed());
        let again = log_in(&client, &target.user.email, NEW_PASSWORD).await;
        // The same one once more is another one: it ends the sessions, too.
        caller.set_password(target.id(), NEW_PASSWORD).await.unwrap();
        assert!(!is_in(&service, &again).await);
        log_in(&client, &target.user.email, NEW_PASSWORD).await;
    }
    assert!(is_in(&service, &house.other_member).await);
}

async fn whoever_has_only_a_stolen_token_sets_no_password(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    for person in [&house.owner, &house.admin] {
        let before = stored_hash(&service.database, &person.user.email);
        let result = Caller::user(&client, person).set_password(person.id(), NEW_PASSWORD).await;
        assert_eq!(invalid(result), named(&["user_id"]));
        assert_eq!(stored_hash(&service.database, &person.user.email), before);
    }
}

async fn a_password_that_is_the_email_is_refused(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let email = &house.member.user.email;
    let before = stored_hash(&service.database, email);
    for caller in [Caller::user(&client, &house.owner), Caller::service(&service).await] {
        for password in [email.clone(), email.to_uppercase()] {
            let result = caller.set_password(house.member.id(), &password).await;
            assert_eq!(invalid(result), named(&["new_password"]));
        }
        // Somebody else's may be it.
        caller.set_password(house.other_member.id(), email).await.unwrap();
    }
    assert_eq!(stored_hash(&service.database, email), before);
    assert!(is_in(&service, &house.member).await);
}

async fn a_login_that_was_checked_with_the_old_password_opens_nothing(engine: Engine) {
    // A hash that takes long to check, and then a server that makes cheap ones.
    let dear = [("IDENTITY_BCRYPT_COST", "14"), REGISTRATIONS];
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &dear).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    let ada = founder(&client, "ada@example.com").await;
    let bob = create(&client, &ada, "bob@example.com", Role::Member).await;
    let (_, database) = service.stop().await;
    let cheap = [("IDENTITY_HASH_THREADS", "2"), ("IDENTITY_HASH_LANES", "1")];
    let service = TestService::start_with(database, &cheap).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    let login = {
        let client = client.clone();
        tokio::spawn(async move { client.login("bob@example.com", PASSWORD).await })
    };
    let pending = "SELECT 'pending' AS value FROM attempts WHERE length(pending) > 0";
    eventually("the check is under way", async || !values(&service.database, pending).is_empty()).await;
    Caller::user(&client, &ada).set_password(&bob.id, NEW_PASSWORD).await.unwrap();
    assert!(!login.is_finished());
    assert_eq!(refusal(login.await.unwrap()), login_failed());
    let bob = log_in(&client, "bob@example.com", NEW_PASSWORD).await;
    let sessions = client.list_sessions(&bob.access_token, 0, "").await.unwrap().sessions;
    assert_eq!(sessions.len(), 1);
}
