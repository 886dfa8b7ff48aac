//! `identity keys`: lists and changes the keys in the database, and makes master keys. Needs no running
//! server; those that run follow.

use std::io::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::arguments::KeysAction;
use super::streams::{StandardOutput, notify};
use super::table::{Form, Row, print_all};
use super::{Outcome, database};
use crate::config::{KeySettings, MaintenanceSettings};
use crate::crypto::MasterKey;
use crate::domain::SystemClock;
use crate::server::master_key;
use crate::service::Authority;
use crate::service::keys::{Custody, ScheduledKey, Takeover};

/// Prints a new master key, and a line feed.
///
/// # Errors
/// When standard output is closed.
pub(super) fn print_master() -> Outcome {
    print(&format!("{}\n", *MasterKey::generate().to_base64()))
}

/// Prints the keys in use.
///
/// # Errors
/// When the database cannot be reached, or has no tables.
pub(super) fn list(settings: MaintenanceSettings, json: bool) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        let keys = Custody::list(&storage, &SystemClock).await?;
        print_keys(Form::of(json), &keys)
    })
}

/// Does `action`, and prints what there is then.
///
/// # Errors
/// When the database cannot be reached, has no tables, or does not allow of the change; nothing has
/// changed then.
pub(super) fn change(settings: KeySettings, by: Authority, action: KeysAction) -> Outcome {
    database::run(&settings.log, &settings.database, async |storage| {
        let master_keys =
            master_key::read(&settings.master_key, settings.jwt_secret.as_ref(), &storage).await?;
        let custody = Custody {
            storage,
            master_keys,
            algorithm: settings.signing.algorithm,
            propagation: settings.signing.propagation,
            clock: Arc::new(SystemClock),
            by,
        };
        match action {
            KeysAction::Rotate { now } => {
                let takeover = if now { Takeover::AtOnce } else { Takeover::Propagated };
                custody.rotate(takeover).await?;
            }
            KeysAction::Retire { kid } => {
                custody.retire(&kid).await?;
            }
            KeysAction::Master { .. } | KeysAction::List { .. } => {
                let resealed = custody.reseal().await?;
                return print(&format!("encrypted {resealed} keys under the current master key\n"));
            }
        }
        if settings.jwt_secret.is_some() {
            notify("identity: with JWT_SECRET set, servers sign with that, and these keys only verify");
        }
        print_keys(Form::Table, &Custody::list(&custody.storage, &SystemClock).await?)
    })
}

fn print_keys(form: Form, keys: &[ScheduledKey]) -> Outcome {
    print_all(form, &keys.iter().map(ShownKey::of).collect::<Vec<_>>())
}

fn print(text: &str) -> Outcome {
    Ok(StandardOutput.write_all(text.as_bytes())?)
}

/// A key, as the list shows it. Times are as RFC 3339 writes them.
#[derive(Serialize)]
struct ShownKey<'a> {
    kid: &'a str,
    algorithm: &'a str,
    state: &'a str,
    created_at: String,
    signs_from: String,
    published_until: Option<String>,
}

impl<'a> ShownKey<'a> {
    fn of(key: &'a ScheduledKey) -> Self {
        Self {
            kid: &key.kid,
            algorithm: &key.algorithm,
            state: key.state.as_str(),
            created_at: key.created_at.to_string(),
            signs_from: key.signs_from.to_string(),
            published_until: key.published_until.map(|until| until.to_string()),
        }
    }
}

impl Row for ShownKey<'_> {
    const COLUMNS: &'static [&'static str] = &["kid", "algorithm", "state", "signs from", "published until"];

    fn cells(&self) -> Vec<String> {
        let until = self.published_until.as_deref().unwrap_or("-");
        [self.kid, self.algorithm, self.state, &self.signs_from, until].map(str::to_owned).to_vec()
    }
}
