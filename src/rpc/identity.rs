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
use crate::service::access;

use super::{Backend, MAX_MESSAGE_BYTES, auth, convert, status};

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
        let service = self.0.service()?;
        let (_, context) = auth::caller(service, access::REGISTER, &request).await?;
        let registration = convert::registration(request.into_inner(), service.password_policy())
            .map_err(status::invalid_fields)?;
        let refused = auth::refused(service, context.source);
        let opened = service.register(registration, context).await.map_err(refused)?;
        Ok(Response::new(convert::registered(opened)))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let service = self.0.service()?;
        let (_, context) = auth::caller(service, access::LOGIN, &request).await?;
        let (email, password) = convert::credentials(request.into_inner()).map_err(status::invalid_fields)?;
        let refused = auth::refused(service, context.source);
        let opened = service.login(&email, password, context).await.map_err(refused)?;
        Ok(Response::new(convert::logged_in(opened)))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::GET_USER, &request).await?;
        let refused = auth::refused(service, context.source);
        let (wanted, tenant) = match convert::wanted_user(request.get_ref()) {
            Ok(wanted) => wanted,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let user = service.get_user(&caller, wanted, tenant, &context).await.map_err(refused)?;
        Ok(Response::new(GetUserResponse { user: Some(convert::user(user)) }))
    }

    async fn refresh_session(
        &self,
        request: Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        let service = self.0.service()?;
        let (_, context) = auth::caller(service, access::REFRESH_SESSION, &request).await?;
        let refused = auth::refused(service, context.source);
        let token = Zeroizing::new(request.into_inner().refresh_token);
        let opened = service.refresh_session(&token, context).await.map_err(refused)?;
        Ok(Response::new(convert::refreshed(opened)))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        let service = self.0.service()?;
        let (_, context) = auth::caller(service, access::LOGOUT, &request).await?;
        let refused = auth::refused(service, context.source);
        let token = Zeroizing::new(request.into_inner().refresh_token);
        service.logout(&token, &context).await.map_err(refused)?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::LIST_SESSIONS, &request).await?;
        let refused = auth::refused(service, context.source);
        let (size, page_token) = match convert::page(request.get_ref()) {
            Ok(page) => page,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let page = service.list_sessions(&caller, size, page_token, &context).await.map_err(refused)?;
        Ok(Response::new(convert::sessions(page)))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::REVOKE_SESSION, &request).await?;
        let refused = auth::refused(service, context.source);
        let id = match convert::session_id(request.get_ref()) {
            Ok(id) => id,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        service.revoke_session(&caller, id, &context).await.map_err(refused)?;
        Ok(Response::new(RevokeSessionResponse {}))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::CHANGE_PASSWORD, &request).await?;
        let (current, new) = match convert::passwords(request.into_inner(), service.password_policy()) {
            Ok(passwords) => passwords,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let refused = auth::refused(service, context.source);
        service.change_password(&caller, &current, &new, &context).await.map_err(refused)?;
        Ok(Response::new(ChangePasswordResponse {}))
    }

    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let service = self.0.service()?;
        let (_, context) = auth::caller(service, access::VERIFY_TOKEN, &request).await?;
        let refused = auth::refused(service, context.source);
        let verified =
            service.verify_token(&request.get_ref().access_token, &context).await.map_err(refused)?;
        Ok(Response::new(verified.map(convert::verified).unwrap_or_default()))
    }
}
