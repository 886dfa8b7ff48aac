//! The credentials of other services: made and revoked by the operator, checked with each call.
//!
//! `guesses` limits how many texts are looked up that may be made up.

mod guesses;

use std::time::Duration;

use zeroize::Zeroizing;

use super::attempts::LimitKind;
use super::caller::ServiceIdentity;
use super::error::ServiceError;
use super::{Authority, Service};
use crate::crypto::MasterKeys;
use crate::crypto::service_token::{ServiceTokenSecret, ServiceTokens};
use crate::domain::{
    Action, AllowedRpcs, AuditEvent, Clock, FieldChange, Party, ServiceName, ServiceToken, ServiceTokenId,
    Target,
};
use crate::storage;
use crate::storage::{Conn, Lane, Storage, StorageError};

pub use guesses::Guesses;

/// A token that was just made, and its text, which nobody can tell later.
#[derive(Debug)]
pub struct NewServiceToken {
    /// What is kept of it.
    pub token: ServiceToken,
    /// The text that the service has to send. Erased when dropped.
    pub text: Zeroizing<String>,
}

/// Makes a token for the service `name`, under the current one of `master_keys`.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn create(
    storage: &Storage,
    master_keys: &MasterKeys,
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
    Ok(NewServiceToken { token, text: ServiceTokens::new(master_keys).write(&secret) })
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
    /// of another form is refused without, and so is one that nothing proves, once `party` has had too many of
    /// these looked up in vain.
    ///
    /// # Errors
    /// [`ServiceError::ServiceCredentialInvalid`] for any text that is not a service token in force;
    /// [`ServiceError::TooManyServiceTokens`].
    pub(super) async fn authenticate_service(
        &self,
        token: &str,
        party: Party,
    ) -> Result<ServiceIdentity, ServiceError> {
        let token = self.0.service_tokens.parse(token).ok_or(ServiceError::ServiceCredentialInvalid)?;
        let found = if token.is_proven {
            let conn = self.0.storage.reader(Lane::Reads, party).await?;
            self.find_service(conn, &token.secret).await?
        } else {
            self.find_unproven_service(token.secret, party).await?
        };
        found.ok_or(ServiceError::ServiceCredentialInvalid)
    }

    async fn find_service(
        &self,
        mut conn: Conn,
        secret: &ServiceTokenSecret,
    ) -> Result<Option<ServiceIdentity>, ServiceError> {
        let found = storage::service_tokens::find(&mut conn, secret.id()).await?;
        let now = self.0.clock.now();
        let found = found.filter(|token| secret.has_digest(&token.secret_digest) && token.is_in_force(now));
        Ok(found.map(|token| ServiceIdentity { name: token.name, allowed: token.allowed }))
    }

    /// As [`Service::find_service`], within what `party` may get wrong.
    async fn find_unproven_service(
        &self,
        secret: ServiceTokenSecret,
        party: Party,
    ) -> Result<Option<ServiceIdentity>, ServiceError> {
        let guess = self.0.guesses.begin(party, || self.0.clock.now()).await;
        let guess = guess.map_err(|until| {
            self.0.refusals.count(LimitKind::ServiceTokens);
            ServiceError::TooManyServiceTokens { retry_after: until.since(self.0.clock.now()) }
        })?;
        let conn = self.0.storage.reader(Lane::Reads, party).await?;
        let service = self.clone();
        // In a task of its own: a caller who leaves has had the query, and a wrong token counts.
        let looking_up = tokio::spawn(async move {
            let found = service.find_service(conn, &secret).await?;
            if found.is_none() {
                guess.was_wrong();
            }
            Ok::<_, ServiceError>(found)
        });
        let failed =
            |panic| ServiceError::Fault(format!("the look-up of a service token did not end: {panic}"));
        looking_up.await.map_err(failed)?
    }
}
