//! `identity.v1.IdentityService`.

use tonic::{Request, Response, Status};

use crate::proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use crate::proto::v1::{
    GetUserRequest, GetUserResponse, LoginRequest, LoginResponse, RegisterRequest, RegisterResponse,
};

use super::{Backend, MAX_MESSAGE_BYTES, auth, call, convert, status};

const REGISTER: &str = "identity.v1.IdentityService/Register";
const LOGIN: &str = "identity.v1.IdentityService/Login";
const GET_USER: &str = "identity.v1.IdentityService/GetUser";

/// Registers, logs in and looks up users.
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
        auth::caller(service, REGISTER, &request)?;
        let context = call::context(&request);
        let registration = convert::registration(request.into_inner(), service.password_policy())
            .map_err(status::invalid_fields)?;
        let opened = service.register(registration, context).await.map_err(status::from_service)?;
        Ok(Response::new(convert::registered(opened)))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let service = self.0.service()?;
        auth::caller(service, LOGIN, &request)?;
        let context = call::context(&request);
        let (email, password) = convert::credentials(request.into_inner()).map_err(status::invalid_fields)?;
        let opened = service.login(&email, password, context).await.map_err(status::from_service)?;
        Ok(Response::new(convert::logged_in(opened)))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let service = self.0.service()?;
        let caller = auth::caller(service, GET_USER, &request)?;
        let wanted = match convert::wanted_user(request.get_ref()) {
            Ok(wanted) => wanted,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, violations).await),
        };
        let user = service.get_user(&caller, wanted).await.map_err(status::from_service)?;
        Ok(Response::new(GetUserResponse { user: Some(convert::user(user)) }))
    }
}
