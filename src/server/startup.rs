//! From settings to a service that answers: reach the database, bring its schema up to date, load
//! the keys. Runs while the process listens already and says so by its health.

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::config::{DatabaseSettings, MigrateMode, Settings};
use crate::crypto::access_token::AccessTokens;
use crate::crypto::fingerprint::Fingerprinter;
use crate::crypto::hasher::{Duty, Hasher, HasherSettings, Staffing, Width};
use crate::crypto::keyring::Keyring;
use crate::crypto::master_key::MasterKeys;
use crate::crypto::page_token::PageTokens;
use crate::crypto::refresh_token::RefreshTokens;
use crate::crypto::service_token::ServiceTokens;
use crate::crypto::signing_key::SigningKey;
use crate::crypto::tls::TlsFileError;
use crate::domain::Clock;
use crate::service::access::AccessTable;
use crate::service::keys::{Custody, KeyFollower, KeysError};
use crate::service::retry;
use crate::service::{
    Authority, Changes, Deletions, Guesses, Outages, Parts, Refusals, RefusedCalls, Service, Turns,
    UnitsOfWork,
};
use crate::storage::{DatabaseUrl, Inspection, Storage, StorageError, migrate};

use super::master_key::{self, NoMasterKey};

/// Jobs that wait at most, for each hash thread. It bounds memory, some hundred bytes a job; what
/// bounds the wait is the admission by time.
const HASH_QUEUE_PER_THREAD: usize = 1024;

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hash threads could not be started.
    #[error("cannot start the threads that hash passwords: {0}")]
    Hasher(#[source] std::io::Error),
    /// There is no master key.
    #[error(transparent)]
    MasterKey(#[from] NoMasterKey),
    /// The files of TLS were of use when the settings were read, and are not now.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The database is not as it must be.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A setting that was checked before does not hold.
    #[error("{0}")]
    Setting(&'static str),
    /// The schema is older than this program, which was told not to change it.
    #[error("the database lacks {0} migrations: run `identity migrate run`, or set IDENTITY_MIGRATE=auto")]
    SchemaOutdated(usize),
}

impl StartError {
    /// Whether waiting may help: the database may come back, and settings will not change.
    fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Storage(error)
                | Self::MasterKey(NoMasterKey::Storage(error))
                | Self::Keys(KeysError::Storage(error))
                if error.passes()
        )
    }
}

/// What is started before the database is asked for anything.
pub(super) struct Foundations {
    settings: Settings,
    access: AccessTable,
    storage: Storage,
    hasher: Hasher,
    refusals: Refusals,
    clock: Arc<dyn Clock>,
    units: UnitsOfWork,
}

impl Foundations {
    /// Starts the hash threads.
    pub(super) fn lay(
        settings: Settings,
        access: AccessTable,
        storage: Storage,
        clock: Arc<dyn Clock>,
        units: UnitsOfWork,
    ) -> Result<Self, StartError> {
        let hasher = Hasher::start(hasher_settings(&settings)?).map_err(StartError::Hasher)?;
        Ok(Self { settings, access, storage, hasher, refusals: Refusals::default(), clock, units })
    }

    /// What hashes passwords.
    pub(super) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// How often each limit refused somebody.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Reaches the database and puts the use cases together, however long that takes: a PostgreSQL
    /// that is away is waited for. A local file is there or is not. What follows the signing keys from
    /// then on comes with them.
    pub(super) async fn build(&self) -> Result<(Service, KeyFollower), StartError> {
        let mut pauses = retry::REACH_DATABASE.pauses();
        let mut told = None;
        loop {
            let error = match self.try_build().await {
                Ok(built) => return Ok(built),
                Err(error) => error,
            };
            let is_remote = matches!(self.settings.database.url, DatabaseUrl::Postgres(_));
            if !(is_remote && error.is_passing()) {
                return Err(error);
            }
            // Once for each cause: a database that is up by now may have other reasons to refuse.
            let cause = error.to_string();
            if told.as_ref() != Some(&cause) {
                tracing::warn!(error = %cause, "the database cannot be used yet; waiting for it");
                told = Some(cause);
            }
            pauses.wait().await;
        }
    }

