//! `identity.v1.AuditService`.

use tonic::{Request, Response, Status};

use crate::proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use crate::proto::v1::{ListAuditEventsRequest, ListAuditEventsResponse};
use crate::service::access;

use super::{Backend, MAX_MESSAGE_BYTES, auth, convert};

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
        let service = self.0.service()?;
        let (caller, context) = auth::caller(service, access::LIST_AUDIT_EVENTS, &request).await?;
        let refused = auth::refused(service, context.source);
        let (query, page) = match convert::audit::event_query(request.into_inner()) {
            Ok(valid) => valid,
            Err(violations) => return Err(auth::invalid_fields(service, &caller, &context, violations).await),
        };
        let found = service.list_audit_events(&caller, query, page, &context).await.map_err(refused)?;
        Ok(Response::new(convert::audit::events(found)))
    }
}
