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
use super::connection::{Conn, query};
use super::error::StorageError;
use super::schema::{audit_cutoffs, audit_events};
use super::transaction::Tx;
use crate::domain::{
    Action, Actor, AuditEvent, AuditEventId, AuditOrigin, FieldChange, Reason, Target, TenantId, Timestamp,
    UserId,
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
    fn into_event(self) -> Result<AuditEvent, StorageError> {
        let corrupt = |column| StorageError::Corrupt(format!("audit_events.{column} makes no sense"));
        let actor = Actor::from_parts(&self.actor_kind, self.actor_id.map(UserId::from), self.actor_name);
        let changes: Vec<StoredChange> = match &self.changes {
            Some(text) => serde_json::from_str(text).map_err(|_| corrupt("changes"))?,
            None => Vec::new(),
        };
        let reason = |word: String| Reason::from_name(&word).ok_or_else(|| corrupt("reason"));
        Ok(AuditEvent {
            id: self.id.into(),
            tenant_id: Some(self.tenant_id).filter(|id| !id.0.is_nil()).map(TenantId::from),
            occurred_at: self.occurred_at.into(),
            actor: actor.ok_or_else(|| corrupt("actor_kind"))?,
            action: Action::from_name(&self.action).ok_or_else(|| corrupt("action"))?,
            target: target(self.target_kind.as_deref(), self.target_id, self.target_name)
                .ok_or_else(|| corrupt("target_kind"))?,
            changes: changes
                .into_iter()
                .map(|StoredChange { field, before, after }| FieldChange { field, before, after })
                .collect(),
            reason: self.reason.map(reason).transpose()?,
            origin: AuditOrigin { request_id: self.request_id, source: self.source },
            count: self.count.try_into().map_err(|_| corrupt("count"))?,
        })
    }
}

/// The target of a kind; `None` where the three do not go together.
fn target(kind: Option<&str>, id: Option<DbId>, name: Option<String>) -> Option<Option<Target>> {
    Some(Some(match (kind, id, name) {
        (None, None, None) => return Some(None),
        (Some("user"), Some(id), None) => Target::User(id.into()),
        (Some("tenant"), Some(id), None) => Target::Tenant(id.into()),
        (Some("session"), Some(id), None) => Target::Session(id.into()),
        (Some("service_token"), Some(id), None) => Target::ServiceToken(id.into()),
        (Some("signing_key"), None, Some(kid)) => Target::SigningKey(kid),
        _ => return None,
    }))
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
    query!(tx,
        postgres: |c| write::postgres(c, events),
        sqlite: |c| {
            let events = events.to_vec();
            c.spawn_blocking(move |c| write::sqlite(c, &events))
        }
    )
}

/// Lists events, the newest first: at most `limit`, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list(
    conn: &mut Conn,
    filter: &EventFilter,
    after: Option<AuditEventId>,
    limit: usize,
) -> Result<Vec<AuditEvent>, StorageError> {
    // Only what is asked for gets into the query, so that the database can choose an index for it.
    macro_rules! found {
        ($database:ty) => {{
            let mut found = audit_events::table
                .filter(audit_events::tenant_id.eq(tenant(filter.tenant_id)))
                .order(audit_events::id.desc())
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .into_boxed::<$database>();
            if let Some(after) = after {
                found = found.filter(audit_events::id.lt(DbId::from(after)));
            }
            if !filter.actions.is_empty() {
                let actions: Vec<_> = filter.actions.iter().map(|action| action.as_str()).collect();
                found = found.filter(audit_events::action.eq_any(actions));
            }
            if let Some(actor) = filter.actor {
                found = found.filter(audit_events::actor_id.eq(DbId::from(actor)));
            }
            if let Some(target) = filter.target {
                found = found.filter(audit_events::target_id.eq(DbId(target)));
            }
            // The ids are in the order of the times, to the millisecond, and lead the index.
            if let Some(from) = filter.from {
                found = found
                    .filter(audit_events::occurred_at.ge(DbInstant::from(from)))
                    .filter(audit_events::id.ge(DbId::from(AuditEventId::first_of(from))));
            }
            if let Some(until) = filter.until {
                let last = until.plus(Duration::from_millis(1));
                found = found
                    .filter(audit_events::occurred_at.lt(DbInstant::from(until)))
                    .filter(audit_events::id.lt(DbId::from(AuditEventId::first_of(last))));
            }
            found
        }};
    }
    let rows = query!(conn,
        postgres: |c| found!(Pg).load::<Row>(c),
        sqlite: |c| found!(Sqlite).load::<Row>(c)
    )?;
    rows.into_iter().map(Row::into_event).collect()
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

/// Deletes at most `limit` events from before `cutoff`, which was recorded; returns how many.
///
/// # Errors
/// [`StorageError`] when the database fails, or refuses since no such cutoff was recorded.
pub async fn delete_before(tx: &mut Tx, cutoff: Timestamp, limit: usize) -> Result<usize, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let is_chosen = sql::<Bool>(
        "(audit_events.tenant_id, audit_events.id) IN \
         (SELECT e.tenant_id, e.id FROM audit_events e WHERE e.occurred_at < ",
    )
    .bind::<Instant, _>(DbInstant::from(cutoff))
    .sql(" ORDER BY e.occurred_at LIMIT ")
    .bind::<BigInt, _>(limit)
    .sql(")");
    query!(tx, |c| diesel::delete(audit_events::table.filter(is_chosen)).execute(c))
}
