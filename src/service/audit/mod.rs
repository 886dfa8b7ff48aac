//! The audit log: listed for those who may read it, and freed of what is old.

mod retention;

use uuid::Uuid;

use super::call::Call;
use super::directory::PageQuery;
use super::directory::pieces::{Cursor, Found, Piece, Pieced, Pieces};
use super::{Service, ServiceError};
use crate::domain::{Action, AuditEventId, LoggedEvent, Page, PageSize, TenantId, Timestamp, UserId};
use crate::storage::audit::{EventFilter, Listed};
use crate::storage::{self, Conn, StorageError};

pub use retention::{Pruning, prune};

/// How many rows a statement reads that looks for events: some milliseconds of work at most.
const READ_AT_ONCE: usize = 1_000;

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
        call: &Call,
        query: EventQuery,
        page: PageQuery,
    ) -> Result<Page<LoggedEvent>, ServiceError> {
        let listing = self.listing(call).await?;
        let by = {
            let mut conn = listing.connection().await?;
            self.authorize(&mut conn, call).await?
        };
        let tenant_id = match query.tenant_id {
            None if !by.is_user() => None,
            named => Some(by.tenant("tenant_id", named)?),
        };
        let EventQuery { tenant_id: _, actions, actor, target, from, until } = query;
        let filter = EventFilter { tenant_id, actions, actor, target, from, until };
        let scope = scope(&by.scope(), &filter);
        let after = self.cursor(&scope, page.token.as_deref())?;
        let found = find_events(&Pieces::on(&listing), &filter, page.size, after).await?;
        Ok(self.page(&scope, found))
    }
}

/// Finds a page of the events that satisfy a filter, the newest first.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_events(
    pieces: &Pieces<'_>,
    filter: &EventFilter,
    size: PageSize,
    after: Option<Cursor>,
) -> Result<Found<LoggedEvent>, StorageError> {
    pieces.page(&Events { filter }, size, after).await
}

/// The events that satisfy a filter, the newest first.
struct Events<'f> {
    filter: &'f EventFilter,
}

impl Pieced for Events<'_> {
    type Entry = LoggedEvent;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<LoggedEvent>, StorageError> {
        let after = after.map(|(_, id)| AuditEventId::from(id));
        let Listed { events, to } =
            storage::audit::list(conn, self.filter, after, most, READ_AT_ONCE).await?;
        // The place of an event is its id alone.
        Ok(Piece { entries: events, to: to.map(|id| (Timestamp::from_unix_micros(0), id.as_uuid())) })
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
