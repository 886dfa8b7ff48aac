//! A deleted tenant whose rows are still there: every RPC answers as if it had never been, and what it had is free.

use std::time::Duration;

use identity::proto::v1::{
    BatchGetUsersRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest, GetTenantRequest,
    GetUserByEmailRequest, GetUserByExternalIdRequest, GetUserRequest, ListTenantsRequest, ListUsersRequest,
    LoginRequest, RegisterRequest, RevokeSessionRequest, RevokeUserSessionsRequest, Role, SetPasswordRequest,
    SetUserStateRequest, Tenant, UpdateTenantRequest, UpdateUserRequest, User, UserState, VerifyTokenRequest,
};
use prost::Message as _;
use prost_types::FieldMask;
use tonic::Code;
use tonic::metadata::MetadataMap;

use super::{Caller, assert_refused_by_every_rpc};
use crate::database::{census, census_becomes, count, execute};
use crate::fixture::{TestClock, call_raw, claim, new_id, refusal, refused, rpcs, visible};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::world::{House, REGISTRATIONS, create, founder, newcomer};

on_both_databases!(
    every_rpc_answers_as_if_a_deleted_tenant_had_never_been,
    what_a_deleted_tenant_had_is_free_for_everybody,
);

/// A server whose clock stands still: what is left of a deleted tenant stays until the test moves it.
async fn start(engine: Engine) -> (TestService, std::sync::Arc<TestClock>) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    (TestService::start_at(database, &[REGISTRATIONS], clock.clone()).await, clock)
}

/// What calls name of a tenant.
struct Names {
    tenant_id: String,
    user_id: String,
    email: String,
    session_id: String,
}

impl Names {
    fn of_nobody() -> Self {
        let email = format!("{}-member@example.com", new_id());
        Self { tenant_id: new_id(), user_id: new_id(), email, session_id: new_id() }
    }

