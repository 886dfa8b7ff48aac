//! The credentials of other services: made and revoked by the operator, checked with each call.

use std::time::Duration;

use zeroize::Zeroizing;

use super::Service;
use super::caller::ServiceIdentity;
use super::error::ServiceError;
use crate::crypto::service_token::ServiceTokenSecret;
use crate::domain::{AllowedRpcs, Clock, ServiceName, ServiceToken, ServiceTokenId};
use crate::storage;
use crate::storage::{Storage, StorageError};

/// A token that was just made, and its text, which nobody can tell later.
#[derive(Debug)]
pub struct NewServiceToken {
    /// What is kept of it.
    pub token: ServiceToken,
    /// The text that the service has to send. Erased when dropped.
    pub text: Zeroizing<String>,
}

/// Makes a token for the service `name`.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn create(
    storage: &Storage,
    clock: &dyn Clock,
    name: ServiceName,
    allowed: AllowedRpcs,
    lasts: Option<Duration>,
) -> Result<NewServiceToken, StorageError> {
    let now = clock.now();
    let secret = ServiceTokenSecret::generate(ServiceTokenId::generate(now));
    let token = ServiceToken {
        id: secret.id(),
        name,
        secret_digest: secret.digest(),
        allowed,
        created_at: now,
        expires_at: lasts.map(|lasts| now.plus(lasts)),
        revoked_at: None,
    };
    let mut tx = storage.begin("create service token").await?;
    storage::service_tokens::insert(&mut tx, &token).await?;
    tx.commit().await?;
    Ok(NewServiceToken { token, text: secret.to_text() })
}

/// All tokens, in force or not, by name and age.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list(storage: &Storage) -> Result<Vec<ServiceToken>, StorageError> {
    storage::service_tokens::list(&mut storage.read().await?).await
}

/// Revokes a token, from the next call on; false when there is none that was not revoked before.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn revoke(storage: &Storage, clock: &dyn Clock, id: ServiceTokenId) -> Result<bool, StorageError> {
    let mut tx = storage.begin("revoke service token").await?;
    let revoked = storage::service_tokens::update_revoked(&mut tx, id, clock.now()).await?;
    tx.commit().await?;
    Ok(revoked)
}

impl Service {
    /// Which service holds this token. Asks the database, so that a revoked one counts no more; a text
    /// of another form is refused without.
    ///
    /// # Errors
    /// [`ServiceError::ServiceCredentialInvalid`] for any text that is not a service token in force.
    pub async fn authenticate_service(&self, token: &str) -> Result<ServiceIdentity, ServiceError> {
        let secret = ServiceTokenSecret::parse(token).ok_or(ServiceError::ServiceCredentialInvalid)?;
        let found = {
            let mut conn = self.0.storage.read().await?;
            storage::service_tokens::find(&mut conn, secret.id()).await?
        };
        let now = self.0.clock.now();
        found
            .filter(|token| secret.has_digest(&token.secret_digest) && token.is_in_force(now))
            .map(|token| ServiceIdentity { name: token.name, allowed: token.allowed })
            .ok_or(ServiceError::ServiceCredentialInvalid)
    }
}
