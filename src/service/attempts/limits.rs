//! How many checks may fail, and the rows that count them.

use std::time::Duration;

use super::refusals::LimitKind;
use crate::domain::{Email, Limit, Source, Timestamp};
use crate::service::Service;
use crate::service::caller::CallContext;
use crate::service::error::ServiceError;
use crate::storage;
use crate::storage::Tx;
use crate::storage::attempts::{AttemptKey, Tried};

pub(super) const QUARTER: Duration = Duration::from_secs(15 * 60);
/// Failed checks of an account by one source.
pub(super) const OWN: Limit = Limit { most: 10, within: QUARTER };
/// Failed checks of an account by all sources that it does not know together: as many as guess one of the
/// fifty most common passwords twice over, and few enough that guessing the rest takes years.
pub(super) const STRANGERS: Limit = Limit { most: 100, within: QUARTER };

/// How long a source is known from which an account has logged in.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How many such sources are known of an account, the latest ones.
pub(super) const KNOWN_SOURCES: usize = 20;

impl Service {
    /// Notes that the new user of `email` is at home where the call comes from.
    pub(in crate::service) async fn insert_known(
        &self,
        tx: &mut Tx,
        email: &Email,
        context: &CallContext,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        let subject = self.subject(&["account", email.as_normalized()]);
        let key = AttemptKey { subject, source: self.source(context) };
        Ok(storage::attempts::insert_known(tx, key, now.plus(KNOWN_FOR)).await?)
    }

    /// Whom or what limits are about, in a form that names nobody.
    pub(in crate::service) fn subject(&self, what: &[&str]) -> [u8; 32] {
        self.0.attempt_keys.fingerprint(what)
    }

    /// Where the call comes from, in such a form.
    pub(in crate::service) fn source(&self, context: &CallContext) -> [u8; 32] {
        self.0.attempt_keys.fingerprint(&["source", &Source::of(context.source).to_string()])
    }

    /// The row of an account that all sources share which it does not know.
    pub(super) fn strangers(&self, subject: [u8; 32]) -> AttemptKey {
        AttemptKey { subject, source: self.0.attempt_keys.fingerprint(&["strangers"]) }
    }

    pub(super) fn refuse_attempt(&self, limit: LimitKind, until: Timestamp) -> ServiceError {
        self.0.refusals.count(limit);
        ServiceError::TooManyAttempts { retry_after: until.since(self.0.clock.now()) }
    }
}

/// Writes what is remembered for as long as it matters. What does not is deleted: a row is there only for
/// checks that failed or are under way, and for sources that are known.
pub(super) async fn write(
    tx: &mut Tx,
    key: AttemptKey,
    tried: &Tried,
    limit: Limit,
) -> Result<(), ServiceError> {
    match tried.attempts.forgotten_at(limit).max(tried.known_until) {
        Some(expires_at) => storage::attempts::update(tx, key, tried, expires_at).await?,
        None => storage::attempts::delete(tx, key).await?,
    }
    Ok(())
}
