//! How far each kind of caller gets in each RPC: as far as the access table says, and no further.

use identity::proto::v1::{
    BatchGetUsersRequest, ChangePasswordRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest,
    GetTenantRequest, GetUserByEmailRequest, GetUserByExternalIdRequest, GetUserRequest,
    ListAuditEventsRequest, ListSessionsRequest, ListTenantsRequest, ListUsersRequest, LoginRequest,
    LogoutRequest, RefreshSessionRequest, RevokeSessionRequest, RevokeUserSessionsRequest, Role,
    SetPasswordRequest, SetUserStateRequest, Tenant, UpdateTenantRequest, UpdateUserRequest, User, UserState,
    VerifyTokenRequest,
};
use identity::service::access::{Access, AccessTable, Reach, Rpc};
use prost_types::FieldMask;
use tonic::{Code, Request, Status};

use crate::database::execute;
use crate::fixture::{claim, new_id, row, rpcs};
use crate::services::{SERVICE_TOKEN, token};
use crate::support::service::{Client, Engine, TestDatabase, TestService, on_both_databases, registration};
use crate::world::{House, Person, REGISTRATIONS, is_in, newcomer};

on_both_databases!(
    every_caller_reaches_what_the_table_says,
    every_cell_of_the_table_that_says_denied_refuses_its_callers,
);

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Anonymous,
    Member,
    Admin,
    Owner,
    Service,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Anonymous, Self::Member, Self::Admin, Self::Owner, Self::Service];

    fn reach(self, access: Access) -> Reach {
        match (self, access) {
            (_, Access::Open) => Reach::Everything,
            (Self::Anonymous, Access::Limited { .. }) => Reach::Denied,
            (Self::Member, Access::Limited { member, .. }) => member,
            (Self::Admin, Access::Limited { admin, .. }) => admin,
            (Self::Owner, Access::Limited { owner, .. }) => owner,
            (Self::Service, Access::Limited { service, .. }) => service,
        }
    }

    /// The contract's table, in which this kind of caller may call nothing.
    fn denied(self) -> AccessTable {
        let table = AccessTable::default();
        Rpc::ALL.iter().fold(table.clone(), |denying, rpc| {
            let mut row = table.of(*rpc);
            match (self, &mut row) {
                // Who calls makes a difference now, and anonymous callers are none of those who may.
                (Self::Anonymous, row) => {
                    let all = Reach::Everything;
                    *row = Access::Limited { member: all, admin: all, owner: all, service: all };
                }
                (_, Access::Open) => {}
                (Self::Member, Access::Limited { member, .. }) => *member = Reach::Denied,
                (Self::Admin, Access::Limited { admin, .. }) => *admin = Reach::Denied,
                (Self::Owner, Access::Limited { owner, .. }) => *owner = Reach::Denied,
                (Self::Service, Access::Limited { service, .. }) => *service = Reach::Denied,
            }
            denying.with(*rpc, row)
        })
    }

    /// What such a caller sends along.
    fn metadata(self, house: &House, service_token: &str) -> Option<(&'static str, String)> {
        match self.person(house) {
            Some(person) => Some(("authorization", person.bearer())),
            None => (self == Self::Service).then(|| (SERVICE_TOKEN, service_token.to_owned())),
        }
    }

    /// Who calls, if it is a user.
    fn person(self, house: &House) -> Option<&Person> {
        match self {
            Self::Anonymous | Self::Service => None,
            Self::Member => Some(&house.member),
            Self::Admin => Some(&house.admin),
            Self::Owner => Some(&house.owner),
        }
    }
}

/// Somebody who calls.
struct Caller<'c> {
    service: &'c TestService,
    database: &'c TestDatabase,
    client: &'c Client,
    metadata: Option<(&'static str, String)>,
}

