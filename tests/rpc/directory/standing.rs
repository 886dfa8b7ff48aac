//! What was taken away counts from that moment on, also for calls that are under way.

use identity::proto::v1::{Role, UserState};
use tonic::{Code, Status};

use super::{Caller, role_too_low, start};
use crate::database::{OpenTransaction, values};
use crate::fixture::{claim, new_id, refusal, refused};
use crate::support::service::{Engine, PASSWORD, TestService, on_both_databases};
use crate::support::wait::eventually;
use crate::world::{House, Person, hire, log_in, newcomer};

on_both_databases!(
    whoever_is_disabled_amid_a_call_changes_nothing,
    whoever_is_demoted_amid_a_call_changes_nothing,
    whoever_is_logged_out_amid_a_call_changes_nothing,
    of_two_owners_who_demote_each_other_one_succeeds,
    two_who_change_each_other_do_not_wait_in_a_circle,
    of_two_sessions_that_end_each_other_one_succeeds,
);

/// Everything that writes on a user's authority.
const ACTS: [&str; 10] = [
    "create a user",
    "change a user",
    "disable a user",
    "set a password",
    "end sessions",
    "delete a user",
    "rename the tenant",
    "delete the tenant",
    "change one's password",
    "end one's other session",
];

async fn act(what: &str, client: &Caller, house: &House, other_session: &str) -> Result<(), Status> {
    let member = house.member.id();
    let person = &house.second_owner;
    match what {
        "create a user" => client.create(newcomer("new@example.com", Role::Member)).await.map(drop),
        "change a user" => client.rename(member, "Renamed").await.map(drop),
        "disable a user" => client.set_state(member, UserState::Disabled, "").await.map(drop),
        "set a password" => client.set_password(member, "a new horse battery").await,
        "end sessions" => client.revoke_sessions(member).await,
        "delete a user" => client.delete(member, "").await,
        "rename the tenant" => client.update_tenant(&house.tenant.id, "Renamed", "").await.map(drop),
        "delete the tenant" => client.delete_tenant(&house.tenant.id, "").await,
        "change one's password" => {
            client.client.change_password(&person.access_token, PASSWORD, "a new horse battery").await
        }
        _ => client.client.revoke_session(&person.access_token, other_session).await,
    }
}

/// Makes each call while a transaction that runs `sql`, of an owner's `{user}` and `{session}`, is open, and
/// commits that transaction once the call waits for it.
async fn assert_refused_amid(engine: Engine, sql: &str, acts: &[&str], expected: (Code, String)) {
    let service = start(engine).await;
    let client = service.client();
    for what in acts {
        let house = House::build(&client).await;
        let person = &house.second_owner;
        let other = log_in(&client, &person.user.email, PASSWORD).await;
        let session = claim(&person.access_token, "sid");
        let sql = sql.replace("{user}", person.id()).replace("{session}", &session);
        let before = everything(&service, &house);
        let change = OpenTransaction::begin(&service.database, &as_stored(engine, &sql)).await;
        let call = tokio::spawn({
            let (what, caller) = ((*what).to_owned(), Caller::user(&client, person));
            let (house, other) = (house.clone(), claim(&other.access_token, "sid"));
            async move { act(&what, &caller, &house, &other).await }
        });
        if engine == Engine::Postgres {
            until_somebody_waits(&service).await;
        }
        assert!(!call.is_finished(), "{what}: did not wait");
        change.commit().await;
        assert_eq!(refusal(call.await.unwrap()), expected, "{what}");
        assert_eq!(everything(&service, &house), before, "{what}");
    }
}

/// SQL whose ids are written as the database stores them.
fn as_stored(engine: Engine, sql: &str) -> String {
    if engine == Engine::Postgres {
        return sql.to_owned();
    }
    let literal = |text: &str| match uuid::Uuid::parse_str(text) {
        Ok(id) => format!("x'{}'", id.simple()),
        Err(_) => format!("'{text}'"),
    };
    sql.split('\'')
        .enumerate()
        .map(|(at, text)| if at % 2 == 1 { literal(text) } else { text.into() })
        .collect()
}

async fn until_somebody_waits(service: &TestService) {
    let waiting = "SELECT pid::text AS value FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually("somebody waits", async || !values(&service.database, waiting).is_empty()).await;
}

