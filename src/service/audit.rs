//! The audit log: listed for those who may read it.

use uuid::Uuid;

use super::access;
use super::directory::PageQuery;
use super::{CallContext, Caller, Service, ServiceError};
use crate::domain::{Action, AuditEvent, AuditEventId, Page, TenantId, Timestamp, UserId};
use crate::storage;
use crate::storage::audit::EventFilter;

/// What is asked of a list of events.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Whose events; `None` for those of the caller's tenant, and for a service for those of no tenant.
    pub tenant_id: Option<TenantId>,
    /// What was done.
    pub actions: Vec<Action>,
    /// By whom.
    pub actor: Option<UserId>,
    /// To whom or what.
    pub target: Option<Uuid>,
    /// Not before then.
    pub from: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl Service {
    /// A page of events, the newest first.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::TenantNotFound`] when a user names another tenant;
    /// [`ServiceError::FieldInvalid`] when the page token was not issued for this list.
    pub async fn list_audit_events(
        &self,
        caller: &Caller,
        query: EventQuery,
        page: PageQuery,
        context: &CallContext,
    ) -> Result<Page<AuditEvent>, ServiceError> {
        let mut conn = self.0.storage.read().await?;
        let by = self.authorize(&mut conn, access::LIST_AUDIT_EVENTS, caller, context).await?;
        let tenant_id = match query.tenant_id {
            None if !by.is_user() => None,
            named => Some(by.tenant("tenant_id", named)?),
        };
        let EventQuery { tenant_id: _, actions, actor, target, from, until } = query;
        let filter = EventFilter { tenant_id, actions, actor, target, from, until };
        let scope = scope(&by.scope(), &filter);
        let after = self.cursor(&scope, page.token.as_deref())?.map(|(_, id)| AuditEventId::from(id));
        let found = storage::audit::list(&mut conn, &filter, after, page.size.entries() + 1).await?;
        let behind = |event: &AuditEvent| (event.occurred_at, event.id.as_uuid());
        Ok(self.page(&scope, found, page.size, behind))
    }
}

/// The list that a page token is good for: whose, and what is asked of it.
fn scope(whose: &str, filter: &EventFilter) -> [String; 8] {
    let time = |at: Option<Timestamp>| at.map(|at| at.as_unix_micros().to_string()).unwrap_or_default();
    let EventFilter { tenant_id, actions, actor, target, from, until } = filter;
    [
        "audit events".to_owned(),
        whose.to_owned(),
        tenant_id.map(|id| id.to_string()).unwrap_or_default(),
        actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(" "),
        actor.map(|id| id.to_string()).unwrap_or_default(),
        target.map(|id| id.to_string()).unwrap_or_default(),
        time(*from),
        time(*until),
    ]
}
