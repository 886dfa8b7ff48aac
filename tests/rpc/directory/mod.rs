//! Users and tenants over the wire: created, found, listed, changed and removed.

mod bad_input;
mod bounded;
mod deleted;
mod etags;
mod external_ids;
mod lists;
mod masks;
mod owners;
mod page_tokens;
mod passwords;
mod roles;
mod searches;
mod standing;
mod states;
mod tenants;
mod users;

use identity::domain::{
    Clock as _, Email, Profile, SystemClock, TenantId, Timestamp, User as DomainUser, UserId,
};
use identity::proto::v1::{
    BatchGetUsersRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest, GetTenantRequest,
    GetUserByEmailRequest, GetUserByExternalIdRequest, ListTenantsRequest, ListTenantsResponse,
    ListUsersRequest, ListUsersResponse, RevokeUserSessionsRequest, Role, SetPasswordRequest,
    SetUserStateRequest, Tenant, UpdateTenantRequest, UpdateUserRequest, User, UserState,
};
use identity::service::access::{Access, Rpc};
use identity::storage::{self, Inserted, Storage};
use prost_types::FieldMask;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::fixture::{call_raw, refusal, refused, row, rpcs};
use crate::services::{SERVICE_TOKEN, token};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, TestService, bad_fields};
use crate::world::{Person, REGISTRATIONS};

/// A server where many tenants may register.
async fn start(engine: Engine) -> TestService {
    TestService::start_with(TestDatabase::migrated(engine).await, &[REGISTRATIONS]).await
}

/// Somebody who calls, and how.
#[derive(Clone)]
struct Caller {
    client: Client,
    credential: (&'static str, String),
}

impl Caller {
    fn user(client: &Client, person: &Person) -> Self {
        Self { client: client.clone(), credential: ("authorization", person.bearer()) }
    }

