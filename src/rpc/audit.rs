//! `identity.v1.AuditService`.

use tonic::{Request, Response, Status};

use crate::proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use crate::proto::v1::{ListAuditEventsRequest, ListAuditEventsResponse};
use crate::service::access::Rpc;

use super::{Backend, MAX_MESSAGE_BYTES, answer, convert};

/// Tells who did what.
pub struct AuditRpc(Backend);

impl AuditRpc {
    /// The gRPC service in front of `backend`, ready to be added to the routes.
    pub fn server(backend: Backend) -> AuditServiceServer<Self> {
        AuditServiceServer::new(Self(backend)).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl AuditService for AuditRpc {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        answer(
            &self.0,
            Rpc::ListAuditEvents,
            request,
            convert::audit::event_query,
            async |service, call, (query, page)| service.list_audit_events(&call, query, page).await,
            convert::audit::events,
        )
        .await
    }
}
