//! The audit log: listed for those who may read it, and freed of what is old.

use uuid::Uuid;

use super::access;
use super::directory::PageQuery;
use super::{Authority, CallContext, Caller, Service, ServiceError};
use crate::domain::{
    Action, AuditEvent, AuditEventId, Clock, FieldChange, Page, TenantId, Timestamp, UserId,
};
use crate::storage;
use crate::storage::audit::EventFilter;
use crate::storage::{Storage, StorageError};

/// How many events are deleted in one unit of work, so that none takes long.
const PRUNED_AT_ONCE: usize = 1_000;

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
        let mut conn = self.lister(context).await?;
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

/// Deletes the events of all tenants from before `cutoff`; returns how many there were.
///
/// The event that tells of it is written with the last of them, since only then their number is known. What was
/// deleted before a failure has the recorded cutoff for a trace, and doing it again deletes the rest.
///
/// # Errors
/// [`StorageError`] when the database fails, or `cutoff` is yet to come.
pub async fn prune(
    storage: &Storage,
    clock: &dyn Clock,
    by: &Authority,
    cutoff: Timestamp,
) -> Result<usize, StorageError> {
    let mut tx = storage.begin("record an audit cutoff").await?;
    storage::audit::insert_cutoff(&mut tx, cutoff, clock.now()).await?;
    tx.commit().await?;
    let mut deleted = 0;
    loop {
        let mut tx = storage.begin("prune audit events").await?;
        let some = storage::audit::delete_before(&mut tx, cutoff, PRUNED_AT_ONCE).await?;
        deleted += some;
        let is_last = some < PRUNED_AT_ONCE;
        if is_last {
            let changes = vec![
                FieldChange::set("cutoff", cutoff.to_string()),
                FieldChange::set("events_deleted", deleted.to_string()),
            ];
            let event = by.event(clock.now(), None, Action::AuditPruned);
            storage::audit::insert(&mut tx, &AuditEvent { changes, ..event }).await?;
        }
        tx.commit().await?;
        if is_last {
            return Ok(deleted);
        }
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