    /// Messages for a method that name what this is. None where a test of its own looks at the method.
    fn messages(&self, method: &str) -> Vec<Vec<u8>> {
        let Self { tenant_id, user_id, email, session_id } = self;
        let tenants = [String::new(), tenant_id.clone()];
        let mask = |path: &str| Some(FieldMask { paths: vec![path.to_owned()] });
        let user = User { id: user_id.clone(), first_name: "New".into(), ..User::default() };
        match method {
            // Free: the other test. Their events stay: tests of the audit log.
            "Register" | "ListAuditEvents" => vec![],
            // Whose tokens these are, the test says itself.
            "Logout" | "RefreshSession" | "VerifyToken" => vec![],
            "Login" => vec![LoginRequest { email: email.clone(), password: PASSWORD.into() }.encode_to_vec()],
            "GetUser" => tenants
                .map(|tenant_id| GetUserRequest { user_id: user_id.clone(), tenant_id }.encode_to_vec())
                .into(),
            "ListSessions" | "ChangePassword" => vec![vec![]],
            "RevokeSession" => {
                vec![RevokeSessionRequest { session_id: session_id.clone() }.encode_to_vec()]
            }
            "CreateUser" => {
                let message = newcomer("newcomer@example.com", Role::Member);
                vec![CreateUserRequest { tenant_id: tenant_id.clone(), ..message }.encode_to_vec()]
            }
            "UpdateUser" => vec![
                UpdateUserRequest {
                    user: Some(user.clone()),
                    update_mask: mask("first_name"),
                    ..UpdateUserRequest::default()
                }
                .encode_to_vec(),
                UpdateUserRequest {
                    user: Some(User { tenant_id: tenant_id.clone(), ..user }),
                    update_mask: mask("first_name"),
                    ..UpdateUserRequest::default()
                }
                .encode_to_vec(),
            ],
            "SetUserState" => tenants
                .map(|tenant_id| {
                    let state = UserState::Disabled.into();
                    let user_id = user_id.clone();
                    SetUserStateRequest { user_id, state, tenant_id, ..Default::default() }.encode_to_vec()
                })
                .into(),
            "SetPassword" => tenants
                .map(|tenant_id| {
                    let new_password = "another good one".to_owned();
                    SetPasswordRequest { user_id: user_id.clone(), new_password, tenant_id }.encode_to_vec()
                })
                .into(),
            "RevokeUserSessions" => tenants
                .map(|tenant_id| {
                    RevokeUserSessionsRequest { user_id: user_id.clone(), tenant_id }.encode_to_vec()
                })
                .into(),
            "DeleteUser" => tenants
                .map(|tenant_id| {
                    DeleteUserRequest { user_id: user_id.clone(), tenant_id, ..Default::default() }
                        .encode_to_vec()
                })
                .into(),
            "BatchGetUsers" => tenants
                .map(|tenant_id| {
                    BatchGetUsersRequest { user_ids: vec![user_id.clone()], tenant_id }.encode_to_vec()
                })
                .into(),
            "GetUserByEmail" => vec![GetUserByEmailRequest { email: email.clone() }.encode_to_vec()],
            "GetUserByExternalId" => tenants
                .map(|tenant_id| {
                    GetUserByExternalIdRequest { tenant_id, external_id: email.clone() }.encode_to_vec()
                })
                .into(),
            "ListUsers" => ["", "x"]
                .map(|email_prefix| {
                    let email_prefix = email_prefix.to_owned();
                    let tenant_id = tenant_id.clone();
                    ListUsersRequest { tenant_id, email_prefix, count_total: true, ..Default::default() }
                        .encode_to_vec()
                })
                .into(),
            "GetTenant" => vec![GetTenantRequest { tenant_id: tenant_id.clone() }.encode_to_vec()],
            "UpdateTenant" => {
                let tenant = Tenant { id: tenant_id.clone(), name: "New".into(), ..Tenant::default() };
                vec![UpdateTenantRequest { tenant: Some(tenant), update_mask: mask("name") }.encode_to_vec()]
            }
            "DeleteTenant" => {
                vec![
                    DeleteTenantRequest { tenant_id: tenant_id.clone(), ..Default::default() }
                        .encode_to_vec(),
                ]
            }
            "ListTenants" => {
                vec![ListTenantsRequest { count_total: true, ..Default::default() }.encode_to_vec()]
            }
            _ => panic!("say what names a tenant in {method}"),
        }
    }
}

