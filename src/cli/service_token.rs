//! `identity service-token`: makes, lists and revokes the credentials of other services.

use std::io::Write as _;

use serde::Serialize;

use super::arguments::{AllowedMethod, NewServiceToken};
use super::streams::{StandardOutput, notify};
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

/// One line of the list.
#[derive(Serialize)]
struct Line {
    id: String,
    name: String,
    state: &'static str,
    allowed: Vec<String>,
    created_at: String,
    expires_at: Option<String>,
}

impl Line {
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

/// Prints all tokens, without their secrets, as a table or as JSON.
///
/// # Errors
/// When the database cannot be reached or lacks a migration.
pub(super) fn list(settings: MaintenanceSettings, json: bool) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        let now = SystemClock.now();
        let tokens = service_tokens::list(&storage).await?;
        let lines: Vec<_> = tokens.into_iter().map(|token| Line::of(token, now)).collect();
        let text = if json { serde_json::to_string_pretty(&lines)? + "\n" } else { as_table(&lines) };
        Ok(StandardOutput.write_all(text.as_bytes())?)
    })
}

fn as_table(lines: &[Line]) -> String {
    let row = |id: &str, name: &str, state: &str, created_at: &str, expires_at: &str, allowed: &str| {
        format!("{id:<36}  {name:<20}  {state:<7}  {created_at:<20}  {expires_at:<20}  {allowed}\n")
    };
    let mut text = row("id", "name", "state", "created", "expires", "may call");
    for line in lines {
        let expires_at = line.expires_at.as_deref().unwrap_or("never");
        let allowed = line.allowed.join(" ");
        text += &row(&line.id, &line.name, line.state, &line.created_at, expires_at, &allowed);
    }
    text
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
