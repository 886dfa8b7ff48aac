//! How often each limit refused somebody, for those who watch.

use crate::telemetry::metrics::{self, Counters, Registry, label};

label! {
    /// A limit that refuses calls.
    pub enum LimitKind: "limit" {
        /// Failed password checks of an account by a source.
        Attempts = "attempts",
        /// Failed password checks of an account by all sources that it does not know.
        Account = "account",
        /// Registrations by a source.
        Registrations = "registrations",
        /// Registrations by a source that failed on a taken e-mail.
        TakenEmails = "taken_emails",
        /// Changes by a user, a tenant or a service.
        Changes = "changes",
        /// Service tokens of a source that nothing proves and nobody has.
        ServiceTokens = "service_tokens",
    }
}

/// Calls that were refused since the start. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Counters<LimitKind>);

impl Refusals {
    pub(in crate::service) fn count(&self, limit: LimitKind) {
        self.0.of(limit).inc();
    }

    /// Adds the metric to those of the process.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls refused by a limit on guessing or flooding";
        metrics::register_series(registry, "limit_refusals", help, self.0.series(&[]));
    }
}