impl Caller<'_> {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((name, value)) = &self.metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// Whether a call of `rpc` reaches what belongs to `target`, or to their tenant, of whom the caller knows
    /// all ids and tokens.
    async fn reaches(&self, rpc: &str, target: &Person) -> Result<bool, Status> {
        let mut calls = self.client.service.clone();
        let mut directory = self.client.directory.clone();
        let session_id = claim(&target.access_token, "sid");
        let user_id = target.user.id.clone();
        let tenant_id = target.user.tenant_id.clone();
        let is_open = async || is_in(self.service, target).await;
        let names = FieldMask { paths: vec!["first_name".into()] };
        match rpc.rsplit('/').next().unwrap() {
            // Belongs to nobody before.
            "Register" => {
                let message = registration(&format!("{}@example.com", new_id()));
                calls.register(self.request(message)).await.map(|_| true)
            }
            "Login" => {
                let message =
                    LoginRequest { email: target.user.email.clone(), password: target.password.clone() };
                let opened = calls.login(self.request(message)).await?.into_inner();
                Ok(opened.user.unwrap().id == user_id)
            }
            "GetUser" => {
                let message = GetUserRequest { user_id: user_id.clone(), ..GetUserRequest::default() };
                let found = calls.get_user(self.request(message)).await?.into_inner();
                Ok(found.user.unwrap().id == user_id)
            }
            "RefreshSession" => {
                let message = RefreshSessionRequest { refresh_token: target.refresh_token.clone() };
                let next = calls.refresh_session(self.request(message)).await?;
                Ok(claim(&next.get_ref().access_token, "sid") == session_id)
            }
            "Logout" => {
                let message = LogoutRequest { refresh_token: target.refresh_token.clone() };
                calls.logout(self.request(message)).await?;
                Ok(!is_open().await)
            }
            "ListSessions" => {
                let message = ListSessionsRequest { page_size: 100, ..ListSessionsRequest::default() };
                let listed = calls.list_sessions(self.request(message)).await?.into_inner().sessions;
                Ok(listed.iter().any(|session| session.id == session_id))
            }
            "RevokeSession" => {
                calls.revoke_session(self.request(RevokeSessionRequest { session_id })).await?;
                Ok(!is_open().await)
            }
            "ChangePassword" => {
                let new_password = format!("{} and more", target.password);
                let message = ChangePasswordRequest {
                    current_password: target.password.clone(),
                    new_password: new_password.clone(),
                };
                calls.change_password(self.request(message)).await?;
                Ok(self.client.login(&target.user.email, &new_password).await.is_ok())
            }
            "VerifyToken" => {
                let message = VerifyTokenRequest { access_token: target.access_token.clone() };
                let verified = calls.verify_token(self.request(message)).await?;
                Ok(verified.get_ref().user_id == user_id)
            }
            "CreateUser" => {
                let email = format!("{}@example.com", new_id());
                let message =
                    CreateUserRequest { tenant_id: tenant_id.clone(), ..newcomer(&email, Role::Member) };
                let created = directory.create_user(self.request(message)).await?.into_inner();
                Ok(created.user.unwrap().tenant_id == tenant_id)
            }
            "UpdateUser" => {
                let user = User { id: user_id, first_name: "Changed".into(), ..User::default() };
                let message = UpdateUserRequest {
                    user: Some(user),
                    update_mask: Some(names),
                    ..UpdateUserRequest::default()
                };
                let updated = directory.update_user(self.request(message)).await?.into_inner();
                Ok(updated.user.unwrap().first_name == "Changed")
            }
            "SetUserState" => {
                let state = UserState::Disabled.into();
                let message = SetUserStateRequest { user_id, state, ..SetUserStateRequest::default() };
                directory.set_user_state(self.request(message)).await?;
                Ok(!is_open().await)
            }
            "SetPassword" => {
                let new_password = format!("{} and more", target.password);
                let message = SetPasswordRequest {
                    user_id,
                    new_password: new_password.clone(),
                    ..SetPasswordRequest::default()
                };
                directory.set_password(self.request(message)).await?;
                Ok(self.client.login(&target.user.email, &new_password).await.is_ok())
            }
            "RevokeUserSessions" => {
                let message = RevokeUserSessionsRequest { user_id, ..RevokeUserSessionsRequest::default() };
                directory.revoke_user_sessions(self.request(message)).await?;
                Ok(!is_open().await)
            }
            "DeleteUser" => {
                let message = DeleteUserRequest { user_id, ..DeleteUserRequest::default() };
                directory.delete_user(self.request(message)).await?;
                Ok(self.client.login(&target.user.email, &target.password).await.is_err())
            }
            "BatchGetUsers" => {
                let message = BatchGetUsersRequest { user_ids: vec![user_id], tenant_id: String::new() };
                let found = directory.batch_get_users(self.request(message)).await?.into_inner().users;
                Ok(!found.is_empty())
            }
            "GetUserByEmail" => {
                let message = GetUserByEmailRequest { email: target.user.email.clone() };
                let found = directory.get_user_by_email(self.request(message)).await?.into_inner();
                Ok(found.user.unwrap().id == user_id)
            }
            "GetUserByExternalId" => {
                execute(self.database, "UPDATE users SET external_id = email");
                let message =
                    GetUserByExternalIdRequest { tenant_id, external_id: target.user.email.clone() };
                let found = directory.get_user_by_external_id(self.request(message)).await?.into_inner();
                Ok(found.user.unwrap().id == user_id)
            }
            "ListUsers" => {
                let message = ListUsersRequest { tenant_id, ..ListUsersRequest::default() };
                let listed = directory.list_users(self.request(message)).await?.into_inner().users;
                Ok(listed.iter().any(|user| user.id == user_id))
            }
            "GetTenant" => {
                let message = GetTenantRequest { tenant_id: tenant_id.clone() };
                let found = directory.get_tenant(self.request(message)).await?.into_inner();
                Ok(found.tenant.unwrap().id == tenant_id)
            }
            "UpdateTenant" => {
                let tenant = Tenant { id: tenant_id, name: "Changed".into(), ..Tenant::default() };
                let mask = FieldMask { paths: vec!["name".into()] };
                let message = UpdateTenantRequest { tenant: Some(tenant), update_mask: Some(mask) };
                let updated = directory.update_tenant(self.request(message)).await?.into_inner();
                Ok(updated.tenant.unwrap().name == "Changed")
            }
            "DeleteTenant" => {
                let message = DeleteTenantRequest { tenant_id, ..DeleteTenantRequest::default() };
                directory.delete_tenant(self.request(message)).await?;
                Ok(self.client.login(&target.user.email, &target.password).await.is_err())
            }
            "ListTenants" => {
                let message = ListTenantsRequest { page_size: 1_000, ..ListTenantsRequest::default() };
                let listed = directory.list_tenants(self.request(message)).await?.into_inner().tenants;
                Ok(listed.iter().any(|tenant| tenant.id == tenant_id))
            }
            "ListAuditEvents" => {
                let message = ListAuditEventsRequest { tenant_id, ..ListAuditEventsRequest::default() };
                let mut audit = self.client.audit.clone();
                let listed = audit.list_audit_events(self.request(message)).await?.into_inner().events;
                Ok(!listed.is_empty())
            }
            _ => panic!("{rpc} has no case here"),
        }
    }
}

