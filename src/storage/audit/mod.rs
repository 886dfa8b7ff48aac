//! Audit events: added with the change that they tell of, listed, and deleted when they are too old. They
//! are never changed: the database itself refuses that.

pub(super) mod write;

use std::time::Duration;

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel::sqlite::Sqlite;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::{DbId, DbInstant, Instant};
use super::connection::{Conn, later, optional, query};
use super::error::StorageError;
use super::schema::{audit_cutoffs, audit_events};
use super::transaction::Tx;
use crate::domain::{
    Action, AuditEvent, AuditEventId, AuditOrigin, FieldChange, LoggedEvent, TenantId, Timestamp, UserId,
};

/// Which events to list: those of a tenant, or of none, that satisfy everything given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Whose events; `None` for those of no tenant.
    pub tenant_id: Option<TenantId>,
    /// What was done.
    pub actions: Vec<Action>,
    /// By whom.
    pub actor: Option<UserId>,
    /// To whom: the id of the target, of whatever kind.
    pub target: Option<Uuid>,
    /// Not before then.
    pub from: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct StoredChange {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Queryable)]
struct Row {
    tenant_id: DbId,
    id: DbId,
    occurred_at: DbInstant,
    actor_kind: String,
    actor_id: Option<DbId>,
    actor_name: Option<String>,
    action: String,
    target_kind: Option<String>,
    target_id: Option<DbId>,
    target_name: Option<String>,
    changes: Option<String>,
    reason: Option<String>,
    request_id: Option<String>,
    source: Option<String>,
    count: i64,
}

impl Row {
    fn into_event(self) -> LoggedEvent {
        LoggedEvent {
            id: self.id.into(),
            tenant_id: Some(self.tenant_id).filter(|id| !id.0.is_nil()).map(TenantId::from),
            occurred_at: self.occurred_at.into(),
            actor_kind: self.actor_kind,
            actor_id: self.actor_id.map(UserId::from),
            actor_name: self.actor_name,
            action: self.action,
            target_kind: self.target_kind,
            target_id: self.target_id.map(|id| id.0.to_string()).or(self.target_name),
            changes: self.changes.map(changes).unwrap_or_default(),
            reason: self.reason,
            origin: AuditOrigin { request_id: self.request_id, source: self.source },
            count: self.count.try_into().unwrap_or_default(),
        }
    }
}

/// The changes as another version may have written them: what is no list of changes is passed on as one.
fn changes(text: String) -> Vec<FieldChange> {
    match serde_json::from_str::<Vec<StoredChange>>(&text) {
        Ok(changes) => changes
            .into_iter()
            .map(|StoredChange { field, before, after }| FieldChange { field, before, after })
            .collect(),
        Err(_) => vec![FieldChange::set("changes", text)],
    }
}

/// The tenant as it is stored: the nil UUID for none.
pub(super) fn tenant(id: Option<TenantId>) -> DbId {
    id.map_or(DbId(Uuid::nil()), DbId::from)
}

/// Adds an event.
///
/// # Errors
/// [`StorageError::Refused`] when the tenant has an event of that id.
pub async fn insert(tx: &mut Tx, event: &AuditEvent) -> Result<(), StorageError> {
    insert_all(tx, std::slice::from_ref(event)).await
}

/// Adds events, in one statement on PostgreSQL.
///
/// # Errors
/// [`StorageError::Refused`] when a tenant has an event of one's id.
pub async fn insert_all(tx: &mut Tx, events: &[AuditEvent]) -> Result<(), StorageError> {
    tx.note_event();
    let events = events.to_vec();
    later!(tx,
        postgres: |c| write::postgres(c, &events),
        sqlite: |c| c.spawn_blocking(move |c| write::sqlite(c, &events))
    )
}

/// What was found of a list of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The events, the newest first.
    pub events: Vec<LoggedEvent>,
    /// The event that was read last; `None` when nothing is behind it.
    pub to: Option<AuditEventId>,
}

