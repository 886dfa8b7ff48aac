//! `identity.v1.IdentityService`.

use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use crate::proto::v1::{
    ChangePasswordRequest, ChangePasswordResponse, GetUserRequest, GetUserResponse, ListSessionsRequest,
    ListSessionsResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshSessionRequest,
    RefreshSessionResponse, RegisterRequest, RegisterResponse, RevokeSessionRequest, RevokeSessionResponse,
    VerifyTokenRequest, VerifyTokenResponse,
};
use crate::service::access::Rpc;

use super::{Backend, MAX_MESSAGE_BYTES, answer, convert};

/// Registers, logs in and looks up users; keeps, lists and ends their sessions.
pub struct IdentityRpc(Backend);

impl IdentityRpc {
    /// The gRPC service in front of `backend`, ready to be added to the routes.
    pub fn server(backend: Backend) -> IdentityServiceServer<Self> {
        IdentityServiceServer::new(Self(backend)).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityRpc {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let policy = self.0.service()?.password_policy();
        answer(
            &self.0,
            Rpc::Register,
            request,
            |message| convert::registration(message, policy),
            async |service, call, registration| service.register(call, registration).await,
            convert::registered,
        )
        .await
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        answer(
            &self.0,
            Rpc::Login,
            request,
            convert::credentials,
            async |service, call, (email, password)| service.login(call, &email, password).await,
            convert::logged_in,
        )
        .await
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        answer(
            &self.0,
            Rpc::GetUser,
            request,
            convert::wanted_user,
            async |service, call, (wanted, tenant)| service.get_user(&call, wanted, tenant).await,
            |user| GetUserResponse { user: Some(convert::user(user)) },
        )
        .await
    }

    async fn refresh_session(
        &self,
        request: Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        answer(
            &self.0,
            Rpc::RefreshSession,
            request,
            |message| Ok(Zeroizing::new(message.refresh_token)),
            async |service, call, token: Zeroizing<String>| service.refresh_session(call, &token).await,
            convert::refreshed,
        )
        .await
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        answer(
            &self.0,
            Rpc::Logout,
            request,
            |message| Ok(Zeroizing::new(message.refresh_token)),
            async |service, call, token: Zeroizing<String>| service.logout(call, &token).await,
            |()| LogoutResponse {},
        )
        .await
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        answer(
            &self.0,
            Rpc::ListSessions,
            request,
            convert::page,
            async |service, call, (size, token): (_, Option<String>)| {
                service.list_sessions(&call, size, token.as_deref()).await
            },
            convert::sessions,
        )
        .await
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        answer(
            &self.0,
            Rpc::RevokeSession,
            request,
            convert::session_id,
            async |service, call, id| service.revoke_session(call, id).await,
            |()| RevokeSessionResponse {},
        )
        .await
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let policy = self.0.service()?.password_policy();
        answer(
            &self.0,
            Rpc::ChangePassword,
            request,
            |message| convert::passwords(message, policy),
            async |service, call, (current, new)| service.change_password(call, &current, &new).await,
            |()| ChangePasswordResponse {},
        )
        .await
    }

    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        answer(
            &self.0,
            Rpc::VerifyToken,
            request,
            |message| Ok(message.access_token),
            async |service, call, token: String| service.verify_token(&call, &token).await,
            |verified| verified.map(convert::verified).unwrap_or_default(),
        )
        .await
    }
}
