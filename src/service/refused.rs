//! Calls that limits and admission refused, on their way to the audit log.
//!
//! They are counted here and written once a minute, as one event a source and minute: so an attack cannot
//! write faster than it is refused. What a process has counted in its last minute is lost when it is killed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Service, ServiceError};
use crate::domain::{Action, Actor, AuditEvent, AuditOrigin, FieldChange, Party, Reason, Source, Timestamp};
use crate::storage;
use crate::storage::{Lane, Permit};

/// Sources that are counted apart at most; what others do beyond that is counted together. It bounds what a
/// minute of an attack by many writes, and what it holds while the database is away.
const MAX_SOURCES: usize = 1_000;

const MINUTE_MICROS: i64 = 60_000_000;

/// Calls that were refused and are yet to be written. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct RefusedCalls(Arc<Mutex<BTreeMap<Key, Counts>>>);

/// A minute since the epoch, and a source; `None` stands for many.
type Key = (i64, Option<Source>);

#[derive(Clone, Copy, Debug)]
struct Counts {
    last: Timestamp,
    by_reason: [u64; REASONS.len()],
}

/// Which of them are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Those of the minutes that are over.
    Past,
    /// All.
    Now,
}

const REASONS: [Reason; 4] =
    [Reason::TooManyAttempts, Reason::TooManyRegistrations, Reason::Overloaded, Reason::TooManyChanges];

impl RefusedCalls {
    fn count(&self, reason: usize, source: Source, now: Timestamp) {
        let minute = now.as_unix_micros().div_euclid(MINUTE_MICROS);
        let mut calls = self.lock();
        let key = (minute, Some(source));
        let key = if calls.len() < MAX_SOURCES || calls.contains_key(&key) { key } else { (minute, None) };
        let counts = calls.entry(key).or_insert(Counts { last: now, by_reason: [0; REASONS.len()] });
        counts.last = counts.last.max(now);
        counts.by_reason[reason] += 1;
    }

    fn take(&self, due: Due, now: Timestamp) -> BTreeMap<Key, Counts> {
        let this_minute = now.as_unix_micros().div_euclid(MINUTE_MICROS);
        let mut calls = self.lock();
        let rest = match due {
            Due::Past => calls.split_off(&(this_minute, None)),
            Due::Now => BTreeMap::new(),
        };
        std::mem::replace(&mut *calls, rest)
    }

    fn put_back(&self, taken: BTreeMap<Key, Counts>) {
        let mut calls = self.lock();
        for (key, counts) in taken {
            let known =
                calls.entry(key).or_insert(Counts { last: counts.last, by_reason: [0; REASONS.len()] });
            known.last = known.last.max(counts.last);
            for (known, more) in known.by_reason.iter_mut().zip(counts.by_reason) {
                *known += more;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Counts>> {
        // Counts cannot be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn event(self, source: Option<Source>) -> AuditEvent {
        let counted = REASONS.iter().zip(self.by_reason).filter(|(_, count)| *count > 0);
        AuditEvent {
            changes: counted.map(|(reason, n)| FieldChange::set(reason.as_str(), n.to_string())).collect(),
            origin: AuditOrigin { request_id: None, source: source.map(|source| source.to_string()) },
            count: self.by_reason.iter().sum(),
            ..AuditEvent::new(self.last, None, Actor::Anonymous { via: None }, Action::CallRefused)
        }
    }
}

impl Service {
    /// Counts a call that `source` made, if it failed by a limit or for want of room.
    pub fn note_refusal(&self, error: &ServiceError, source: Option<IpAddr>) {
        let is_reason = |reason: &Reason| {
            matches!(
                (error, reason),
                (ServiceError::TooManyAttempts { .. }, Reason::TooManyAttempts)
                    | (ServiceError::TooManyRegistrations { .. }, Reason::TooManyRegistrations)
                    | (ServiceError::Overloaded { .. }, Reason::Overloaded)
                    | (ServiceError::TooManyChanges { .. }, Reason::TooManyChanges)
            )
        };
        if let Some(reason) = REASONS.iter().position(is_reason) {
            self.0.refused_calls.count(reason, Source::of(source), self.0.clock.now());
        }
    }

    /// Writes the refusals that are due to the audit log.
    ///
    /// # Errors
    /// [`ServiceError::Storage`]; they are written the next time.
    pub async fn write_refusals(&self, due: Due) -> Result<(), ServiceError> {
        let taken = self.0.refused_calls.take(due, self.0.clock.now());
        if taken.is_empty() {
            return Ok(());
        }
        let service = self.clone();
        let permit = self.0.storage.permit(Lane::Operators, Party::System).await?;
        let unit = async move |permit: Permit| {
            let events: Vec<_> = taken.iter().map(|(&(_, source), counts)| counts.event(source)).collect();
            let written = async {
                let mut tx = permit.begin("write refusals").await?;
                storage::audit::insert_all(&mut tx, &events).await?;
                tx.commit().await
            };
            written.await.map_err(|error| {
                service.0.refused_calls.put_back(taken);
                error.into()
            })
        };
        self.0.units.run(permit, unit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn source(n: u32) -> Source {
        Source::of(Some(IpAddr::from(n.to_be_bytes())))
    }

    fn events(calls: &RefusedCalls, due: Due, now: Timestamp) -> Vec<(Option<String>, u64)> {
        let taken = calls.take(due, now);
        let events = taken.into_iter().map(|((_, source), counts)| counts.event(source));
        events.map(|event| (event.origin.source, event.count)).collect()
    }

    #[test]
    fn a_source_and_minute_make_one_event() {
        let calls = RefusedCalls::default();
        for second in [0, 1, 59, 60] {
            calls.count(usize::from(second == 1), source(1), at(second));
        }
        calls.count(2, source(2), at(5));
        let first = Some("0.0.0.1".to_owned());
        assert_eq!(events(&calls, Due::Past, at(60)), [(first.clone(), 3), (Some("0.0.0.2".to_owned()), 1)]);
        assert_eq!(events(&calls, Due::Past, at(60)), []);
        assert_eq!(events(&calls, Due::Now, at(60)), [(first, 1)]);
    }

    #[test]
    fn an_event_says_how_many_were_refused_for_which_reason() {
        let calls = RefusedCalls::default();
        calls.count(0, source(1), at(0));
        calls.count(2, source(1), at(1));
        calls.count(2, source(1), at(2));
        let taken = calls.take(Due::Now, at(2));
        let event = taken[&(0, Some(source(1)))].event(Some(source(1)));
        assert_eq!((event.occurred_at, event.count), (at(2), 3));
        let changes = [FieldChange::set("too_many_attempts", "1"), FieldChange::set("overloaded", "2")];
        assert_eq!(event.changes, changes);
    }

    #[test]
    fn any_number_of_sources_makes_a_thousand_and_one_events() {
        let calls = RefusedCalls::default();
        for n in 0..5_000 {
            calls.count(0, source(n), at(0));
        }
        calls.count(0, source(3), at(0));
        let events = events(&calls, Due::Now, at(0));
        assert_eq!(events.len(), 1_001);
        assert_eq!(events.iter().map(|(_, count)| count).sum::<u64>(), 5_001);
        assert_eq!(events[0], (None, 4_000));
    }

    #[test]
    fn what_could_not_be_written_is_counted_on() {
        let calls = RefusedCalls::default();
        calls.count(0, source(1), at(0));
        let taken = calls.take(Due::Now, at(1));
        calls.count(0, source(1), at(2));
        calls.put_back(taken);
        assert_eq!(events(&calls, Due::Now, at(3)), [(Some("0.0.0.1".to_owned()), 2)]);
    }
}