    /// The service `billing`, which may call everything.
    async fn service(service: &TestService) -> Self {
        let (_, text) = token(&service.database, &[]).await;
        Self { client: service.client(), credential: (SERVICE_TOKEN, text) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(self.credential.0, self.credential.1.parse().unwrap());
        request
    }

    async fn create(&self, message: CreateUserRequest) -> Result<User, Status> {
        let created = self.client.directory.clone().create_user(self.request(message)).await?;
        Ok(created.into_inner().user.unwrap())
    }

    /// Changes what `paths` name to what `user` has.
    async fn update(&self, user: User, paths: &[&str]) -> Result<User, Status> {
        self.update_with(user, paths, PASSWORD).await
    }

    /// As [`Caller::update`], with that for the caller's password.
    async fn update_with(&self, user: User, paths: &[&str], password: &str) -> Result<User, Status> {
        let message = UpdateUserRequest {
            user: Some(user),
            update_mask: mask(paths),
            current_password: password.into(),
        };
        let updated = self.client.directory.clone().update_user(self.request(message)).await?;
        Ok(updated.into_inner().user.unwrap())
    }

    async fn rename(&self, id: &str, first_name: &str) -> Result<User, Status> {
        self.update(User { id: id.into(), first_name: first_name.into(), ..User::default() }, &["first_name"])
            .await
    }

    async fn set_email(&self, id: &str, email: &str) -> Result<User, Status> {
        self.update(User { id: id.into(), email: email.into(), ..User::default() }, &["email"]).await
    }

    async fn set_role(&self, id: &str, role: Role) -> Result<User, Status> {
        self.update(User { id: id.into(), role: role.into(), ..User::default() }, &["role"]).await
    }

    async fn set_state(&self, id: &str, state: UserState, etag: &str) -> Result<User, Status> {
        let message = SetUserStateRequest {
            user_id: id.into(),
            state: state.into(),
            etag: etag.into(),
            ..SetUserStateRequest::default()
        };
        let changed = self.client.directory.clone().set_user_state(self.request(message)).await?;
        Ok(changed.into_inner().user.unwrap())
    }

    async fn set_password(&self, id: &str, new_password: &str) -> Result<(), Status> {
        let message = SetPasswordRequest {
            user_id: id.into(),
            new_password: new_password.into(),
            ..SetPasswordRequest::default()
        };
        self.client.directory.clone().set_password(self.request(message)).await.map(drop)
    }

    async fn revoke_sessions(&self, id: &str) -> Result<(), Status> {
        let message =
            RevokeUserSessionsRequest { user_id: id.into(), ..RevokeUserSessionsRequest::default() };
        self.client.directory.clone().revoke_user_sessions(self.request(message)).await.map(drop)
    }

    async fn delete(&self, id: &str, etag: &str) -> Result<(), Status> {
        let message =
            DeleteUserRequest { user_id: id.into(), etag: etag.into(), ..DeleteUserRequest::default() };
        self.client.directory.clone().delete_user(self.request(message)).await.map(drop)
    }

    async fn batch(&self, ids: &[&str]) -> Result<Vec<User>, Status> {
        let user_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let message = BatchGetUsersRequest { user_ids, tenant_id: String::new() };
        let found = self.client.directory.clone().batch_get_users(self.request(message)).await?;
        Ok(found.into_inner().users)
    }

    /// The user as everybody of the tenant sees him.
    async fn get(&self, id: &str) -> Option<User> {
        self.batch(&[id]).await.unwrap().pop()
    }

    async fn find(&self, email: &str) -> Result<User, Status> {
        let message = GetUserByEmailRequest { email: email.into() };
        let found = self.client.directory.clone().get_user_by_email(self.request(message)).await?;
        Ok(found.into_inner().user.unwrap())
    }

    async fn find_external(&self, tenant_id: &str, external_id: &str) -> Result<User, Status> {
        let (tenant_id, external_id) = (tenant_id.into(), external_id.into());
        let message = GetUserByExternalIdRequest { tenant_id, external_id };
        let found = self.client.directory.clone().get_user_by_external_id(self.request(message)).await?;
        Ok(found.into_inner().user.unwrap())
    }

    async fn list(&self, message: ListUsersRequest) -> Result<ListUsersResponse, Status> {
        self.client.directory.clone().list_users(self.request(message)).await.map(Response::into_inner)
    }

    async fn get_tenant(&self, tenant_id: &str) -> Result<Tenant, Status> {
        let message = GetTenantRequest { tenant_id: tenant_id.into() };
        let found = self.client.directory.clone().get_tenant(self.request(message)).await?;
        Ok(found.into_inner().tenant.unwrap())
    }

    async fn update_tenant(&self, tenant_id: &str, name: &str, etag: &str) -> Result<Tenant, Status> {
        let tenant =
            Tenant { id: tenant_id.into(), name: name.into(), etag: etag.into(), ..Tenant::default() };
        let message = UpdateTenantRequest { tenant: Some(tenant), update_mask: mask(&["name"]) };
        let updated = self.client.directory.clone().update_tenant(self.request(message)).await?;
        Ok(updated.into_inner().tenant.unwrap())
    }

    async fn delete_tenant(&self, tenant_id: &str, etag: &str) -> Result<(), Status> {
        let message = DeleteTenantRequest { tenant_id: tenant_id.into(), etag: etag.into() };
        self.client.directory.clone().delete_tenant(self.request(message)).await.map(drop)
    }

    async fn list_tenants(&self, message: ListTenantsRequest) -> Result<ListTenantsResponse, Status> {
        self.client.directory.clone().list_tenants(self.request(message)).await.map(Response::into_inner)
    }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

fn role_too_low() -> (Code, String) {
    refused(Code::PermissionDenied, "ROLE_TOO_LOW")
}

fn user_not_found() -> (Code, String) {
    refused(Code::NotFound, "USER_NOT_FOUND")
}

fn email_taken() -> (Code, String) {
    refused(Code::AlreadyExists, "EMAIL_TAKEN")
}

fn last_owner() -> (Code, String) {
    refused(Code::FailedPrecondition, "LAST_OWNER")
}

fn etag_stale() -> (Code, String) {
    refused(Code::Aborted, "ETAG_STALE")
}

fn login_failed() -> (Code, String) {
    refused(Code::Unauthenticated, "LOGIN_FAILED")
}

/// The code of a refusal, and the fields that it complains of.
fn invalid<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, Vec<String>) {
    let status = result.unwrap_err();
    (status.code(), bad_fields(&status))
}

fn named(fields: &[&str]) -> (Code, Vec<String>) {
    (Code::InvalidArgument, fields.iter().map(|field| (*field).to_owned()).collect())
}

/// Asserts that no RPC takes an access token that it would look at.
async fn assert_refused_by_every_rpc(client: &Client, person: &Person) {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", person.bearer().parse().unwrap());
    let mut refusals = 0;
    for rpc in rpcs() {
        if row(&rpc) == Access::Open {
            continue;
        }
        // No user gets as far as to be looked at.
        let is_for_services = rpc == Rpc::ListTenants.name();
        let expected = match is_for_services {
            true => refused(Code::PermissionDenied, "PERMISSION_DENIED"),
            false => refused(Code::Unauthenticated, "TOKEN_INVALID"),
        };
        let result = call_raw(client, &rpc, Vec::new(), metadata.clone()).await;
        assert_eq!(refusal(result), expected, "{rpc}");
        refusals += 1;
    }
    assert!(refusals > 15);
    assert!(!client.verify_token(&person.access_token).await.unwrap().active);
}

/// Users who are written without passwords, many at a time.
struct Crowd {
    storage: Storage,
    like: DomainUser,
}

impl Crowd {
    /// A crowd in the tenant of `person`.
    async fn beside(service: &TestService, person: &Person) -> Self {
        let storage = crate::database::storage(&service.database);
        let tenant_id = TenantId::parse(&person.user.tenant_id).unwrap();
        let id = UserId::parse(person.id()).unwrap();
        let mut conn = storage.read().await.unwrap();
        let like = storage::users::find(&mut conn, tenant_id, id).await.unwrap().unwrap();
        drop(conn);
        Self { storage, like }
    }

    /// A member of that e-mail who was created at that time, not written yet.
    fn member(&self, email: &str, created_at: Timestamp) -> DomainUser {
        DomainUser {
            id: UserId::generate(SystemClock.now()),
            profile: Profile { email: Email::parse(email).unwrap(), ..self.like.profile.clone() },
            role: identity::domain::Role::Member,
            created_at,
            updated_at: created_at,
            ..self.like.clone()
        }
    }

    async fn insert(&self, users: &[DomainUser]) {
        let mut tx = self.storage.begin("insert a crowd").await.unwrap();
        for user in users {
            assert_eq!(storage::users::insert(&mut tx, user).await.unwrap(), Inserted::Yes);
            let name =
                storage::logins::insert_name(&mut tx, &user.profile.email, user.tenant.id, user.id).await;
            assert_eq!(name.unwrap(), Inserted::Yes);
        }
        tx.commit().await.unwrap();
    }

    async fn delete(&self, ids: &[UserId]) {
        let mut tx = self.storage.begin("delete of a crowd").await.unwrap();
        assert_eq!(storage::users::delete(&mut tx, self.like.tenant.id, ids).await.unwrap(), ids.len());
        tx.commit().await.unwrap();
    }
}
