//! Users who are disabled, and let in again.

use identity::proto::v1::UserState;
use tonic::Code;

use super::{Caller, assert_refused_by_every_rpc, login_failed, start};
use crate::fixture::{refusal, refused};
use crate::support::service::{Engine, PASSWORD, on_both_databases};
use crate::world::{House, is_in, log_in};

on_both_databases!(
    whoever_is_disabled_is_refused_from_the_next_call_on,
    whoever_is_let_in_again_has_no_sessions_left,
    the_same_state_twice_changes_nothing,
);

async fn whoever_is_disabled_is_refused_from_the_next_call_on(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let second = log_in(&client, &house.second_owner.user.email, PASSWORD).await;
    let callers = [Caller::user(&client, &house.owner), Caller::service(&service).await];
    for (caller, target) in callers.iter().zip([&house.second_owner, &house.admin]) {
        let disabled = caller.set_state(target.id(), UserState::Disabled, "").await.unwrap();
        assert_eq!(disabled.state(), UserState::Disabled);
        assert_eq!(caller.get(target.id()).await, Some(disabled));
        assert_refused_by_every_rpc(&client, target).await;
        assert_eq!(refusal(client.login(&target.user.email, PASSWORD).await), login_failed());
        let refreshed = client.refresh(&target.refresh_token).await;
        assert_eq!(refusal(refreshed), refused(Code::Unauthenticated, "REFRESH_TOKEN_INVALID"));
    }
    assert!(!is_in(&service, &second).await);
    assert!(is_in(&service, &house.member).await);
}

async fn whoever_is_let_in_again_has_no_sessions_left(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let admin = Caller::user(&client, &house.admin);
    for state in [UserState::Disabled, UserState::Active] {
        let changed = admin.set_state(house.member.id(), state, "").await.unwrap();
        assert_eq!(changed.state(), state);
        assert_refused_by_every_rpc(&client, &house.member).await;
        assert!(client.refresh(&house.member.refresh_token).await.is_err());
    }
    let member = log_in(&client, &house.member.user.email, PASSWORD).await;
    assert!(is_in(&service, &member).await);
    let sessions = client.list_sessions(&member.access_token, 0, "").await.unwrap().sessions;
    assert_eq!(sessions.len(), 1);
    // Himself, too.
    admin.set_state(house.admin.id(), UserState::Disabled, "").await.unwrap();
    assert_refused_by_every_rpc(&client, &house.admin).await;
}

async fn the_same_state_twice_changes_nothing(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let active = owner.set_state(house.member.id(), UserState::Active, "").await.unwrap();
    assert_eq!(active, house.member.user);
    assert!(is_in(&service, &house.member).await);
    let disabled = owner.set_state(house.member.id(), UserState::Disabled, "").await.unwrap();
    assert_ne!(disabled.etag, active.etag);
    let again = owner.set_state(house.member.id(), UserState::Disabled, "").await.unwrap();
    assert_eq!(again, disabled);
}
