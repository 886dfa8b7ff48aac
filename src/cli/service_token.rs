//! `identity service-token`: makes, lists and revokes the credentials of other services.

use std::io::Write as _;

use serde::Serialize;

use super::arguments::{AllowedMethod, NewServiceToken};
use super::streams::{StandardOutput, notify};
use super::table::{Form, Row, print_all};
use super::{Outcome, database};
use crate::config::{KeySettings, MaintenanceSettings};
use crate::domain::{AllowedRpcs, Clock as _, ServiceToken, ServiceTokenId, SystemClock, Timestamp};
use crate::server::master_key;
use crate::service::{Authority, service_tokens};

/// Makes a token under the master key, and prints it. Nobody can print it again.
///
/// # Errors
/// When there is no master key, or the database cannot be reached or lacks a migration.
pub(super) fn create(settings: KeySettings, by: &Authority, new: NewServiceToken) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        let allowed = allowed(&new.allow);
        let lasts = new.expires.into_duration();
        let keys = master_key::read(&settings.master_key, settings.jwt_secret.as_ref(), &storage).await?;
        let made =
            service_tokens::create(&storage, &keys, &SystemClock, by, new.name, allowed, lasts).await?;
        notify(format_args!("service token {}: it is shown this once and kept nowhere", made.token.id));
        writeln!(StandardOutput, "{}", *made.text)?;
        Ok(())
    })
}

fn allowed(methods: &[AllowedMethod]) -> AllowedRpcs {
    let name = |method: &AllowedMethod| match method {
        AllowedMethod::All => None,
        AllowedMethod::One(name) => Some((*name).to_owned()),
    };
    // Any of them may be all.
    methods.iter().map(name).collect::<Option<_>>().map_or(AllowedRpcs::All, AllowedRpcs::Only)
}

/// A token, as the list shows it.
#[derive(Serialize)]
struct ShownToken {
    id: String,
    name: String,
    state: &'static str,
    allowed: Vec<String>,
    created_at: String,
    expires_at: Option<String>,
}

impl ShownToken {
    fn of(token: ServiceToken, now: Timestamp) -> Self {
        let state = match (token.revoked_at, token.is_in_force(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "active",
            (None, false) => "expired",
        };
        Self {
            id: token.id.to_string(),
            name: token.name.as_str().to_owned(),
            state,
            allowed: match token.allowed {
                AllowedRpcs::All => vec!["all".to_owned()],
                AllowedRpcs::Only(names) => names,
            },
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.map(|end| end.to_string()),
        }
    }
}

impl Row for ShownToken {
    const COLUMNS: &'static [&'static str] = &["id", "name", "state", "created", "expires", "may call"];

    fn cells(&self) -> Vec<String> {
        let expires_at = self.expires_at.as_deref().unwrap_or("never");
        let allowed = self.allowed.join(" ");
        [&self.id, &self.name, self.state, &self.created_at, expires_at, &allowed].map(str::to_owned).to_vec()
    }
}

/// Prints all tokens, without their secrets.
///
/// # Errors
/// When the database cannot be reached or lacks a migration.
pub(super) fn list(settings: MaintenanceSettings, json: bool) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        let now = SystemClock.now();
        let tokens = service_tokens::list(&storage).await?;
        let shown = tokens.into_iter().map(|token| ShownToken::of(token, now)).collect::<Vec<_>>();
        print_all(Form::of(json), &shown)
    })
}

/// Revokes the token `id`.
///
/// # Errors
/// When the database cannot be reached or lacks a migration, or there is no such token to revoke.
pub(super) fn revoke(settings: MaintenanceSettings, by: &Authority, id: ServiceTokenId) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        if !service_tokens::revoke(&storage, &SystemClock, by, id).await? {
            return Err(format!("there is no service token {id} that could be revoked").into());
        }
        writeln!(StandardOutput, "revoked {id}")?;
        Ok(())
    })
}
