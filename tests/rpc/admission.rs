//! Which budgets each call takes, and what becomes of others while one caller uses up all it can.

use std::time::Duration;

use identity::proto::v1::{
    BatchGetUsersRequest, ChangePasswordRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest,
    GetTenantRequest, GetUserByEmailRequest, GetUserRequest, ListAuditEventsRequest, ListSessionsRequest,
    ListTenantsRequest, ListUsersRequest, LoginRequest, LogoutRequest, RefreshSessionRequest,
    RevokeSessionRequest, RevokeUserSessionsRequest, Role, SetPasswordRequest, SetUserStateRequest, Tenant,
    UpdateTenantRequest, UpdateUserRequest, User, UserState, VerifyTokenRequest,
};
use identity::service::admission::{Budget, budgets};
use identity::storage::Lane;
use prost::Message as _;
use prost_types::FieldMask;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::database::{OpenTransaction, user_id_of, values};
use crate::fixture::{call_raw, claim, new_id, refusal, refused, rpcs};
use crate::services::{SERVICE_TOKEN, token, with};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, reason, registration,
};
use crate::world::{House, Person, REGISTRATIONS, founder, newcomer};

on_both_databases!(
    every_call_takes_the_budgets_that_the_table_names,
    look_ups_go_on_while_no_login_does,
    calls_that_are_reset_leave_nothing_behind,
    users_of_a_domain_get_in_while_somebody_guesses_at_it,
    who_changes_without_pause_is_slowed_and_nobody_else_is,
    what_changes_nothing_is_written_nowhere,
);

/// A call of each RPC by `owner` that is in order, or by a service where only those may.
fn message(rpc: &str, owner: &Person, member: &Person) -> Vec<u8> {
    let user_id = member.user.id.clone();
    let tenant_id = owner.user.tenant_id.clone();
    let mask = |path: &str| Some(FieldMask { paths: vec![path.to_owned()] });
    match rpc.rsplit('/').next().unwrap() {
        "Register" => registration(&format!("{}@example.com", new_id())).encode_to_vec(),
        "Login" => {
            LoginRequest { email: owner.user.email.clone(), password: PASSWORD.into() }.encode_to_vec()
        }
        "GetUser" => GetUserRequest::default().encode_to_vec(),
        "RefreshSession" => {
            RefreshSessionRequest { refresh_token: member.refresh_token.clone() }.encode_to_vec()
        }
        "Logout" => LogoutRequest { refresh_token: member.refresh_token.clone() }.encode_to_vec(),
        "ListSessions" => ListSessionsRequest::default().encode_to_vec(),
        "RevokeSession" => {
            RevokeSessionRequest { session_id: claim(&owner.access_token, "sid") }.encode_to_vec()
        }
        "ChangePassword" => {
            let new_password = format!("{PASSWORD} and more");
            ChangePasswordRequest { current_password: PASSWORD.into(), new_password }.encode_to_vec()
        }
        "VerifyToken" => VerifyTokenRequest { access_token: owner.access_token.clone() }.encode_to_vec(),
        "CreateUser" => {
            let email = format!("{}@example.com", new_id());
            CreateUserRequest { tenant_id, ..newcomer(&email, Role::Member) }.encode_to_vec()
        }
        "UpdateUser" => {
            let user = User { id: user_id, first_name: new_id(), ..User::default() };
            UpdateUserRequest { user: Some(user), update_mask: mask("first_name") }.encode_to_vec()
        }
        "SetUserState" => {
            let state = UserState::Disabled.into();
            SetUserStateRequest { user_id, state, ..SetUserStateRequest::default() }.encode_to_vec()
        }
        "SetPassword" => {
            let new_password = format!("{PASSWORD} and more");
            SetPasswordRequest { user_id, new_password, ..SetPasswordRequest::default() }.encode_to_vec()
        }
        "RevokeUserSessions" => {
            RevokeUserSessionsRequest { user_id, ..RevokeUserSessionsRequest::default() }.encode_to_vec()
        }
        "DeleteUser" => DeleteUserRequest { user_id, ..DeleteUserRequest::default() }.encode_to_vec(),
        "BatchGetUsers" => {
            BatchGetUsersRequest { user_ids: vec![user_id], tenant_id: String::new() }.encode_to_vec()
        }
        "GetUserByEmail" => GetUserByEmailRequest { email: member.user.email.clone() }.encode_to_vec(),
        "ListUsers" => ListUsersRequest { tenant_id, ..ListUsersRequest::default() }.encode_to_vec(),
        "GetTenant" => GetTenantRequest { tenant_id }.encode_to_vec(),
        "UpdateTenant" => {
            let tenant = Tenant { id: tenant_id, name: new_id(), ..Tenant::default() };
            UpdateTenantRequest { tenant: Some(tenant), update_mask: mask("name") }.encode_to_vec()
        }
        "DeleteTenant" => DeleteTenantRequest { tenant_id, ..DeleteTenantRequest::default() }.encode_to_vec(),
        "ListTenants" => ListTenantsRequest::default().encode_to_vec(),
        "ListAuditEvents" => {
            ListAuditEventsRequest { tenant_id, ..ListAuditEventsRequest::default() }.encode_to_vec()
        }
        _ => panic!("{rpc} is not called here"),
    }
}

