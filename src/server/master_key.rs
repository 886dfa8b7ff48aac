//! Where the master key is, whether it may be made, and what becomes of another one in its file.

use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;

use crate::config::{MasterKeySettings, MasterKeySource};
use crate::crypto::master_key::{MasterKey, MasterKeyError, MasterKeys};
use crate::service::keys;
use crate::storage::{Storage, StorageError};

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum NoMasterKey {
    /// It cannot be read or made.
    #[error("the master key: {0}")]
    Unreadable(#[from] MasterKeyError),
    /// An SQLite database that was used before has lost the file beside it.
    #[error(
        "the master key file {path} is missing, and the database was used with it: put it back, or set \
         IDENTITY_MASTER_KEY_FILE or IDENTITY_MASTER_KEY to the same key. If it is lost for good, make \
         another (identity keys master > {path}; chmod 600 {path}) and delete the rows of signing_keys: \
         that ends all sessions",
        path = path.display()
    )]
    Missing {
        /// Where the file should be.
        path: PathBuf,
    },
    /// A setting that was checked before does not hold.
    #[error("JWT_SECRET is not set")]
    NoSecret,
    /// The database cannot be asked whether it has been used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The keys that `settings` lead to. The file beside an SQLite database is made for a new database only:
/// one that was restored without its file would be of no use with another key.
///
/// # Errors
/// [`NoMasterKey`]; trying again helps only when storage is to blame.
pub async fn read(
    settings: &MasterKeySettings,
    jwt_secret: Option<&SecretString>,
    storage: &Storage,
) -> Result<MasterKeys, NoMasterKey> {
    let current = match &settings.source {
        MasterKeySource::Given(key) | MasterKeySource::InFile { key, .. } => key.clone(),
        MasterKeySource::BesideDatabase(path) => beside(path, storage).await?,
        MasterKeySource::FromJwtSecret => {
            let secret = jwt_secret.ok_or(NoMasterKey::NoSecret)?;
            MasterKey::from_jwt_secret(secret.expose_secret().as_bytes())
        }
    };
    Ok(MasterKeys { current, previous: settings.previous.iter().cloned().collect() })
}

async fn beside(path: &Path, storage: &Storage) -> Result<MasterKey, NoMasterKey> {
    match MasterKey::load(path) {
        Err(error) if error.is_absence() => {}
        loaded => return Ok(loaded?),
    }
    if !keys::are_bound(storage).await? {
        return Ok(MasterKey::load_or_create(path)?);
    }
    // Another process may have started at the same time, made the file and used the database.
    match MasterKey::load(path) {
        Err(error) if error.is_absence() => Err(NoMasterKey::Missing { path: path.to_owned() }),
        loaded => Ok(loaded?),
    }
}

/// The file that holds the master key of a running server. All clones stand for the same one.
#[derive(Clone, Debug)]
pub struct MasterKeyFile {
    path: Arc<Path>,
    /// Told to read it now.
    reload: Arc<Notify>,
}

impl MasterKeyFile {
    /// The file in which `settings` say that the key is, if it is in one.
    pub(super) fn of(settings: &MasterKeySettings) -> Option<Self> {
        settings.source.file().map(|path| Self { path: path.into(), reload: Arc::default() })
    }

    /// Makes the follower of the file read it now.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Reads the file after each [`MasterKeyFile::reload`] and offers the key that it holds. Logs why a file
    /// cannot be used. Never returns.
    pub(super) async fn follow(&self, offers: mpsc::Sender<MasterKey>) -> Infallible {
        loop {
            self.reload.notified().await;
            let path = Arc::clone(&self.path);
            match spawn_blocking(move || MasterKey::load(&path)).await {
                Ok(Ok(key)) => {
                    if offers.send(key).await.is_err() {
                        return pending().await;
                    }
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "the master key file cannot be used: the server keeps its master key");
                }
                Err(error) => tracing::error!(%error, "the master key file could not be read"),
            }
        }
    }
}
