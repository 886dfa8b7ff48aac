//! The messages of `identity.v1.AuditService`.

use super::directory::{page, time};
use super::{optional, page_size, timestamp};
use crate::domain::{Action, FieldChange, FieldViolation, LoggedEvent, Page, TenantId, UserId, Violations};
use crate::proto::v1;
use crate::service::audit::EventQuery;
use crate::service::directory::PageQuery;

/// Which events are to be listed, and which page of them.
///
/// # Errors
/// Every violation of every field. What the page token is good for, the service knows.
pub(in crate::rpc) fn event_query(
    message: v1::ListAuditEventsRequest,
) -> Result<(EventQuery, PageQuery), Vec<FieldViolation>> {
    let mut violations = Violations::new();
    let tenant_id = violations.check("tenant_id", optional(&message.tenant_id, TenantId::parse));
    let size = page_size(&mut violations, message.page_size);
    let actions = actions(&message.actions);
    let actions = violations.check("actions", actions);
    let actor = violations.check("actor_id", optional(&message.actor_id, UserId::parse));
    // Of whatever kind it is, its id is a UUID.
    let target = violations.check("target_id", optional(&message.target_id, UserId::parse));
    let from = time(&mut violations, "occurred_from", message.occurred_from);
    let until = time(&mut violations, "occurred_until", message.occurred_until);
    match (tenant_id, size, actions, actor, target, from, until) {
        (Some(tenant_id), Some(size), Some(actions), Some(actor), Some(target), Some(from), Some(until)) => {
            let target = target.map(UserId::as_uuid);
            let query = EventQuery { tenant_id, actions, actor, target, from, until };
            Ok((query, page(size, message.page_token)))
        }
        _ => Err(violations.into_vec()),
    }
}

fn actions(names: &[String]) -> Result<Vec<Action>, &'static str> {
    let found: Option<Vec<_>> = names.iter().map(|name| Action::from_name(name)).collect();
    let mut found = found.ok_or("must be names of actions, such as user.created")?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

pub(in crate::rpc) fn events(page: Page<LoggedEvent>) -> v1::ListAuditEventsResponse {
    v1::ListAuditEventsResponse {
        events: page.entries.into_iter().map(event).collect(),
        next_page_token: page.next.unwrap_or_default(),
    }
}

fn event(event: LoggedEvent) -> v1::AuditEvent {
    let change = |FieldChange { field, before, after }: FieldChange| v1::AuditChange { field, before, after };
    v1::AuditEvent {
        id: event.id.to_string(),
        tenant_id: event.tenant_id.map(|id| id.to_string()).unwrap_or_default(),
        occurred_at: Some(timestamp(event.occurred_at)),
        actor_kind: actor_kind(&event.actor_kind).into(),
        actor_id: event.actor_id.map(|id| id.to_string()).unwrap_or_default(),
        actor_name: event.actor_name.unwrap_or_default(),
        action: event.action,
        target_kind: event.target_kind.unwrap_or_default(),
        target_id: event.target_id.unwrap_or_default(),
        changes: event.changes.into_iter().map(change).collect(),
        reason: event.reason.unwrap_or_default(),
        request_id: event.origin.request_id.unwrap_or_default(),
        source: event.origin.source.unwrap_or_default(),
        count: i64::try_from(event.count).unwrap_or(i64::MAX),
        actor_kind_name: event.actor_kind,
    }
}

/// The kind of a name; not given for one that only another version knows.
fn actor_kind(name: &str) -> v1::ActorKind {
    match name {
        "anonymous" => v1::ActorKind::Anonymous,
        "user" => v1::ActorKind::User,
        "service" => v1::ActorKind::Service,
        "operator" => v1::ActorKind::Operator,
        "system" => v1::ActorKind::System,
        _ => v1::ActorKind::Unspecified,
    }
}
