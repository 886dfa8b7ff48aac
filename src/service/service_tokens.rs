//! The credentials of other services: made and revoked by the operator, checked with each call.

use std::time::Duration;

use zeroize::Zeroizing;

use super::caller::ServiceIdentity;
use super::error::ServiceError;
use super::{Authority, Service};
use crate::crypto::service_token::ServiceTokenSecret;
use crate::domain::{
    Action, AllowedRpcs, AuditEvent, Clock, FieldChange, Party, ServiceName, ServiceToken, ServiceTokenId,
    Target,
};
use crate::storage;
use crate::storage::{Lane, Storage, StorageError};

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
    by: &Authority,
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
    let expires_at = token.expires_at.map(|end| FieldChange::set("expires_at", end.to_string()));
    let changes = [
        FieldChange::set("name", token.name.as_str()),
        FieldChange::set("allowed", allowed_text(&token.allowed)),
    ];
    let event = AuditEvent {
        target: Some(Target::ServiceToken(token.id)),
        changes: changes.into_iter().chain(expires_at).collect(),
        ..by.event(now, None, Action::ServiceTokenCreated)
    };
    storage::audit::insert(&mut tx, &event).await?;
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
pub async fn revoke(
    storage: &Storage,
    clock: &dyn Clock,
    by: &Authority,
    id: ServiceTokenId,
) -> Result<bool, StorageError> {
    let now = clock.now();
    let mut tx = storage.begin("revoke service token").await?;
    let revoked = storage::service_tokens::update_revoked(&mut tx, id, now).await?;
    if revoked && let Some(token) = storage::service_tokens::find(&mut tx, id).await? {
        let event = AuditEvent {
            target: Some(Target::ServiceToken(id)),
            changes: vec![FieldChange::removed("name", token.name.as_str())],
            ..by.event(now, None, Action::ServiceTokenRevoked)
        };
        storage::audit::insert(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(revoked)
}

/// What the audit log says of what a service may call.
fn allowed_text(allowed: &AllowedRpcs) -> String {
    match allowed {
        AllowedRpcs::All => "all".to_owned(),
        AllowedRpcs::Only(names) => names.join(" "),
    }
}

impl Service {
    /// Which service holds this token. Asks the database, so that a revoked one counts no more; a text
    /// of another form is refused without.
    ///
    /// # Errors
    /// [`ServiceError::ServiceCredentialInvalid`] for any text that is not a service token in force.
    pub async fn authenticate_service(
        &self,
        token: &str,
        party: Party,
    ) -> Result<ServiceIdentity, ServiceError> {
        let secret = ServiceTokenSecret::parse(token).ok_or(ServiceError::ServiceCredentialInvalid)?;
        let found = {
            let mut conn = self.0.storage.reader(Lane::Reads, party).await?;
            storage::service_tokens::find(&mut conn, secret.id()).await?
        };
        let now = self.0.clock.now();
        found
            .filter(|token| secret.has_digest(&token.secret_digest) && token.is_in_force(now))
            .map(|token| ServiceIdentity { name: token.name, allowed: token.allowed })
            .ok_or(ServiceError::ServiceCredentialInvalid)
    }
}
