//! Audit events: added with the change that they tell of, listed, and deleted when they are too old. They
//! are never changed: the database itself refuses that.

use std::time::Duration;

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel::sqlite::Sqlite;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt as _;
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

/// The most characters that a stored list of changes has, as the table says.
const MAX_CHANGES: usize = 8_192;

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

/// Kind, id and name of a target.
pub(super) fn target_parts(target: Option<&Target>) -> (Option<&'static str>, Option<DbId>, Option<&str>) {
    match target {
        None => (None, None, None),
        Some(Target::User(id)) => (Some("user"), Some((*id).into()), None),
        Some(Target::Tenant(id)) => (Some("tenant"), Some((*id).into()), None),
        Some(Target::Session(id)) => (Some("session"), Some((*id).into()), None),
        Some(Target::ServiceToken(id)) => (Some("service_token"), Some((*id).into()), None),
        Some(Target::SigningKey(kid)) => (Some("signing_key"), None, Some(kid)),
    }
}

/// The changes as they are stored; nothing when there are none.
pub(super) fn changes_text(changes: &[FieldChange]) -> Option<String> {
    if changes.is_empty() {
        return None;
    }
    let stored = |change: &FieldChange| StoredChange {
        field: change.field.clone(),
        before: change.before.clone(),
        after: change.after.clone(),
    };
    let text = serde_json::to_string(&changes.iter().map(stored).collect::<Vec<_>>())
        .expect("texts under fixed names are JSON");
    // Fields are of limited length each; were there ever too many of them, the event still counts.
    Some(if text.chars().count() > MAX_CHANGES { "[]".to_owned() } else { text })
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

/// Adds some events, up to a thousand.
///
/// # Errors
/// [`StorageError::Refused`] when a tenant has an event of one's id.
pub async fn insert_all(tx: &mut Tx, events: &[AuditEvent]) -> Result<(), StorageError> {
    macro_rules! rows {
        () => {
            events.iter().map(|event| {
                let (target_kind, target_id, target_name) = target_parts(event.target.as_ref());
                (
                    audit_events::tenant_id.eq(tenant(event.tenant_id)),
                    audit_events::id.eq(DbId::from(event.id)),
                    audit_events::occurred_at.eq(DbInstant::from(event.occurred_at)),
                    audit_events::actor_kind.eq(event.actor.kind()),
                    audit_events::actor_id.eq(event.actor.user_id().map(DbId::from)),
                    audit_events::actor_name.eq(event.actor.name().map(str::to_owned)),
                    audit_events::action.eq(event.action.as_str()),
                    audit_events::target_kind.eq(target_kind),
                    audit_events::target_id.eq(target_id),
                    audit_events::target_name.eq(target_name.map(str::to_owned)),
                    audit_events::changes.eq(changes_text(&event.changes)),
                    audit_events::reason.eq(event.reason.map(Reason::as_str)),
                    audit_events::request_id.eq(event.origin.request_id.clone()),
                    audit_events::source.eq(event.origin.source.clone()),
                    audit_events::count.eq(i64::try_from(event.count).unwrap_or(i64::MAX)),
                )
            })
        };
    }
    query!(tx,
        postgres: |c| {
            let mut rows: Vec<_> = rows!().collect();
            let into = diesel::insert_into(audit_events::table);
            // A statement for one is prepared once for all; one for several, each time.
            match (rows.pop(), rows.is_empty()) {
                (None, _) => return Ok(()),
                (Some(row), true) => into.values(row).execute(c).boxed(),
                (Some(row), false) => {
                    rows.push(row);
                    into.values(rows).execute(c).boxed()
                }
            }
        },
        sqlite: |c| {
            let rows: Vec<_> = rows!().collect();
            c.spawn_blocking(move |c| {
                let mut count = 0;
                for row in rows {
                    let insert = diesel::insert_into(audit_events::table).values(row);
                    count += diesel::RunQueryDsl::execute(insert, c)?;
                }
                Ok(count)
            })
        }
    )
    .map(drop)
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
