//! Verifying an access token for somebody else.

use crate::crypto::access_token::AccessClaims;
use crate::domain::Role;
use crate::storage;

use super::super::call::Call;
use super::super::{Service, ServiceError};

/// What an access token says that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Its claims.
    pub claims: AccessClaims,
    /// The user's role now, which may be another than the token's.
    pub role: Role,
    /// Its `iss`.
    pub issuer: String,
    /// Its `aud`.
    pub audience: String,
}

impl Service {
    /// What `access_token` says, or `None` when it is not in force: made-up, expired, of a session that
    /// has ended, or of a user who may do nothing any more.
    ///
    /// # Errors
    /// [`ServiceError::Storage`] when that cannot be told.
    pub async fn verify_token(
        &self,
        call: &Call,
        access_token: &str,
    ) -> Result<Option<VerifiedToken>, ServiceError> {
        let Ok(claims) = self.0.access_tokens.verify(access_token, self.0.clock.now()) else {
            return Ok(None);
        };
        let mut conn = self.reader(call).await?;
        let found = storage::sessions::find_with_user(&mut conn, claims.tenant_id, claims.session_id).await?;
        let now = self.0.clock.now();
        let user = found
            .filter(|(session, user)| user.id == claims.user_id && self.is_open(session, user, now))
            .map(|(_, user)| user);
        Ok(user.map(|user| VerifiedToken {
            claims,
            role: user.role,
            issuer: self.0.access_tokens.settings().issuer.clone(),
            audience: self.0.access_tokens.settings().audience.clone(),
        }))
    }
}