impl EventFilter {
    /// Whether one index has all events of the filter, and no others, in their order.
    fn is_one_index(&self) -> bool {
        let is_one_action = self.actions.len() <= 1;
        let others = usize::from(self.actor.is_some()) + usize::from(self.target.is_some());
        is_one_action && others + self.actions.len() <= 1
    }

    fn has_time(&self, event: &LoggedEvent) -> bool {
        self.from.is_none_or(|from| event.occurred_at >= from)
            && self.until.is_none_or(|until| event.occurred_at < until)
    }
}

/// The events of `$start`, a query, that an index leads to, the newest first: those of a tenant and of what the
/// filter names first of target, actor and a single action.
macro_rules! led {
    ($start:expr, $filter:expr, $after:expr, $database:ty) => {{
        let filter: &EventFilter = $filter;
        let mut found = $start
            .filter(audit_events::tenant_id.eq(tenant(filter.tenant_id)))
            .order(audit_events::id.desc())
            .into_boxed::<$database>();
        if let Some(after) = $after {
            found = found.filter(audit_events::id.lt(DbId::from(after)));
        }
        // The ids are in the order of the times, to the millisecond, and in each index. The times themselves are
        // compared afterwards: by their index, the events of all tenants would be read.
        if let Some(from) = filter.from {
            found = found.filter(audit_events::id.ge(DbId::from(AuditEventId::first_of(from))));
        }
        if let Some(until) = filter.until {
            let last = until.plus(Duration::from_millis(1));
            found = found.filter(audit_events::id.lt(DbId::from(AuditEventId::first_of(last))));
        }
        match (filter.target, filter.actor, &filter.actions[..]) {
            (Some(target), _, _) => found.filter(audit_events::target_id.eq(DbId(target))),
            (None, Some(actor), _) => found.filter(audit_events::actor_id.eq(DbId::from(actor))),
            (None, None, [action]) => found.filter(audit_events::action.eq(action.as_str())),
            (None, None, _) => found,
        }
    }};
}

/// What the filter says beside what [`led`] looks at, and the limit.
macro_rules! limited {
    ($found:expr, $filter:expr, $limit:expr) => {{
        let filter: &EventFilter = $filter;
        let mut found = $found;
        if let Some(actor) = filter.actor {
            found = found.filter(audit_events::actor_id.eq(DbId::from(actor)));
        }
        if !filter.actions.is_empty() {
            let actions: Vec<_> = filter.actions.iter().map(|action| action.as_str()).collect();
            found = found.filter(audit_events::action.eq_any(actions));
        }
        found.limit(row_count($limit))
    }};
}

/// Lists events, the newest first: at most `limit`, from behind `after` on, of the next `rows` that an index
/// leads to.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list(
    conn: &mut Conn,
    filter: &EventFilter,
    after: Option<AuditEventId>,
    limit: usize,
    rows: usize,
) -> Result<Listed, StorageError> {
    let is_one_index = filter.is_one_index();
    let (found, last) = query!(conn,
        postgres: |c| async {
            let last = if is_one_index {
                None
            } else {
                let ids = led!(audit_events::table.select(audit_events::id), filter, after, Pg);
                let last = ids.limit(1).offset(row_count(rows.saturating_sub(1)));
                optional(last.get_result::<DbId>(c)).await?
            };
            let mut found = led!(audit_events::table, filter, after, Pg);
            if let Some(last) = last {
                found = found.filter(audit_events::id.ge(last));
            }
            let found = limited!(found, filter, limit).load::<Row>(c).await?;
            Ok((found, last))
        },
        // Unless it is asked for nothing but the ids, SQLite reads the table itself, in the order of the ids,
        // however many events are between those that are meant.
        sqlite: |c| async {
            let most = if is_one_index { limit } else { rows };
            let ids = led!(audit_events::table.select(audit_events::id), filter, after, Sqlite);
            let ids = ids.limit(row_count(most)).load::<DbId>(c).await?;
            let last = ids.last().copied().filter(|_| ids.len() >= most);
            let found = audit_events::table
                .filter(audit_events::tenant_id.eq(tenant(filter.tenant_id)))
                .filter(audit_events::id.eq_any(ids))
                .order(audit_events::id.desc())
                .into_boxed::<Sqlite>();
            let found = limited!(found, filter, limit).load::<Row>(c).await?;
            Ok((found, last))
        }
    )?;
    // When the limit ended it, the last of these was read last.
    let last = if found.len() >= limit { found.last().map(|row| row.id) } else { last };
    let events = found.into_iter().map(Row::into_event).filter(|event| filter.has_time(event)).collect();
    Ok(Listed { events, to: last.map(AuditEventId::from) })
}

