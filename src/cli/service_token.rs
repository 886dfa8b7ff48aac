//! `identity service-token`: makes, lists and revokes the credentials of other services.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Outcome;
use super::arguments::{NewServiceToken, ServiceTokenAction};
use crate::config::MaintenanceSettings;
use crate::domain::{
    AllowedRpcs, Clock as _, ServiceName, ServiceToken, ServiceTokenId, SystemClock, Timestamp,
};
use crate::service::{access, service_tokens};
use crate::storage::{Storage, StorageSettings, migrate};
use crate::telemetry::logs;

/// Does `action` on the database of `settings`. What a program may read goes to standard output, the rest
/// to standard error.
///
/// # Errors
/// When the database cannot be reached, lacks a migration, or an argument names what does not exist.
pub(super) fn run(settings: MaintenanceSettings, action: ServiceTokenAction) -> Outcome {
    logs::init(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(perform(&settings, action))
}

async fn perform(settings: &MaintenanceSettings, action: ServiceTokenAction) -> Outcome {
    let database = &settings.database;
    if !migrate::pending(&database.url).await?.is_empty() {
        return Err("the database lacks migrations: run `identity migrate run` first".into());
    }
    let storage = Storage::new(&StorageSettings {
        url: database.url.clone(),
        connections: database.connections,
        statement_limit: database.statement_limit,
    })?;
    let outcome = match action {
        ServiceTokenAction::Create(new) => create(&storage, new).await,
        ServiceTokenAction::List { json } => list(&storage, json).await,
        ServiceTokenAction::Revoke { id } => revoke(&storage, &id).await,
    };
    storage.close().await;
    outcome
}

/// Prints the token, which nobody can print again.
async fn create(storage: &Storage, new: NewServiceToken) -> Outcome {
    let name = ServiceName::parse(&new.name).map_err(|problem| format!("the name {problem}"))?;
    let allowed = allowed(&new.allow)?;
    let lasts = new.expires.into_duration();
    let made = service_tokens::create(storage, &SystemClock, name, allowed, lasts).await?;
    eprintln!("service token {}: it is shown this once and kept nowhere", made.token.id);
    writeln!(std::io::stdout(), "{}", *made.text)?;
    Ok(())
}

fn allowed(names: &[String]) -> Result<AllowedRpcs, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(AllowedRpcs::All);
    }
    let full = |name: &String| {
        access::full_name(name).map(str::to_owned).ok_or_else(|| {
        format!("there is no method {name:?}: name one as GetUser or identity.v1.IdentityService/GetUser, or say all")
    })
    };
    names.iter().map(full).collect::<Result<_, _>>().map(AllowedRpcs::Only)
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
            created_at: rfc3339(token.created_at),
            expires_at: token.expires_at.map(rfc3339),
        }
    }
}

async fn list(storage: &Storage, json: bool) -> Outcome {
    let now = SystemClock.now();
    let tokens = service_tokens::list(storage).await?;
    let lines: Vec<_> = tokens.into_iter().map(|token| Line::of(token, now)).collect();
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&lines)?)?;
        return Ok(());
    }
    for Line { id, name, state, allowed, created_at, expires_at } in lines {
        let expires_at = expires_at.unwrap_or_else(|| "never".to_owned());
        writeln!(out, "{id} {name} {state} created {created_at} expires {expires_at} {}", allowed.join(","))?;
    }
    Ok(())
}

async fn revoke(storage: &Storage, id: &str) -> Outcome {
    let id = ServiceTokenId::parse(id).map_err(|problem| format!("the id {problem}"))?;
    if !service_tokens::revoke(storage, &SystemClock, id).await? {
        return Err(format!("there is no service token {id} that could be revoked").into());
    }
    writeln!(std::io::stdout(), "revoked {id}")?;
    Ok(())
}

/// In UTC, to the second.
fn rfc3339(at: Timestamp) -> String {
    let since_epoch = Duration::from_secs(u64::try_from(at.as_unix_seconds()).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_epoch).to_string()
}
