//! Where the master key is, and whether it may be made.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

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
        MasterKeySource::Given(key) => key.clone(),
        MasterKeySource::BesideDatabase(path) => beside(path, storage).await?,
        MasterKeySource::FromJwtSecret => {
            let secret = jwt_secret.ok_or(NoMasterKey::NoSecret)?;
            MasterKey::from_jwt_secret(secret.expose_secret().as_bytes())
        }
    };
    Ok(MasterKeys { current, previous: settings.previous.clone() })
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