/// How far somebody gets who reaches what is their own, their tenant's and another tenant's, or not.
fn reach(reached: [bool; 3]) -> Reach {
    match reached {
        [false, false, false] => Reach::Denied,
        [true, false, false] => Reach::Own,
        [true, true, false] => Reach::OwnTenant,
        [true, true, true] => Reach::Everything,
        odd => panic!("of their own, their tenant's and another tenant's: {odd:?}"),
    }
}

/// Whether a call of `rpc` leaves everything as it was.
fn only_reads(rpc: &str) -> bool {
    let method = rpc.rsplit('/').next().unwrap();
    ["Get", "List", "BatchGet", "Verify"].iter().any(|verb| method.starts_with(verb))
}

async fn every_caller_reaches_what_the_table_says(engine: Engine) {
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &[REGISTRATIONS]).await;
    let client = service.client();
    let (_, service_token) = token(&service.database, &[]).await;
    let mut houses = [House::build(&client).await, House::build(&client).await];
    for rpc in rpcs() {
        let row = row(&rpc);
        for kind in Kind::ALL {
            let says = kind.reach(row);
            let mut reached = [false; 3];
            for (n, reached) in reached.iter_mut().enumerate() {
                let [house, elsewhere] = &houses;
                let person = kind.person(house);
                let metadata = kind.metadata(house, &service_token);
                // One's own password is changed by another RPC.
                let own = person.filter(|_| !rpc.ends_with("/SetPassword")).unwrap_or(&house.member);
                let target = [own, &house.other_member, &elsewhere.other_member][n];
                let caller =
                    Caller { service: &service, database: &service.database, client: &client, metadata };
                let outcome = caller.reaches(&rpc, target).await;
                let about = format!("{rpc} by {kind:?} for {target:?}: {outcome:?}");
                *reached = outcome.as_ref().is_ok_and(|reached| *reached);
                let code = outcome.err().map(|status| status.code());
                let is_named = matches!(
                    rpc.rsplit('/').next().unwrap(),
                    "GetUser"
                        | "RevokeSession"
                        | "CreateUser"
                        | "SetUserState"
                        | "SetPassword"
                        | "DeleteUser"
                        | "GetUserByEmail"
                        | "GetUserByExternalId"
                        | "ListUsers"
                        | "GetTenant"
                        | "UpdateTenant"
                        | "DeleteTenant"
                        | "ListAuditEvents"
                        | "UpdateUser"
                        | "RevokeUserSessions"
                );
                match (kind, says) {
                    (Kind::Anonymous, Reach::Denied) => {
                        assert_eq!(code, Some(Code::Unauthenticated), "{about}");
                    }
                    (_, Reach::Denied) => assert_eq!(code, Some(Code::PermissionDenied), "{about}"),
                    // A colleague is there, and may not be touched.
                    (_, Reach::Own) if n == 1 && rpc.contains("DirectoryService/") => {
                        assert_eq!(code, Some(Code::PermissionDenied), "{about}");
                    }
                    // What is out of reach does not exist.
                    _ if is_named => assert_eq!(code, (!*reached).then_some(Code::NotFound), "{about}"),
                    _ => assert_ne!(code, Some(Code::PermissionDenied), "{about}"),
                }
                if *reached && !only_reads(&rpc) {
                    houses = [House::build(&client).await, House::build(&client).await];
                }
            }
            assert_eq!(reach(reached), says, "{rpc} by {kind:?}");
        }
    }
}

async fn every_cell_of_the_table_that_says_denied_refuses_its_callers(engine: Engine) {
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &[REGISTRATIONS]).await;
    let (_, service_token) = token(&service.database, &[]).await;
    let house = House::build(&service.client()).await;
    for denied in Kind::ALL {
        let denying = TestService::start_with_access(service.database.again(), denied.denied()).await;
        let client = denying.client();
        for rpc in rpcs() {
            let row = denied.denied().of(Rpc::find(&rpc).unwrap());
            if row == Access::Open {
                continue;
            }
            let metadata = denied.metadata(&house, &service_token);
            let caller = Caller { service: &denying, database: &service.database, client: &client, metadata };
            let target = denied.person(&house).unwrap_or(&house.member);
            let refused = caller.reaches(&rpc, target).await.expect_err(&rpc);
            let is_unknown = denied == Kind::Anonymous;
            let expected = if is_unknown { Code::Unauthenticated } else { Code::PermissionDenied };
            assert_eq!(refused.code(), expected, "{rpc} by {denied:?}: {refused:?}");
        }
    }
}
