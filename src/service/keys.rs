//! The keys that sign access tokens: made on first start, kept in the database, sealed.

use crate::crypto::master_key::MasterKey;
use crate::crypto::signing_key::{Keyring, SigningKey, VerifyingKey};
use crate::domain::{Clock, Timestamp};
use crate::storage;
use crate::storage::signing_keys::StoredSigningKey;
use crate::storage::{Storage, StorageError};

/// What a sealed private key is bound to, besides its key id.
const PURPOSE: &str = "signing key";

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The key is there, but was sealed under another master key.
    #[error(
        "the signing key {kid} in the database was encrypted with another master key: start with the \
         master key that it was made under (IDENTITY_MASTER_KEY or IDENTITY_MASTER_KEY_FILE)"
    )]
    WrongMasterKey {
        /// The key's id.
        kid: String,
    },
    /// A stored key is not one, or a new one cannot be made.
    #[error("the signing key {kid} cannot be used: {reason}")]
    Unusable {
        /// The key's id.
        kid: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The keys to sign and verify with: the secret that the operator gave, or else the newest key in
/// the database. Makes the first one, once, however many processes start at the same time.
///
/// Keys in the database are accepted beside a secret, so that tokens which they signed before the
/// secret was set go on being good until they expire. The newest is opened even then: that shows a
/// wrong master key, under which no refresh token of before would count.
///
/// # Errors
/// [`KeysError`]; trying again helps only when storage is to blame.
pub async fn load(
    storage: &Storage,
    master_key: &MasterKey,
    secret: Option<SigningKey>,
    clock: &dyn Clock,
) -> Result<Keyring, KeysError> {
    let now = clock.now();
    let mut stored = storage::signing_keys::list(&mut storage.read().await?, now).await?;
    if stored.is_empty() && secret.is_none() {
        stored = create_first(storage, master_key, now).await?;
    }
    let verifying = stored.iter().map(verifying_key).collect::<Result<Vec<_>, _>>()?;
    // The oldest will do when this machine's clock is behind that of the one which made them.
    let newest = stored.iter().find(|key| key.signs_from <= now).or(stored.last());
    let newest = newest.map(|key| unseal(master_key, key)).transpose()?;
    let signing = secret.or(newest).ok_or_else(|| unusable("(any)", "none signs yet"))?;
    Ok(Keyring::new(signing, verifying))
}

/// Whether the database holds what was made under a master key: signing keys that are sealed under it,
/// or tenants, whose sessions have refresh tokens.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn are_bound(storage: &Storage) -> Result<bool, StorageError> {
    let mut conn = storage.read().await?;
    Ok(storage::signing_keys::find_any(&mut conn).await? || storage::tenants::find_any(&mut conn).await?)
}

/// The keys in the database, after adding one if there was none.
async fn create_first(
    storage: &Storage,
    master_key: &MasterKey,
    now: Timestamp,
) -> Result<Vec<StoredSigningKey>, KeysError> {
    let mut tx = storage.begin("create signing key").await?;
    storage::signing_keys::lock(&mut tx).await?;
    let stored = storage::signing_keys::list(&mut tx, now).await?;
    if !stored.is_empty() {
        return Ok(stored);
    }
    let key = sealed(master_key, &SigningKey::generate_ed25519(), now)?;
    storage::signing_keys::insert(&mut tx, &key).await?;
    tx.commit().await?;
    tracing::info!(key.id = %key.kid, "made the first signing key");
    Ok(vec![key])
}

fn sealed(master_key: &MasterKey, key: &SigningKey, now: Timestamp) -> Result<StoredSigningKey, KeysError> {
    let parts = key.to_stored().ok_or_else(|| unusable(key.kid(), "it has no private part to store"))?;
    Ok(StoredSigningKey {
        sealed_private_key: master_key.seal(PURPOSE, &parts.kid, &parts.private_key_pkcs8),
        kid: parts.kid,
        algorithm: key.algorithm().to_owned(),
        public_key: parts.public_key.to_vec(),
        created_at: now,
        signs_from: now,
    })
}

fn unseal(master_key: &MasterKey, key: &StoredSigningKey) -> Result<SigningKey, KeysError> {
    let pkcs8 = master_key
        .open(PURPOSE, &key.kid, &key.sealed_private_key)
        .map_err(|_| KeysError::WrongMasterKey { kid: key.kid.clone() })?;
    SigningKey::from_ed25519_pkcs8(&pkcs8).map_err(|error| unusable(&key.kid, error))
}

fn verifying_key(key: &StoredSigningKey) -> Result<VerifyingKey, KeysError> {
    let public_key = <[u8; 32]>::try_from(key.public_key.as_slice())
        .map_err(|_| unusable(&key.kid, "its public part is not of 32 bytes"))?;
    Ok(VerifyingKey::ed25519(public_key))
}

fn unusable(kid: &str, reason: impl ToString) -> KeysError {
    KeysError::Unusable { kid: kid.to_owned(), reason: reason.to_string() }
}