/// Whatever the calls of this file could change, but for the one who makes them.
fn everything(service: &TestService, house: &House) -> Vec<String> {
    let engine = if service.database.postgres.is_some() { Engine::Postgres } else { Engine::Sqlite };
    let (tenant, person) = (&house.tenant.id, house.second_owner.id());
    let mut found = Vec::new();
    for sql in [
        format!("SELECT name AS value FROM tenants WHERE id = '{tenant}' AND deleted_at IS NULL"),
        format!(
            "SELECT email || first_name || role || state AS value FROM users \
             WHERE tenant_id = '{tenant}' AND id <> '{person}' ORDER BY email"
        ),
        format!("SELECT hash AS value FROM passwords WHERE tenant_id = '{tenant}' ORDER BY hash"),
        format!(
            "SELECT CAST(count(*) AS TEXT) AS value FROM sessions \
             WHERE tenant_id = '{tenant}' AND user_id <> '{person}' AND revoked_at IS NULL"
        ),
    ] {
        found.extend(values(&service.database, &as_stored(engine, &sql)));
    }
    found
}

async fn whoever_is_disabled_amid_a_call_changes_nothing(engine: Engine) {
    let disable = "UPDATE users SET state = 'disabled', version = version + 1 WHERE id = '{user}'";
    let expected = refused(Code::Unauthenticated, "TOKEN_INVALID");
    assert_refused_amid(engine, disable, &ACTS, expected).await;
}

async fn whoever_is_demoted_amid_a_call_changes_nothing(engine: Engine) {
    let demote = "UPDATE users SET role = 'member', version = version + 1 WHERE id = '{user}'";
    assert_refused_amid(engine, demote, &ACTS[..8], role_too_low()).await;
}

async fn whoever_is_logged_out_amid_a_call_changes_nothing(engine: Engine) {
    let end = "UPDATE sessions SET revoked_at = created_at WHERE id = '{session}'";
    assert_refused_amid(engine, end, &ACTS, refused(Code::Unauthenticated, "TOKEN_INVALID")).await;
}

async fn of_two_owners_who_demote_each_other_one_succeeds(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    for _ in 0..10 {
        let mut pair = Vec::new();
        for _ in 0..2 {
            let email = format!("{}@example.com", new_id());
            pair.push(hire(&client, &house.owner, &email, Role::Owner).await);
        }
        let [one, other] = [&pair[0], &pair[1]];
        let demote = async |by: &Person, whom: &Person| {
            Caller::user(&client, by).set_role(whom.id(), Role::Member).await.map(drop)
        };
        let results = tokio::join!(demote(one, other), demote(other, one));
        let (done, refused) = match results {
            (Ok(()), Err(status)) => (other, status),
            (Err(status), Ok(())) => (one, status),
            both => panic!("{both:?}"),
        };
        assert_eq!(refusal::<()>(Err(refused)), role_too_low());
        let role = Caller::user(&client, &house.owner).get(done.id()).await.unwrap().role;
        assert_eq!(role, i32::from(Role::Member));
    }
}

async fn two_who_change_each_other_do_not_wait_in_a_circle(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let (one, other) = (&house.owner, &house.second_owner);
    let rename = async |by: &Person, whom: &Person| {
        for number in 0..40 {
            Caller::user(&client, by).rename(whom.id(), &format!("Name {number}")).await.unwrap();
        }
    };
    // And everybody themselves, in two calls at once.
    tokio::join!(
        rename(one, other),
        rename(other, one),
        rename(one, one),
        rename(one, one),
        rename(other, other)
    );
    let user = Caller::user(&client, one).get(one.id()).await.unwrap();
    assert_ne!(user.etag, one.user.etag);
}

async fn of_two_sessions_that_end_each_other_one_succeeds(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let email = &house.member.user.email;
    for _ in 0..20 {
        let one = log_in(&client, email, PASSWORD).await;
        let other = log_in(&client, email, PASSWORD).await;
        let end = async |by: &Person, whom: &Person| {
            client.revoke_session(&by.access_token, &claim(&whom.access_token, "sid")).await
        };
        let results = tokio::join!(end(&one, &other), end(&other, &one));
        let refused_one = match results {
            (Ok(()), Err(status)) | (Err(status), Ok(())) => status,
            both => panic!("{both:?}"),
        };
        let expected = refused(Code::Unauthenticated, "TOKEN_INVALID");
        assert_eq!(refusal::<()>(Err(refused_one)), expected);
    }
}
