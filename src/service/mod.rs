//! The use cases: who may do what, what happens, and in which unit of work.
//!
//! Takes and returns [`domain`](crate::domain) types; knows neither the wire nor SQL. One file or folder a
//! subject: [`accounts`] registers and logs in, `attempts` and `registrations` limit how often, [`users`]
//! looks up, [`directory`] keeps users and tenants, [`removal`] removes what is left of deleted ones, `sessions` opens, refreshes and ends sessions, `passwords`
//! changes one's own, `hash_costs` follows what the stored hashes cost, [`keys`] keeps the signing keys and [`service_tokens`] the credentials of services,
//! [`moving`] takes users over from elsewhere and hands them out. [`access`] holds the one table of what each
//! caller may call, [`admission`] which budgets a call takes, [`authority`] says on whose authority something is changed; [`audit`] lists what was done,
//! `refused` counts what was not, and `outages` what failed because the database was unavailable. [`retry`] says how often something is tried again.

pub mod access;
pub mod accounts;
pub mod admission;
mod attempts;
pub mod audit;
pub mod authority;
pub mod call;
pub mod caller;
pub mod directory;
mod error;
mod hash_costs;
pub mod keys;
pub mod moving;
mod outages;
mod passwords;
mod refused;
mod registrations;
pub mod removal;
pub mod retry;
pub mod service_tokens;
mod sessions;
mod units;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use access::AccessTable;

use crate::crypto::access_token::AccessTokens;
use crate::crypto::fingerprint::Fingerprinter;
use crate::crypto::hasher::Hasher;
pub use crate::crypto::keyring::PublishedKeys;
use crate::crypto::master_key::MasterKeys;
use crate::crypto::page_token::PageTokens;
use crate::crypto::refresh_token::RefreshTokens;
use crate::crypto::service_token::ServiceTokens;
use crate::domain::{Clock, PasswordPolicy};
use crate::storage::Storage;
pub use crate::storage::StorageError;

pub use admission::{ChangeRules, Changes};
pub use attempts::{LimitKind, Refusals, Turns};
pub use authority::Authority;
pub use call::{Call, Credential, Presented};
pub use caller::{CallContext, Caller, ServiceIdentity, TokenHolder};
pub use error::ServiceError;
pub use hash_costs::CostWalk;
pub use outages::Outages;
pub use refused::{Due, RefusedCalls};
pub use registrations::{OpenTo, RegistrationRules};
pub use removal::Deletions;
pub use service_tokens::Guesses;
pub use sessions::{OpenedSession, OwnSession, SessionRules, Swept, VerifiedToken};
pub use units::UnitsOfWork;

/// What the use cases are made of.
pub struct Parts {
    /// Where everything is kept.
    pub storage: Storage,
    /// Computes and checks password hashes.
    pub hasher: Hasher,
    /// Issues and verifies access tokens.
    pub access_tokens: AccessTokens,
    /// Makes refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Makes page tokens.
    pub page_tokens: PageTokens,
    /// Tells service tokens from texts that may be made up.
    pub service_tokens: ServiceTokens,
    /// How many of these each source has had looked up.
    pub guesses: Guesses,
    /// Digests requests, to recognise them again.
    pub fingerprints: Fingerprinter,
    /// Digests who tries, and whom.
    pub attempt_keys: Fingerprinter,
    /// Whose password is being checked in this process.
    pub turns: Turns,
    /// How often each limit refused somebody.
    pub refusals: Refusals,
    /// Calls that were refused and are yet to be written to the audit log.
    pub refused_calls: RefusedCalls,
    /// Calls that fail because the database is unavailable.
    pub outages: Outages,
    /// Who may call which RPC.
    pub access: AccessTable,
    /// Who may register, and how often.
    pub registration_rules: RegistrationRules,
    /// Who has changed how much lately.
    pub changes: Changes,
    /// What new passwords have to satisfy.
    pub password_policy: PasswordPolicy,
    /// How long sessions last, and how many a user has.
    pub session_rules: SessionRules,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Tells the background task of deleted tenants.
    pub deletions: Deletions,
    /// How long audit events are kept; for ever when none is given.
    pub audit_retention: Option<Duration>,
    /// Where writes run, and can be waited for at the end.
    pub units: UnitsOfWork,
}

/// All use cases. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

impl Service {
    /// Puts the use cases together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What others verify access tokens with.
    pub fn published_keys(&self) -> Arc<PublishedKeys> {
        self.0.access_tokens.published()
    }

    /// Makes everything under other master keys from now on.
    fn exchange_master_keys(&self, master_keys: &MasterKeys) {
        let Parts { refresh_tokens, page_tokens, service_tokens, fingerprints, attempt_keys, .. } = &*self.0;
        refresh_tokens.exchange(master_keys);
        page_tokens.exchange(master_keys);
        service_tokens.exchange(master_keys);
        fingerprints.exchange(master_keys);
        attempt_keys.exchange(master_keys);
    }

    /// What new passwords have to satisfy.
    pub fn password_policy(&self) -> PasswordPolicy {
        self.0.password_policy
    }
}