/// How often each of the budgets that are counted was taken since the start: a hash, and the lanes.
async fn taken(service: &TestService) -> Vec<(Budget, f64)> {
    let lane = async |lane: Lane| {
        service
            .metric(&format!(r#"identity_database_connections_lent_total{{lane="{}"}}"#, lane.name()))
            .await
    };
    vec![
        (Budget::Hash, service.metric("identity_password_hashes_total").await),
        (Budget::Reads, lane(Lane::Reads).await),
        (Budget::Writes, lane(Lane::Writes).await),
        (Budget::Lists, lane(Lane::Lists).await),
    ]
}

fn metadata(name: &'static str, value: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(name, value.parse().unwrap());
    metadata
}

async fn every_call_takes_the_budgets_that_the_table_names(engine: Engine) {
    // On PostgreSQL the lanes are counted apart for what writes in the service's own time, too.
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[REGISTRATIONS]).await;
    let client = service.client();
    let (_, service_token) = token(&service.database, &[]).await;
    for rpc in rpcs() {
        let house = House::build(&client).await;
        let is_for_services = rpc.ends_with("/ListTenants");
        let metadata = match is_for_services {
            true => metadata(SERVICE_TOKEN, &service_token),
            false => metadata("authorization", &house.owner.bearer()),
        };
        let before = taken(&service).await;
        call_raw(&client, &rpc, message(&rpc, &house.owner, &house.member), metadata).await.unwrap();
        let after = taken(&service).await;
        let moved = before.iter().zip(after).filter(|((_, before), (_, after))| after > before);
        let moved: Vec<_> = moved.map(|(_, (budget, _))| budget).collect();
        let mut expected: Vec<_> =
            budgets(&rpc).iter().copied().filter(|budget| *budget != Budget::Change).collect();
        if is_for_services {
            // Its token is looked up.
            expected.insert(0, Budget::Reads);
        }
        assert_eq!(moved, expected, "{rpc}");
    }
    assert_eq!(charged(&TestDatabase::migrated(engine).await).await, expected_changes());
}

/// The RPCs that the table says take a change.
fn expected_changes() -> Vec<String> {
    rpcs().into_iter().filter(|rpc| budgets(rpc).contains(&Budget::Change)).collect()
}

/// The RPCs that are refused to a user who has just made all the changes that there are.
async fn charged(database: &TestDatabase) -> Vec<String> {
    let variables = [REGISTRATIONS, ("IDENTITY_CHANGE_BURST", "1"), ("IDENTITY_CHANGE_RATE", "1")];
    let service = TestService::start_with(database.again(), &variables).await;
    let client = service.client();
    let mut charged = Vec::new();
    for rpc in rpcs().into_iter().filter(|rpc| !rpc.ends_with("/ListTenants")) {
        let owner = founder(&client, &format!("{}@example.com", new_id())).await;
        let metadata = || metadata("authorization", &owner.bearer());
        // One comes back every second: as long as none is left, the call comes right behind.
        let refusal = loop {
            let update = "identity.v1.DirectoryService/UpdateUser";
            let began = Instant::now();
            let spent = call_raw(&client, update, message(update, &owner, &owner), metadata()).await;
            let refusal = call_raw(&client, &rpc, message(&rpc, &owner, &owner), metadata()).await.err();
            if spent.is_ok() && began.elapsed() < Duration::from_millis(900) {
                break refusal;
            }
            sleep(Duration::from_millis(1_100)).await;
        };
        if refusal.is_some_and(|status| reason(&status) == "TOO_MANY_CHANGES") {
            charged.push(rpc);
        }
    }
    charged
}

/// Logs in until the task is aborted, whatever becomes of it.
async fn keep_logging_in(client: Client, email: String) {
    loop {
        let _ = client.login(&email, PASSWORD).await;
    }
}

async fn look_ups_go_on_while_no_login_does(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[("IDENTITY_DATABASE_CONNECTIONS", "4")]).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let eve = founder(&client, "eve@example.com").await;
    let lock = format!("UPDATE users SET first_name = 'x' WHERE id = {}", user_id_of("ada@example.com"));
    let lock = OpenTransaction::begin(&service.database, &lock).await;
    let mut logins = JoinSet::new();
    for _ in 0..32 {
        logins.spawn(keep_logging_in(service.client(), ada.user.email.clone()));
    }
    let in_use = r#"identity_database_connections_in_use{lane="writes"}"#;
    eventually("a login hangs", async || service.metric(in_use).await >= 1.0).await;
    for _ in 0..50 {
        let looked = timeout(Duration::from_secs(20), client.get_user(Some(&eve.access_token), "")).await;
        looked.expect("a look-up waits for nobody").unwrap();
        let listed = timeout(Duration::from_secs(20), client.list_sessions(&eve.access_token, 10, "")).await;
        listed.expect("a list waits for nobody").unwrap();
    }
    assert!(service.metric(in_use).await >= 1.0, "the logins hang still");
    logins.shutdown().await;
    lock.commit().await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

/// While one user's logins hang, those that a service makes for users elsewhere are served.
#[tokio::test(flavor = "multi_thread")]
async fn logins_from_elsewhere_go_on_while_those_of_one_place_hang() {
    let service = TestService::start(Engine::Postgres).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    founder(&client, "eve@example.com").await;
    let (_, token) = token(&service.database, &[]).await;
    let lock = format!("UPDATE users SET first_name = 'x' WHERE id = {}", user_id_of("ada@example.com"));
    let lock = OpenTransaction::begin(&service.database, &lock).await;
    let mut logins = JoinSet::new();
    for _ in 0..32 {
        logins.spawn(keep_logging_in(service.client(), ada.user.email.clone()));
    }
    // Seven connections write; one of them is left to newcomers.
    let in_use = r#"identity_database_connections_in_use{lane="writes"}"#;
    eventually("the logins have all that they can", async || service.metric(in_use).await >= 6.0).await;
    for _ in 0..20 {
        let message = LoginRequest { email: "eve@example.com".into(), password: PASSWORD.into() };
        let elsewhere = with(
            message,
            &[(SERVICE_TOKEN, token.as_str()), ("x-identity-end-user-address", "198.51.100.7")],
        );
        let login = timeout(Duration::from_secs(20), client.service.clone().login(elsewhere)).await;
        login.expect("a login from elsewhere waits for nobody").unwrap();
    }
    logins.shutdown().await;
    lock.commit().await;
}

async fn calls_that_are_reset_leave_nothing_behind(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    for round in 0..20 {
        let mut calls = JoinSet::new();
        // Whose connection may well be ended for it.
        let hostile = service.client();
        for n in 0..100 {
            let client = hostile.clone();
            calls.spawn(async move { client.login(&format!("nobody{}@example.com", n % 10), "wrong").await });
        }
        sleep(Duration::from_millis(round % 10)).await;
        calls.shutdown().await;
        // A good client beside them is served.
        let found = timeout(Duration::from_secs(20), client.get_user(Some(&ada.access_token), "")).await;
        found.expect("a look-up is answered").unwrap();
    }
    for name in [
        "identity_password_calls",
        "identity_password_queue_length",
        "identity_password_lanes_in_use",
        r#"identity_database_connections_in_use{lane="writes"}"#,
        r#"identity_database_connections_waiting{lane="writes"}"#,
    ] {
        eventually(name, async || service.metric(name).await == 0.0).await;
    }
    // Every place among the checks that may fail was given back, or is counted: none is pending.
    let pending = "SELECT CAST(count(*) AS TEXT) AS value FROM attempts WHERE length(pending) > 0";
    assert_eq!(values(&service.database, pending), ["0"]);
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

/// Somebody guesses at made-up users of a domain from one address, faster than passwords are checked; its own
/// users log in from theirs.
async fn users_of_a_domain_get_in_while_somebody_guesses_at_it(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let slow = [
        ("IDENTITY_BCRYPT_COST", "11"),
        ("IDENTITY_HASH_THREADS", "1"),
        ("IDENTITY_HASH_LANES", "1"),
        ("IDENTITY_HASH_MAX_WAIT", "20s"),
    ];
    let service = TestService::start_with(database, &slow).await;
    let client = service.client();
    let (_, token) = token(&service.database, &[]).await;
    for n in 0..10 {
        client.register(registration(&format!("user{n}@victim.example"))).await.unwrap();
    }
    let caller = (client.clone(), token);
    let login_from = move |address: String, email: String, password: &'static str| {
        let (client, token) = caller.clone();
        async move {
            let message = LoginRequest { email, password: password.into() };
            let metadata = [(SERVICE_TOKEN, token.as_str()), ("x-identity-end-user-address", &address)];
            client.service.clone().login(with(message, &metadata)).await
        }
    };
    // Sixty a second, several times what one lane computes at this cost.
    let mut guesses = JoinSet::new();
    let guess = login_from.clone();
    guesses.spawn(async move {
        let mut under_way = JoinSet::new();
        for n in 0.. {
            let email = format!("guess{n}@victim.example");
            under_way.spawn(guess("192.0.2.66".to_owned(), email, "wrong"));
            while under_way.try_join_next().is_some() {}
            sleep(Duration::from_millis(16)).await;
        }
    });
    let refused = async || {
        let of = async |reason| {
            service.metric(&format!(r#"identity_password_refused_total{{reason="{reason}"}}"#)).await
        };
        of("full").await + of("share").await + of("deadline").await
    };
    eventually("guesses fill the queue", async || refused().await > 20.0).await;
    let mut got_in = 0;
    for n in 0..10 {
        let outcome = login_from(format!("198.51.100.{n}"), format!("user{n}@victim.example"), PASSWORD);
        got_in += usize::from(outcome.await.is_ok());
    }
    guesses.shutdown().await;
    assert!(got_in >= 9, "{got_in} of 10");
}

/// Renames a user; the name is a new one each time unless it is given.
async fn rename(client: &Client, person: &Person, name: &str) -> Result<(), Status> {
    let user = User { id: person.user.id.clone(), first_name: name.into(), ..User::default() };
    let mask = FieldMask { paths: vec!["first_name".into()] };
    let message = UpdateUserRequest { user: Some(user), update_mask: Some(mask) };
    client.directory.clone().update_user(person.request(message)).await.map(drop)
}

async fn who_changes_without_pause_is_slowed_and_nobody_else_is(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let variables = [("IDENTITY_CHANGE_BURST", "20"), ("IDENTITY_CHANGE_RATE", "1")];
    let service = TestService::start_with(database, &variables).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let eve = founder(&client, "eve@example.com").await;
    let began = Instant::now();
    let mut changed = 0;
    let refused_with = loop {
        match rename(&client, &ada, &new_id()).await {
            Ok(()) => changed += 1,
            Err(status) => break status,
        }
    };
    assert!(changed >= 20 && changed <= 20 + began.elapsed().as_secs() + 1, "{changed}");
    let delay = tonic_types::StatusExt::get_details_retry_info(&refused_with).unwrap().retry_delay.unwrap();
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(1), "{delay:?}");
    assert_eq!(refusal(Err::<(), _>(refused_with)), refused(Code::ResourceExhausted, "TOO_MANY_CHANGES"));
    // Look-ups are no changes, and others have their own.
    client.get_user(Some(&ada.access_token), "").await.unwrap();
    for _ in 0..10 {
        rename(&client, &eve, &new_id()).await.unwrap();
    }
    let refusals = r#"identity_limit_refusals_total{limit="changes"}"#;
    assert!(service.metric(refusals).await >= 1.0);
}

async fn what_changes_nothing_is_written_nowhere(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let variables = [("IDENTITY_CHANGE_BURST", "5"), ("IDENTITY_CHANGE_RATE", "1")];
    let service = TestService::start_with(database, &variables).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    rename(&client, &ada, "Augusta").await.unwrap();
    let events = || values(&service.database, "SELECT CAST(count(*) AS TEXT) AS value FROM audit_events");
    let before = events();
    for _ in 0..50 {
        rename(&client, &ada, "Augusta").await.unwrap();
    }
    assert_eq!(events(), before);
}

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let polling = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), polling).await.is_ok(), "{what}: not within 60 s");
}
