//! The least that a tonic service can do: `GetUser` with a constant answer, on tonic's own server.
//!
//! What `benches/throughput` measures the real service against. Prints where it listens.

use identity::proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use identity::proto::v1::{
    ChangePasswordRequest, ChangePasswordResponse, GetUserRequest, GetUserResponse, ListSessionsRequest,
    ListSessionsResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshSessionRequest,
    RefreshSessionResponse, RegisterRequest, RegisterResponse, RevokeSessionRequest, RevokeSessionResponse,
    Tenant, User, VerifyTokenRequest, VerifyTokenResponse,
};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

struct Bare;

#[tonic::async_trait]
impl IdentityService for Bare {
    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        Ok(Response::new(GetUserResponse { user: Some(somebody()) }))
    }

    async fn refresh_session(
        &self,
        _: Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn revoke_session(
        &self,
        _: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }

    async fn verify_token(
        &self,
        _: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        Err(Status::unimplemented("only GetUser"))
    }
}

/// A user of the size that the real service returns.
fn somebody() -> User {
    let at = Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 123_456_000 });
    let id = "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e".to_owned();
    User {
        id: id.clone(),
        tenant_id: id.clone(),
        email: "ada@example.com".to_owned(),
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        role: 1,
        state: 1,
        created_at: at,
        updated_at: at,
        etag: "\"1\"".to_owned(),
        tenant: Some(Tenant {
            id,
            name: "Analytical Engines".to_owned(),
            created_at: at,
            updated_at: at,
            etag: "\"1\"".to_owned(),
        }),
        external_id: String::new(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    println!("listening on {}", incoming.local_addr()?);
    tonic::transport::Server::builder()
        .add_service(IdentityServiceServer::new(Bare))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
