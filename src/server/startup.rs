//! From settings to a service that answers: reach the database, bring its schema up to date, load
//! the keys. Runs while the process listens already and says so by its health.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use crate::config::{HashSettings, MasterKeySource, MigrateMode, Settings};
use crate::crypto::access_token::{AccessTokens, TokenSettings};
use crate::crypto::fingerprint::Fingerprinter;
use crate::crypto::hasher::{Cost, Hasher, HasherSettings, Staffing, Width};
use crate::crypto::master_key::{MasterKey, MasterKeyError};
use crate::crypto::page_token::PageTokens;
use crate::crypto::refresh_token::RefreshTokens;
use crate::crypto::signing_key::{Keyring, SigningKey};
use crate::domain::{Clock, PasswordPolicy};
use crate::service::keys::{self, KeysError};
use crate::service::{Parts, Service, SessionRules, UnitsOfWork};
use crate::storage::{DatabaseUrl, Storage, StorageError, migrate};

/// Waits between attempts to reach a database that is away, the last one repeated.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Jobs that wait at most, for each hash thread. It bounds memory, some hundred bytes a job; what
/// bounds the wait is the admission by time.
const HASH_QUEUE_PER_THREAD: usize = 1024;

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hash threads could not be started.
    #[error("cannot start the threads that hash passwords: {0}")]
    Hasher(#[source] std::io::Error),
    /// The master key cannot be read or made.
    #[error("the master key: {0}")]
    MasterKey(#[from] MasterKeyError),
    /// An SQLite database that was used before has lost the file beside it.
    #[error(
        "the master key file {path} is missing, and the database was used with it: put it back, or set \
         IDENTITY_MASTER_KEY_FILE or IDENTITY_MASTER_KEY to the same key. If it is lost for good, make \
         another (identity keys master > {path}; chmod 600 {path}) and delete the rows of signing_keys: \
         that ends all sessions",
        path = path.display()
    )]
    MasterKeyMissing {
        /// Where the file should be.
        path: PathBuf,
    },
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
            Self::Storage(StorageError::Unavailable(_))
                | Self::Keys(KeysError::Storage(StorageError::Unavailable(_)))
        )
    }
}

/// What is started before the database is asked for anything.
pub(super) struct Foundations {
    settings: Settings,
    storage: Storage,
    hasher: Hasher,
    clock: Arc<dyn Clock>,
    units: UnitsOfWork,
}

impl Foundations {
    /// Starts the hash threads.
    pub(super) fn lay(
        settings: Settings,
        storage: Storage,
        clock: Arc<dyn Clock>,
        units: UnitsOfWork,
    ) -> Result<Self, StartError> {
        let hasher = Hasher::start(hasher_settings(&settings.hash)?).map_err(StartError::Hasher)?;
        Ok(Self { settings, storage, hasher, clock, units })
    }

    /// What hashes passwords.
    pub(super) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Reaches the database and puts the use cases together, however long that takes: a PostgreSQL
    /// that is away is waited for. A local file is there or is not.
    pub(super) async fn build(&self) -> Result<Service, StartError> {
        let mut waits = RETRY_AFTER.iter().chain(std::iter::repeat(&RETRY_AFTER[RETRY_AFTER.len() - 1]));
        let mut told = None;
        loop {
            let error = match self.try_build().await {
                Ok(service) => return Ok(service),
                Err(error) => error,
            };
            let is_remote = matches!(self.settings.database.url, DatabaseUrl::Postgres(_));
            let (true, true, Some(wait)) = (is_remote, error.is_passing(), waits.next()) else {
                return Err(error);
            };
            // Once for each cause: a database that is up by now may have other reasons to refuse.
            let cause = error.to_string();
            if told.as_ref() != Some(&cause) {
                tracing::warn!(error = %cause, "the database cannot be used yet; waiting for it");
                told = Some(cause);
            }
            sleep(*wait).await;
        }
    }

    async fn try_build(&self) -> Result<Service, StartError> {
        self.bring_schema_up_to_date().await?;
        let master_key = self.master_key().await?;
        let keyring = self.keyring(&master_key).await?;
        let session = &self.settings.session;
        Ok(Service::new(Parts {
            storage: self.storage.clone(),
            hasher: self.hasher.clone(),
            access_tokens: AccessTokens::new(
                keyring,
                TokenSettings {
                    issuer: session.issuer.clone(),
                    audience: session.audience.clone(),
                    access_ttl: session.access_ttl,
                },
            ),
            refresh_tokens: RefreshTokens::new(&master_key),
            page_tokens: PageTokens::new(&master_key),
            fingerprints: Fingerprinter::new(&master_key),
            password_policy: PasswordPolicy::new(self.settings.password_min_length),
            session_rules: SessionRules {
                idle: session.idle,
                max: session.max,
                refresh_grace: session.refresh_grace,
                per_user: session.per_user.get(),
            },
            clock: Arc::clone(&self.clock),
            units: self.units.clone(),
        }))
    }

    async fn bring_schema_up_to_date(&self) -> Result<(), StartError> {
        let url = &self.settings.database.url;
        match self.settings.database.migrate {
            MigrateMode::Auto => {
                for name in migrate::run(url).await? {
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

    async fn master_key(&self) -> Result<MasterKey, StartError> {
        match &self.settings.master_key {
            MasterKeySource::Given(key) => Ok(key.clone()),
            MasterKeySource::BesideDatabase(path) => self.master_key_beside(path).await,
            MasterKeySource::FromJwtSecret => {
                let secret = self.settings.jwt_secret.as_ref();
                let secret = secret.ok_or(StartError::Setting("JWT_SECRET is not set"))?;
                Ok(MasterKey::from_jwt_secret(secret.expose_secret().as_bytes()))
            }
        }
    }

    /// The key in the file beside an SQLite database. It is made for a new database only: one that was
    /// restored without its file would be of no use with another key.
    async fn master_key_beside(&self, path: &Path) -> Result<MasterKey, StartError> {
        match MasterKey::load(path) {
            Err(error) if error.is_absence() => {}
            loaded => return Ok(loaded?),
        }
        if !keys::are_bound(&self.storage).await? {
            return Ok(MasterKey::load_or_create(path)?);
        }
        // Another process may have started at the same time, made the file and used the database.
        match MasterKey::load(path) {
            Err(error) if error.is_absence() => Err(StartError::MasterKeyMissing { path: path.to_owned() }),
            loaded => Ok(loaded?),
        }
    }

    async fn keyring(&self, master_key: &MasterKey) -> Result<Keyring, StartError> {
        let secret = self.settings.jwt_secret.as_ref();
        let secret = secret
            .map(|secret| SigningKey::hs256(secret.expose_secret().as_bytes()))
            .transpose()
            .map_err(|_| StartError::Setting("JWT_SECRET is too short"))?;
        Ok(keys::load(&self.storage, master_key, secret, &*self.clock).await?)
    }
}

fn hasher_settings(settings: &HashSettings) -> Result<HasherSettings, StartError> {
    let cost = Cost::new(settings.cost).ok_or(StartError::Setting("the bcrypt cost is out of range"))?;
    let Staffing { threads, duty } = settings.threads.map_or_else(Staffing::of_this_machine, Staffing::of);
    let lanes = settings.lanes.map(|lanes| {
        Width::new(lanes.get()).ok_or(StartError::Setting("the number of lanes is out of range"))
    });
    Ok(HasherSettings {
        threads,
        duty,
        lanes: lanes.transpose()?,
        queue_capacity: threads.get() * HASH_QUEUE_PER_THREAD,
        max_wait: settings.max_wait,
        cost,
        engine: settings.engine,
    })
}
