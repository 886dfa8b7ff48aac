//! `identity audit`: lists what was done, and deletes what is old.

use std::time::Duration;

use serde::Serialize;

use super::arguments::{AuditAction, AuditCommand, Consent, EventList};
use super::operator::{Operator, Start};
use super::table::{Form, Row, precise, print_list, print_one};
use super::{Outcome, prompt};
use crate::config::{Environment, Fault, Flags};
use crate::domain::{Clock as _, FieldChange, LoggedEvent, SystemClock};
use crate::service::audit;
use crate::service::directory::pieces::Pieces;
use crate::storage::audit::EventFilter;

/// Does what `command` says. What a program may read goes to standard output, the rest to standard error.
///
/// # Errors
/// The faults of the settings that it needs.
pub(super) fn run(
    command: AuditCommand,
    flags: &Flags,
    environment: &dyn Environment,
) -> Result<Outcome, Vec<Fault>> {
    let start = Start { flags, environment, form: Form::of(command.json) };
    match command.action {
        AuditAction::List(arguments) => start.run(async |operator| list(&operator, arguments).await),
        AuditAction::Prune { older_than, consent } => {
            start.run_deleting(consent, async |operator| prune(&operator, older_than, consent).await)
        }
    }
}

async fn list(operator: &Operator, arguments: EventList) -> Outcome {
    let filter =
        EventFilter { tenant_id: arguments.tenant, actions: arguments.actions, ..EventFilter::default() };
    let page =
        async |size, after| audit::find_events(&Pieces::of(&operator.storage), &filter, size, after).await;
    print_list(operator.form, arguments.length.most(), ShownEvent::of, page).await
}

async fn prune(operator: &Operator, older_than: Duration, consent: Consent) -> Outcome {
    let cutoff = SystemClock.now().minus(older_than);
    prompt::confirm(
        consent,
        &format!("deletes the audit events of all tenants from before {cutoff}"),
        "yes",
    )?;
    let deleted = audit::prune(&operator.storage, &SystemClock, &operator.by, cutoff).await?;
    print_one(operator.form, &Pruned { cutoff: precise(cutoff), deleted })
}

/// What was deleted.
#[derive(Serialize)]
struct Pruned {
    cutoff: String,
    deleted: usize,
}

impl Row for Pruned {
    const COLUMNS: &'static [&'static str] = &["from before", "events deleted"];

    fn cells(&self) -> Vec<String> {
        vec![self.cutoff.clone(), self.deleted.to_string()]
    }
}

/// An event as the contract's `AuditEvent` has it; the kind of the actor is its name.
#[derive(Serialize)]
struct ShownEvent {
    id: String,
    tenant_id: Option<String>,
    occurred_at: String,
    actor_kind: String,
    actor_id: Option<String>,
    actor_name: Option<String>,
    action: String,
    target_kind: Option<String>,
    target_id: Option<String>,
    changes: Vec<ShownChange>,
    reason: Option<String>,
    request_id: Option<String>,
    source: Option<String>,
    count: u64,
}

/// A change as the contract's `AuditChange` has it.
#[derive(Serialize)]
struct ShownChange {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

impl ShownEvent {
    fn of(event: &LoggedEvent) -> Self {
        let change = |FieldChange { field, before, after }: FieldChange| ShownChange { field, before, after };
        Self {
            id: event.id.to_string(),
            tenant_id: event.tenant_id.map(|id| id.to_string()),
            occurred_at: precise(event.occurred_at),
            actor_kind: event.actor_kind.clone(),
            actor_id: event.actor_id.map(|id| id.to_string()),
            actor_name: event.actor_name.clone(),
            action: event.action.clone(),
            target_kind: event.target_kind.clone(),
            target_id: event.target_id.clone(),
            changes: event.changes.iter().cloned().map(change).collect(),
            reason: event.reason.clone(),
            request_id: event.origin.request_id.clone(),
            source: event.origin.source.clone(),
            count: event.count,
        }
    }

    /// Who did it, in a few words.
    fn actor(&self) -> String {
        let names = [self.actor_id.as_deref(), self.actor_name.as_deref()];
        [Some(self.actor_kind.as_str())].into_iter().chain(names).flatten().collect::<Vec<_>>().join(" ")
    }

    /// What else there is to say, in a few words.
    fn details(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let change = |change: &ShownChange| {
            format!("{}: {} > {}", change.field, text(&change.before), text(&change.after))
        };
        let reason = self.reason.clone();
        let count = (self.count > 1).then(|| format!("{} times", self.count));
        reason.into_iter().chain(count).chain(self.changes.iter().map(change)).collect::<Vec<_>>().join(", ")
    }
}

impl Row for ShownEvent {
    const COLUMNS: &'static [&'static str] = &["when", "who", "what", "to", "details"];

    fn cells(&self) -> Vec<String> {
        let kind = self.target_kind.clone();
        let target = kind.into_iter().chain(self.target_id.clone()).collect::<Vec<_>>().join(" ");
        vec![self.occurred_at.clone(), self.actor(), self.action.clone(), target, self.details()]
    }
}
