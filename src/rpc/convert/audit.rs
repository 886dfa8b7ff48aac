//! The messages of `identity.v1.AuditService`.

use super::directory::{page, time};
use super::{optional, page_size, timestamp};
use crate::domain::{
    Action, Actor, AuditEvent, FieldChange, FieldViolation, Page, Target, TenantId, UserId, Violations,
};
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

pub(in crate::rpc) fn events(page: Page<AuditEvent>) -> v1::ListAuditEventsResponse {
    v1::ListAuditEventsResponse {
        events: page.entries.into_iter().map(event).collect(),
        next_page_token: page.next.unwrap_or_default(),
    }
}

fn event(event: AuditEvent) -> v1::AuditEvent {
    let (target_kind, target_id) = target(event.target);
    let change = |FieldChange { field, before, after }: FieldChange| v1::AuditChange { field, before, after };
    v1::AuditEvent {
        id: event.id.to_string(),
        tenant_id: event.tenant_id.map(|id| id.to_string()).unwrap_or_default(),
        occurred_at: Some(timestamp(event.occurred_at)),
        actor_kind: actor_kind(&event.actor).into(),
        actor_id: event.actor.user_id().map(|id| id.to_string()).unwrap_or_default(),
        actor_name: event.actor.name().unwrap_or_default().to_owned(),
        action: event.action.as_str().to_owned(),
        target_kind: target_kind.to_owned(),
        target_id,
        changes: event.changes.into_iter().map(change).collect(),
        reason: event.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        request_id: event.origin.request_id.unwrap_or_default(),
        source: event.origin.source.unwrap_or_default(),
        count: i64::try_from(event.count).unwrap_or(i64::MAX),
    }
}

fn actor_kind(actor: &Actor) -> v1::ActorKind {
    match actor {
        Actor::Anonymous { .. } => v1::ActorKind::Anonymous,
        Actor::User { .. } => v1::ActorKind::User,
        Actor::Service { .. } => v1::ActorKind::Service,
        Actor::Operator { .. } => v1::ActorKind::Operator,
        Actor::System => v1::ActorKind::System,
    }
}

fn target(target: Option<Target>) -> (&'static str, String) {
    match target {
        None => ("", String::new()),
        Some(Target::User(id)) => ("user", id.to_string()),
        Some(Target::Tenant(id)) => ("tenant", id.to_string()),
        Some(Target::Session(id)) => ("session", id.to_string()),
        Some(Target::ServiceToken(id)) => ("service_token", id.to_string()),
        Some(Target::SigningKey(kid)) => ("signing_key", kid),
    }
}
