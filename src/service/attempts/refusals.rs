//! How often each limit refused somebody, for those who watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A limit that refuses calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Failed password checks of an account by a source.
    Attempts,
    /// Failed password checks of an account by all sources that it does not know.
    Account,
    /// Registrations by a source.
    Registrations,
    /// Registrations by a source that failed on a taken e-mail.
    TakenEmails,
    /// Changes by a user, a tenant or a service.
    Changes,
    /// Service tokens of a source that nothing proves and nobody has.
    ServiceTokens,
}

impl LimitKind {
    const ALL: [Self; 6] = [
        Self::Attempts,
        Self::Account,
        Self::Registrations,
        Self::TakenEmails,
        Self::Changes,
        Self::ServiceTokens,
    ];

    /// What metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Account => "account",
            Self::Registrations => "registrations",
            Self::TakenEmails => "taken_emails",
            Self::Changes => "changes",
            Self::ServiceTokens => "service_tokens",
        }
    }
}

/// Calls that were refused since the start. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<[AtomicU64; LimitKind::ALL.len()]>);

impl Refusals {
    pub(in crate::service) fn count(&self, limit: LimitKind) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    /// How many each limit refused.
    pub fn by_limit(&self) -> impl Iterator<Item = (LimitKind, u64)> {
        LimitKind::ALL.into_iter().map(|limit| (limit, self.0[limit as usize].load(Relaxed)))
    }
}