    async fn try_build(&self) -> Result<(Service, KeyFollower), StartError> {
        self.bring_schema_up_to_date().await?;
        let Inspection { unknown, edited } = self.storage.inspect().await?;
        if !unknown.is_empty() {
            tracing::warn!(migrations = ?unknown, "the database was migrated by a newer release");
        }
        if !edited.is_empty() {
            tracing::warn!(migrations = ?edited, "migrations were edited after the database ran them: its schema may be another");
        }
        let Settings { master_key, jwt_secret, .. } = &self.settings;
        let master_keys = master_key::read(master_key, jwt_secret.as_ref(), &self.storage).await?;
        let refresh_tokens = RefreshTokens::new(&master_keys);
        let page_tokens = PageTokens::new(&master_keys);
        let service_tokens = ServiceTokens::new(&master_keys);
        let fingerprints = Fingerprinter::of_requests(&master_keys);
        let attempt_keys = Fingerprinter::of_attempts(&master_keys);
        let (keys, keyring) = self.keys(master_keys).await?;
        let service = Service::new(Parts {
            storage: self.storage.clone(),
            hasher: self.hasher.clone(),
            access_tokens: AccessTokens::new(keyring, self.settings.tokens.clone()),
            refresh_tokens,
            page_tokens,
            service_tokens,
            guesses: Guesses::default(),
            fingerprints,
            attempt_keys,
            turns: Turns::default(),
            refusals: self.refusals.clone(),
            refused_calls: RefusedCalls::default(),
            outages: Outages::default(),
            access: self.access.clone(),
            registration_rules: self.settings.registration,
            changes: Changes::new(self.settings.changes),
            password_policy: self.settings.password_policy,
            session_rules: self.settings.session,
            clock: Arc::clone(&self.clock),
            deletions: Deletions::default(),
            audit_retention: self.settings.audit_retention,
            units: self.units.clone(),
        });
        Ok((service, keys))
    }

    async fn bring_schema_up_to_date(&self) -> Result<(), StartError> {
        let DatabaseSettings { url, migrate, migration_wait, .. } = &self.settings.database;
        match migrate {
            MigrateMode::Auto => {
                for name in migrate::run(url, *migration_wait).await? {
                    tracing::info!(migration = %name, "ran a migration");
                }
                Ok(())
            }
            MigrateMode::Check => {
                let pending = migrate::pending(url).await?.len();
                if pending == 0 { Ok(()) } else { Err(StartError::SchemaOutdated(pending)) }
            }
        }
    }

    /// The keys of the database, and the first ring of them.
    async fn keys(&self, master_keys: MasterKeys) -> Result<(KeyFollower, Keyring), StartError> {
        let secret = self.settings.jwt_secret.as_ref();
        let secret = secret
            .map(|secret| SigningKey::hs256(secret.expose_secret().as_bytes()))
            .transpose()
            .map_err(|_| StartError::Setting("JWT_SECRET is too short"))?;
        let custody = Custody {
            storage: self.storage.clone(),
            master_keys,
            algorithm: self.settings.signing.algorithm,
            propagation: self.settings.signing.propagation,
            clock: Arc::clone(&self.clock),
            by: Authority::system(),
        };
        Ok(KeyFollower::load(custody, secret).await?)
    }
}

fn hasher_settings(settings: &Settings) -> Result<HasherSettings, StartError> {
    let is_postgres = matches!(settings.database.url, DatabaseUrl::Postgres(_));
    let settings = &settings.hash;
    let Staffing { threads, duty } = settings.threads.map_or_else(Staffing::of_this_machine, Staffing::of);
    // A PostgreSQL on the same machine serves the same calls.
    let duty = if is_postgres && duty == Duty::Full { Duty::GivingWay } else { duty };
    let lanes = settings.lanes.map(|lanes| {
        Width::new(lanes.get()).ok_or(StartError::Setting("the number of lanes is out of range"))
    });
    Ok(HasherSettings {
        threads,
        duty,
        lanes: lanes.transpose()?,
        queue_capacity: threads.get() * HASH_QUEUE_PER_THREAD,
        max_wait: settings.max_wait,
        cost: settings.cost,
        engine: settings.engine,
    })
}
