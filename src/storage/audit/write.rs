//! How events get into their table: on PostgreSQL all at once, on SQLite one after the other.

use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel::{ExpressionMethods as _, QueryResult, SqliteConnection, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::super::columns::{DbId, DbInstant, Id, Instant};
use super::super::prepared::Prepared;
use super::super::schema::audit_events;
use super::{StoredChange, tenant};
use crate::domain::{AuditEvent, FieldChange, Reason, Target};

/// The most characters that a stored list of changes has, as the table says.
const MAX_CHANGES: usize = 8_192;

/// An event as a row of its table.
macro_rules! row {
    ($event:expr) => {{
        let event: &AuditEvent = $event;
        let (target_kind, target_id, target_name) = target_parts(event.target.as_ref());
        (
            audit_events::tenant_id.eq(tenant(event.tenant_id)),
            audit_events::id.eq(DbId::from(event.id)),
            audit_events::occurred_at.eq(DbInstant::from(event.occurred_at)),
            audit_events::actor_kind.eq(event.actor.kind()),
            audit_events::actor_id.eq(event.actor.user_id().map(DbId::from)),
            audit_events::actor_name.eq(event.actor.name()),
            audit_events::action.eq(event.action.as_str()),
            audit_events::target_kind.eq(target_kind),
            audit_events::target_id.eq(target_id),
            audit_events::target_name.eq(target_name),
            audit_events::changes.eq(changes_text(&event.changes)),
            audit_events::reason.eq(event.reason.map(Reason::as_str)),
            audit_events::request_id.eq(event.origin.request_id.as_deref()),
            audit_events::source.eq(event.origin.source.as_deref()),
            audit_events::count.eq(i64::try_from(event.count).unwrap_or(i64::MAX)),
        )
    }};
}

/// Adds events in one statement: one, as nearly always, in one that is prepared once for all.
pub(in crate::storage) async fn postgres(c: &mut &AsyncPgConnection, rows: &[AuditEvent]) -> QueryResult<()> {
    if let [event] = rows {
        return diesel::insert_into(audit_events::table).values(row!(event)).execute(c).await.map(drop);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let targets = column(rows, |row| target_parts(row.target.as_ref()));
    let insert = sql_query(
        "INSERT INTO audit_events (tenant_id, id, occurred_at, actor_kind, actor_id, actor_name, action,
             target_kind, target_id, target_name, changes, reason, request_id, source, count)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind::<Array<Id>, _>(column(rows, |row| tenant(row.tenant_id)))
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.id)))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.occurred_at)))
    .bind::<Array<Text>, _>(column(rows, |row| row.actor.kind()))
    .bind::<Array<Nullable<Id>>, _>(column(rows, |row| row.actor.user_id().map(DbId::from)))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.actor.name()))
    .bind::<Array<Text>, _>(column(rows, |row| row.action.as_str()))
    .bind::<Array<Nullable<Text>>, _>(column(&targets, |target| target.0))
    .bind::<Array<Nullable<Id>>, _>(column(&targets, |target| target.1))
    .bind::<Array<Nullable<Text>>, _>(column(&targets, |target| target.2))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| changes_text(&row.changes)))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.reason.map(Reason::as_str)))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.origin.request_id.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.origin.source.as_deref()))
    .bind::<Array<BigInt>, _>(column(rows, |row| i64::try_from(row.count).unwrap_or(i64::MAX)));
    Prepared(insert).execute(c).await.map(drop)
}

fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Adds events.
pub(in crate::storage) fn sqlite(c: &mut SqliteConnection, events: &[AuditEvent]) -> QueryResult<()> {
    events.iter().try_for_each(|event| insert(c, event))
}

fn insert(c: &mut SqliteConnection, event: &AuditEvent) -> QueryResult<()> {
    let insert = diesel::insert_into(audit_events::table).values(row!(event));
    diesel::RunQueryDsl::execute(insert, c).map(drop)
}

/// Kind, id and name of a target.
fn target_parts(target: Option<&Target>) -> (Option<&'static str>, Option<DbId>, Option<&str>) {
    let kind = target.map(Target::kind);
    match target {
        None => (kind, None, None),
        Some(Target::User(id)) => (kind, Some((*id).into()), None),
        Some(Target::Tenant(id)) => (kind, Some((*id).into()), None),
        Some(Target::Session(id)) => (kind, Some((*id).into()), None),
        Some(Target::ServiceToken(id)) => (kind, Some((*id).into()), None),
        Some(Target::SigningKey(kid)) => (kind, None, Some(kid)),
    }
}

/// The changes as they are stored; nothing when there are none.
fn changes_text(changes: &[FieldChange]) -> Option<String> {
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
