//! Access tokens, the keys that sign them, and sessions.

use crate::config::declared::{
    IDENTITY_ACCESS_TTL, IDENTITY_AUDIENCE, IDENTITY_ISSUER, IDENTITY_KEY_PROPAGATION,
    IDENTITY_REFRESH_GRACE, IDENTITY_SESSION_IDLE, IDENTITY_SESSION_LIMIT, IDENTITY_SESSION_MAX,
    IDENTITY_TOKEN_ALGORITHM,
};
use crate::config::read::Reader;
use crate::crypto::KeyAlgorithm;
use crate::crypto::access_token::TokenSettings;
use crate::service::SessionRules;
use crate::service::keys::Propagation;

/// The keys that the service makes to sign tokens.
#[derive(Clone, Copy, Debug)]
pub struct SigningSettings {
    /// What they are for; `None` keeps what the last one is for.
    pub algorithm: Option<KeyAlgorithm>,
    /// How long a new key is published before it signs.
    pub propagation: Propagation,
}

pub(super) fn read(reader: &mut Reader<'_>) -> TokenSettings {
    TokenSettings {
        issuer: reader.get(&IDENTITY_ISSUER),
        audience: reader.get(&IDENTITY_AUDIENCE),
        access_ttl: reader.get(&IDENTITY_ACCESS_TTL),
    }
}

pub(super) fn sessions(reader: &mut Reader<'_>) -> SessionRules {
    let idle = reader.given(&IDENTITY_SESSION_IDLE);
    let max = reader.get(&IDENTITY_SESSION_MAX);
    if idle.is_some_and(|idle| idle > max) {
        let problem = "must not be longer than IDENTITY_SESSION_MAX (--session-max)";
        reader.fault(&IDENTITY_SESSION_IDLE, problem);
    }
    SessionRules {
        // A shorter maximum alone shortens the default with it.
        idle: idle.unwrap_or_else(|| IDENTITY_SESSION_IDLE.default_value()).min(max),
        max,
        refresh_grace: reader.get(&IDENTITY_REFRESH_GRACE),
        per_user: reader.get(&IDENTITY_SESSION_LIMIT).get(),
    }
}

pub(super) fn signing(reader: &mut Reader<'_>) -> SigningSettings {
    SigningSettings {
        algorithm: reader.given(&IDENTITY_TOKEN_ALGORITHM),
        propagation: Propagation::new(reader.get(&IDENTITY_KEY_PROPAGATION)),
    }
}