async fn every_rpc_answers_as_if_a_deleted_tenant_had_never_been(engine: Engine) {
    let (service, clock) = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let billing = Caller::service(&service).await;
    execute(&service.database, "UPDATE users SET external_id = email");
    Caller::user(&client, &house.owner).delete_tenant(&house.tenant.id, "").await.unwrap();

    // Its own people have no session any more.
    for person in house.people() {
        assert_refused_by_every_rpc(&client, person).await;
        let refreshed = client.refresh(&person.refresh_token).await.unwrap_err();
        assert_eq!(visible(&refreshed), visible(&client.refresh("made up").await.unwrap_err()));
        client.logout(&person.refresh_token).await.unwrap();
        let verified = VerifyTokenRequest { access_token: person.access_token.clone() }.encode_to_vec();
        let answer =
            call_raw(&client, "identity.v1.IdentityService/VerifyToken", verified, MetadataMap::new());
        assert_eq!(answer.await.unwrap(), Vec::<u8>::new(), "nothing is said of the token");
    }
    // To others it is nobody's.
    let member = &house.member;
    let gone = Names {
        tenant_id: house.tenant.id.clone(),
        user_id: member.id().to_owned(),
        email: member.user.email.clone(),
        session_id: claim(&member.access_token, "sid"),
    };
    let mut by_user = MetadataMap::new();
    by_user.insert("authorization", elsewhere.owner.bearer().parse().unwrap());
    let mut by_service = MetadataMap::new();
    by_service.insert(billing.credential.0, billing.credential.1.parse().unwrap());
    let mut calls = 0;
    for rpc in rpcs() {
        let method = rpc.rsplit('/').next().unwrap();
        let nobodys = Names::of_nobody();
        for (of_gone, of_nobody) in gone.messages(method).into_iter().zip(nobodys.messages(method)) {
            for metadata in [&by_user, &by_service, &MetadataMap::new()] {
                let own = call_raw(&client, &rpc, of_gone.clone(), metadata.clone()).await;
                let other = call_raw(&client, &rpc, of_nobody.clone(), metadata.clone()).await;
                match (own, other) {
                    (Ok(own), Ok(other)) => {
                        assert_eq!(own.len(), other.len(), "{rpc}");
                        let own = String::from_utf8_lossy(&own);
                        assert!(
                            !own.contains(&gone.tenant_id) && !own.contains(&gone.user_id),
                            "{rpc}: {own}"
                        );
                    }
                    (Err(own), Err(other)) => assert_eq!(visible(&own), visible(&other), "{rpc}"),
                    (own, other) => panic!("{rpc}: {own:?}, and of nobody {other:?}"),
                }
                calls += 1;
            }
        }
    }
    assert!(calls > 60, "{calls}");
    let listed = billing.list_tenants(ListTenantsRequest { count_total: true, ..Default::default() });
    let listed = listed.await.unwrap();
    assert_eq!((listed.tenants.len(), listed.total_size), (1, 1));

    // All that was asked of rows that are there still.
    let [tenants, users, ..] = census(&service.database);
    assert_eq!((tenants, users), (2, 10));
    clock.advance(Duration::from_secs(60));
    census_becomes(&service.database, [1, 5, 5, 5, 5]).await;
}

/// Registers with a request id.
async fn register(client: &Client, email: &str, request_id: &str) -> Result<User, tonic::Status> {
    let message = RegisterRequest { request_id: request_id.to_owned(), ..registration(email) };
    client.register(message).await.map(|registered| registered.user.unwrap())
}

async fn what_a_deleted_tenant_had_is_free_for_everybody(engine: Engine) {
    let (service, clock) = start(engine).await;
    let client = service.client();
    let request_id = new_id();
    let first = register(&client, "ada@example.com", &request_id).await.unwrap();
    let owner = client.login("ada@example.com", PASSWORD).await.unwrap();
    let owner = crate::world::Person {
        user: first.clone(),
        password: PASSWORD.to_owned(),
        access_token: owner.access_token,
        refresh_token: owner.refresh_token,
    };
    for email in ["bob@example.com", "eve@example.com"] {
        create(&client, &owner, email, Role::Member).await;
    }
    Caller::user(&client, &owner).delete_tenant(&first.tenant_id, "").await.unwrap();

    // By registration, even under the same request id; by an administrator; by a change of one's e-mail.
    let second = register(&client, "ADA@example.com", &request_id).await.unwrap();
    assert_ne!((&second.id, &second.tenant_id), (&first.id, &first.tenant_id));
    let elsewhere = founder(&client, "grace@example.com").await;
    create(&client, &elsewhere, "bob@example.com", Role::Member).await;
    let caller = Caller::user(&client, &elsewhere);
    caller.set_email(elsewhere.id(), "eve@example.com").await.unwrap();
    assert_eq!(count(&service.database, "users"), 3 + 3, "those that were deleted are there still");
    for email in ["ada@example.com", "bob@example.com", "eve@example.com"] {
        let taken = client.register(registration(email)).await;
        assert_eq!(refusal(taken), refused(Code::AlreadyExists, "EMAIL_TAKEN"));
    }

    clock.advance(Duration::from_secs(60));
    census_becomes(&service.database, [2, 3, 3, 3, 2]).await;
    for email in ["ada@example.com", "bob@example.com", "eve@example.com"] {
        client.login(email, PASSWORD).await.unwrap();
    }
}
