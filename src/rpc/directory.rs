//! `identity.v1.DirectoryService`.

use tonic::{Request, Response, Status};

use crate::domain::Etag;
use crate::proto::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use crate::proto::v1::{
    BatchGetUsersRequest, BatchGetUsersResponse, CreateUserRequest, CreateUserResponse, DeleteTenantRequest,
    DeleteTenantResponse, DeleteUserRequest, DeleteUserResponse, GetTenantRequest, GetTenantResponse,
    GetUserByEmailRequest, GetUserByEmailResponse, ListTenantsRequest, ListTenantsResponse, ListUsersRequest,
    ListUsersResponse, RevokeUserSessionsRequest, RevokeUserSessionsResponse, SetPasswordRequest,
    SetPasswordResponse, SetUserStateRequest, SetUserStateResponse, UpdateTenantRequest,
    UpdateTenantResponse, UpdateUserRequest, UpdateUserResponse,
};
use crate::service::access;

use super::{Backend, MAX_MESSAGE_BYTES, auth, convert};

/// Creates, finds, lists, changes and removes users and tenants.
pub struct DirectoryRpc(Backend);

impl DirectoryRpc {
    /// The gRPC service in front of `backend`, ready to be added to the routes.
    pub fn server(backend: Backend) -> DirectoryServiceServer<Self> {
        DirectoryServiceServer::new(Self(backend)).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl DirectoryService for DirectoryRpc {
    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::CREATE_USER, &request).await?;
        let (tenant_id, new, password) =
            match convert::directory::new_user(request.into_inner(), service.password_policy()) {
                Ok(valid) => valid,
                Err(violations) => {
                    return Err(auth::invalid_fields(service, &caller, &context, violations).await);
                }
            };
        let refused = auth::refused(service, context.source);
        let user = service.create_user(caller, tenant_id, new, &password, context).await.map_err(refused)?;
        Ok(Response::new(CreateUserResponse { user: Some(convert::user(user)) }))
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<UpdateUserResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::UPDATE_USER, &request).await?;
        let (whose, etag, changes, password) = match convert::directory::user_update(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let refused = auth::refused(service, context.source);
        let updated = service.update_user(caller, whose, etag, changes, password, context);
        let user = updated.await.map_err(refused)?;
        Ok(Response::new(UpdateUserResponse { user: Some(convert::user(user)) }))
    }

    async fn set_user_state(
        &self,
        request: Request<SetUserStateRequest>,
    ) -> Result<Response<SetUserStateResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::SET_USER_STATE, &request).await?;
        let refused = auth::refused(service, context.source);
        let (whose, etag, state) = match convert::directory::user_state(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let user = service.set_user_state(caller, whose, etag, state, context).await.map_err(refused)?;
        Ok(Response::new(SetUserStateResponse { user: Some(convert::user(user)) }))
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::SET_PASSWORD, &request).await?;
        let (whose, password) =
            match convert::directory::new_password(request.into_inner(), service.password_policy()) {
                Ok(valid) => valid,
                Err(violations) => {
                    return Err(auth::invalid_fields(service, &caller, &context, violations).await);
                }
            };
        let refused = auth::refused(service, context.source);
        service.set_password(caller, whose, &password, context).await.map_err(refused)?;
        Ok(Response::new(SetPasswordResponse {}))
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<RevokeUserSessionsRequest>,
    ) -> Result<Response<RevokeUserSessionsResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::REVOKE_USER_SESSIONS, &request).await?;
        let refused = auth::refused(service, context.source);
        let whose =
            match convert::directory::named_user(&request.get_ref().user_id, &request.get_ref().tenant_id) {
                Ok(valid) => valid,
                Err(violations) => {
                    return Err(auth::invalid_fields(service, &caller, &context, violations).await);
                }
            };
        service.revoke_user_sessions(caller, whose, context).await.map_err(refused)?;
        Ok(Response::new(RevokeUserSessionsResponse {}))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::DELETE_USER, &request).await?;
        let refused = auth::refused(service, context.source);
        let whose =
            match convert::directory::named_user(&request.get_ref().user_id, &request.get_ref().tenant_id) {
                Ok(valid) => valid,
                Err(violations) => {
                    return Err(auth::invalid_fields(service, &caller, &context, violations).await);
                }
            };
        service
            .delete_user(caller, whose, Etag::given(request.into_inner().etag), context)
            .await
            .map_err(refused)?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::BATCH_GET_USERS, &request).await?;
        let refused = auth::refused(service, context.source);
        let (tenant_id, ids) = match convert::directory::user_ids(request.get_ref()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let users = service.batch_get_users(&caller, tenant_id, &ids, &context).await.map_err(refused)?;
        Ok(Response::new(BatchGetUsersResponse { users: convert::directory::users(users) }))
    }

    async fn get_user_by_email(
        &self,
        request: Request<GetUserByEmailRequest>,
    ) -> Result<Response<GetUserByEmailResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::GET_USER_BY_EMAIL, &request).await?;
        let refused = auth::refused(service, context.source);
        let email = match convert::directory::email(request.get_ref()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let user = service.get_user_by_email(&caller, &email, &context).await.map_err(refused)?;
        Ok(Response::new(GetUserByEmailResponse { user: Some(convert::user(user)) }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::LIST_USERS, &request).await?;
        let refused = auth::refused(service, context.source);
        let (query, page, total) = match convert::directory::user_query(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let found = service.list_users(&caller, query, page, total, &context).await.map_err(refused)?;
        Ok(Response::new(convert::directory::user_page(found)))
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::GET_TENANT, &request).await?;
        let refused = auth::refused(service, context.source);
        let tenant_id = match convert::directory::named_tenant(&request.get_ref().tenant_id) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let tenant = service.get_tenant(&caller, tenant_id, &context).await.map_err(refused)?;
        Ok(Response::new(GetTenantResponse { tenant: Some(convert::tenant(&tenant)) }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::UPDATE_TENANT, &request).await?;
        let refused = auth::refused(service, context.source);
        let (tenant_id, etag, changes) = match convert::directory::tenant_update(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let tenant =
            service.update_tenant(caller, tenant_id, etag, changes, context).await.map_err(refused)?;
        Ok(Response::new(UpdateTenantResponse { tenant: Some(convert::tenant(&tenant)) }))
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::DELETE_TENANT, &request).await?;
        let refused = auth::refused(service, context.source);
        let (tenant_id, etag) = match convert::directory::tenant_deletion(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        service.delete_tenant(caller, tenant_id, etag, context).await.map_err(refused)?;
        Ok(Response::new(DeleteTenantResponse {}))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::LIST_TENANTS, &request).await?;
        let refused = auth::refused(service, context.source);
        let (page, total) = match convert::directory::tenant_page(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let found = service.list_tenants(&caller, page, total, &context).await.map_err(refused)?;
        Ok(Response::new(convert::directory::tenant_list(found)))
    }
}
