//! `identity.v1.DirectoryService`.

use tonic::{Request, Response, Status};

use crate::proto::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use crate::proto::v1::{
    BatchGetUsersRequest, BatchGetUsersResponse, CreateUserRequest, CreateUserResponse, DeleteTenantRequest,
    DeleteTenantResponse, DeleteUserRequest, DeleteUserResponse, GetTenantRequest, GetTenantResponse,
    GetUserByEmailRequest, GetUserByEmailResponse, GetUserByExternalIdRequest, GetUserByExternalIdResponse,
    ListTenantsRequest, ListTenantsResponse, ListUsersRequest, ListUsersResponse, RevokeUserSessionsRequest,
    RevokeUserSessionsResponse, SetPasswordRequest, SetPasswordResponse, SetUserStateRequest,
    SetUserStateResponse, UpdateTenantRequest, UpdateTenantResponse, UpdateUserRequest, UpdateUserResponse,
};
use crate::service::access::Rpc;

use super::{Backend, MAX_MESSAGE_BYTES, answer, convert};

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
        let policy = self.0.service()?.password_policy();
        answer(
            &self.0,
            Rpc::CreateUser,
            request,
            |message| convert::directory::new_user(message, policy),
            async |service, call, (tenant_id, new, password)| {
                service.create_user(call, tenant_id, new, &password).await
            },
            |user| CreateUserResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<UpdateUserResponse>, Status> {
        answer(
            &self.0,
            Rpc::UpdateUser,
            request,
            convert::directory::user_update,
            async |service, call, (whose, etag, changes, password)| {
                service.update_user(call, whose, etag, changes, password).await
            },
            |user| UpdateUserResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn set_user_state(
        &self,
        request: Request<SetUserStateRequest>,
    ) -> Result<Response<SetUserStateResponse>, Status> {
        answer(
            &self.0,
            Rpc::SetUserState,
            request,
            convert::directory::user_state,
            async |service, call, (whose, etag, state)| {
                service.set_user_state(call, whose, etag, state).await
            },
            |user| SetUserStateResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        let policy = self.0.service()?.password_policy();
        answer(
            &self.0,
            Rpc::SetPassword,
            request,
            |message| convert::directory::new_password(message, policy),
            async |service, call, (whose, password)| service.set_password(call, whose, &password).await,
            |()| SetPasswordResponse {},
        )
        .await
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<RevokeUserSessionsRequest>,
    ) -> Result<Response<RevokeUserSessionsResponse>, Status> {
        answer(
            &self.0,
            Rpc::RevokeUserSessions,
            request,
            |message| convert::directory::named_user(&message.user_id, &message.tenant_id),
            async |service, call, whose| service.revoke_user_sessions(call, whose).await,
            |()| RevokeUserSessionsResponse {},
        )
        .await
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        answer(
            &self.0,
            Rpc::DeleteUser,
            request,
            convert::directory::user_deletion,
            async |service, call, (whose, etag)| service.delete_user(call, whose, etag).await,
            |()| DeleteUserResponse {},
        )
        .await
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        answer(
            &self.0,
            Rpc::BatchGetUsers,
            request,
            convert::directory::user_ids,
            async |service, call, (tenant_id, ids)| service.batch_get_users(&call, tenant_id, &ids).await,
            |users| BatchGetUsersResponse { users: convert::directory::users(users) },
        )
        .await
    }

    async fn get_user_by_email(
        &self,
        request: Request<GetUserByEmailRequest>,
    ) -> Result<Response<GetUserByEmailResponse>, Status> {
        answer(
            &self.0,
            Rpc::GetUserByEmail,
            request,
            convert::directory::email,
            async |service, call, email| service.get_user_by_email(&call, &email).await,
            |user| GetUserByEmailResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn get_user_by_external_id(
        &self,
        request: Request<GetUserByExternalIdRequest>,
    ) -> Result<Response<GetUserByExternalIdResponse>, Status> {
        answer(
            &self.0,
            Rpc::GetUserByExternalId,
            request,
            convert::directory::external_id,
            async |service, call, (tenant_id, id)| {
                service.get_user_by_external_id(&call, tenant_id, &id).await
            },
            |user| GetUserByExternalIdResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        answer(
            &self.0,
            Rpc::ListUsers,
            request,
            convert::directory::user_query,
            async |service, call, (query, page, total)| service.list_users(&call, query, page, total).await,
            convert::directory::user_page,
        )
        .await
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        answer(
            &self.0,
            Rpc::GetTenant,
            request,
            |message| convert::directory::named_tenant(&message.tenant_id),
            async |service, call, tenant_id| service.get_tenant(&call, tenant_id).await,
            |tenant| GetTenantResponse { tenant: Some(convert::tenant(&tenant)) },
        )
        .await
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        answer(
            &self.0,
            Rpc::UpdateTenant,
            request,
            convert::directory::tenant_update,
            async |service, call, (tenant_id, etag, changes)| {
                service.update_tenant(call, tenant_id, etag, changes).await
            },
            |tenant| UpdateTenantResponse { tenant: Some(convert::tenant(&tenant)) },
        )
        .await
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        answer(
            &self.0,
            Rpc::DeleteTenant,
            request,
            convert::directory::tenant_deletion,
            async |service, call, (tenant_id, etag)| service.delete_tenant(call, tenant_id, etag).await,
            |()| DeleteTenantResponse {},
        )
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        answer(
            &self.0,
            Rpc::ListTenants,
            request,
            convert::directory::tenant_page,
            async |service, call, (page, total)| service.list_tenants(&call, page, total).await,
            convert::directory::tenant_list,
        )
        .await
    }
}
