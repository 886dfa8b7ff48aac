//! The budgets that each call takes, and the budget of changes.

use std::time::Duration;

use identity::proto::v1::{
    BatchGetUsersRequest, ChangePasswordRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest,
    GetTenantRequest, GetUserByEmailRequest, GetUserByExternalIdRequest, GetUserRequest,
    ListAuditEventsRequest, ListSessionsRequest, ListTenantsRequest, ListUsersRequest, LoginRequest,
    LogoutRequest, RefreshSessionRequest, RevokeSessionRequest, RevokeUserSessionsRequest, Role,
    SetPasswordRequest, SetUserStateRequest, Tenant, UpdateTenantRequest, UpdateUserRequest, User, UserState,
    VerifyTokenRequest,
};
use identity::service::access::Rpc;
use identity::service::admission::Budget;
use identity::storage::Lane;
use prost::Message as _;
use prost_types::FieldMask;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::database::{execute, values};
use crate::fixture::{call_raw, claim, new_id, refusal, refused, rpcs};
use crate::services::{SERVICE_TOKEN, token};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, reason, registration,
};
use crate::world::{House, Person, REGISTRATIONS, founder, newcomer};

on_both_databases!(
    every_call_takes_the_budgets_that_the_table_names,
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
            UpdateUserRequest {
                user: Some(user),
                update_mask: mask("first_name"),
                ..UpdateUserRequest::default()
            }
            .encode_to_vec()
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
        "GetUserByExternalId" => {
            let external_id = member.user.email.clone();
            GetUserByExternalIdRequest { tenant_id, external_id }.encode_to_vec()
        }
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
        (Budget::Pages, service.metric("identity_list_pages_begun_total").await),
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
        execute(&service.database, "UPDATE users SET external_id = email");
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
        let mut expected: Vec<_> = Rpc::find(&rpc)
            .unwrap()
            .budgets()
            .iter()
            .copied()
            .filter(|budget| *budget != Budget::Change)
            .collect();
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
    rpcs().into_iter().filter(|rpc| Rpc::find(rpc).unwrap().budgets().contains(&Budget::Change)).collect()
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

/// Renames a user; the name is a new one each time unless it is given.
async fn rename(client: &Client, person: &Person, name: &str) -> Result<(), Status> {
    let user = User { id: person.user.id.clone(), first_name: name.into(), ..User::default() };
    let mask = FieldMask { paths: vec!["first_name".into()] };
    let message =
        UpdateUserRequest { user: Some(user), update_mask: Some(mask), ..UpdateUserRequest::default() };
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
