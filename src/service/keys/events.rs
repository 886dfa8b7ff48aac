//! What the audit log says of a change of the keys.

use super::schedule::Schedule;
use crate::domain::{Action, AuditEvent, FieldChange, Target, Timestamp};
use crate::service::Authority;
use crate::storage::signing_keys::StoredSigningKey;

/// The events that tell of what `after` has other than `before`. A key whose time was over goes without one.
pub(super) fn of(by: &Authority, before: &Schedule, after: &Schedule, now: Timestamp) -> Vec<AuditEvent> {
    let used = before.clone().in_use(now);
    let find = |schedule: &'_ Schedule, kid: &str| schedule.0.iter().find(|key| key.kid == kid).cloned();
    let event = |action, key: &StoredSigningKey, changes| AuditEvent {
        target: Some(Target::SigningKey(key.kid.clone())),
        changes,
        ..by.event(now, None, action)
    };
    let mut events = Vec::new();
    for key in &after.0 {
        let from = key.signs_from.to_string();
        match find(before, &key.kid) {
            None => {
                let algorithm = FieldChange::set("algorithm", key.algorithm.as_str());
                let changes = vec![algorithm, FieldChange::set("signs_from", from)];
                events.push(event(Action::SigningKeyCreated, key, changes));
            }
            Some(old) if old.signs_from != key.signs_from => {
                let change =
                    FieldChange::between("signs_from", old.signs_from.to_string().as_str(), from.as_str());
                events.push(event(Action::SigningKeyAdvanced, key, change.into_iter().collect()));
            }
            Some(_) => {}
        }
    }
    for key in used.0.iter().filter(|key| find(after, &key.kid).is_none()) {
        let algorithm = FieldChange::removed("algorithm", key.algorithm.as_str());
        events.push(event(Action::SigningKeyRetired, key, vec![algorithm]));
    }
    let is_resealed = |key: &&StoredSigningKey| {
        find(before, &key.kid).is_some_and(|old| old.sealed_private_key != key.sealed_private_key)
    };
    let resealed = after.0.iter().filter(is_resealed).count();
    if resealed > 0 {
        let changes = vec![FieldChange::set("keys", resealed.to_string())];
        events.push(AuditEvent { changes, ..by.event(now, None, Action::SigningKeysResealed) });
    }
    events
}