fn row_count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Records that events from before `cutoff` may be deleted.
///
/// # Errors
/// [`StorageError::Refused`] when `cutoff` is later than `now`.
pub async fn insert_cutoff(tx: &mut Tx, cutoff: Timestamp, now: Timestamp) -> Result<(), StorageError> {
    let row = (
        audit_cutoffs::cutoff.eq(DbInstant::from(cutoff)),
        audit_cutoffs::recorded_at.eq(DbInstant::from(now)),
    );
    query!(tx, |c| {
        diesel::insert_into(audit_cutoffs::table)
            .values(row)
            .on_conflict(audit_cutoffs::cutoff)
            .do_nothing()
            .execute(c)
    })
    .map(drop)
}

/// Finds when the first event occurred of those from `from` on, of all tenants.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_oldest(conn: &mut Conn, from: Timestamp) -> Result<Option<Timestamp>, StorageError> {
    let found = audit_events::table
        .filter(audit_events::occurred_at.ge(DbInstant::from(from)))
        .order(audit_events::occurred_at)
        .select(audit_events::occurred_at)
        .limit(1);
    Ok(query!(conn, |c| optional(found.get_result::<DbInstant>(c)))?.map(Timestamp::from))
}

/// Locks a recorded cutoff until the transaction ends; false when another transaction deletes by it.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn lock_cutoff(tx: &mut Tx, cutoff: Timestamp) -> Result<bool, StorageError> {
    let found = audit_cutoffs::table.find(DbInstant::from(cutoff)).select(audit_cutoffs::cutoff);
    // SQLite's transaction holds the lock of the whole file already.
    let row = query!(tx,
        postgres: |c| optional(found.for_no_key_update().skip_locked().get_result::<DbInstant>(c)),
        sqlite: |c| optional(found.get_result::<DbInstant>(c))
    )?;
    Ok(row.is_some())
}

/// Deletes at most `limit` events from `from` on and before `cutoff`, which was recorded, the oldest first;
/// returns how many.
///
/// Whoever deletes in pieces gives the time of the oldest event that is left: what was deleted before stays in
/// PostgreSQL's index for a while, and would be passed again each time.
///
/// # Errors
/// [`StorageError`] when the database fails, or refuses since no such cutoff was recorded.
pub async fn delete_before(
    tx: &mut Tx,
    from: Timestamp,
    cutoff: Timestamp,
    limit: usize,
) -> Result<usize, StorageError> {
    let limit = row_count(limit);
    let is_chosen = sql::<Bool>(
        "(audit_events.tenant_id, audit_events.id) IN \
         (SELECT e.tenant_id, e.id FROM audit_events e WHERE e.occurred_at >= ",
    )
    .bind::<Instant, _>(DbInstant::from(from))
    .sql(" AND e.occurred_at < ")
    .bind::<Instant, _>(DbInstant::from(cutoff))
    .sql(" ORDER BY e.occurred_at LIMIT ")
    .bind::<BigInt, _>(limit)
    .sql(")");
    query!(tx, |c| diesel::delete(audit_events::table.filter(is_chosen)).execute(c))
}
