//! The database, and how it is used.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::declared::{
    DATABASE_URL, IDENTITY_DATABASE_CONNECTIONS, IDENTITY_MIGRATE, IDENTITY_MIGRATION_WAIT,
    IDENTITY_QUEUE_TIMEOUT, IDENTITY_STATEMENT_TIMEOUT,
};
use crate::config::read::Reader;
use crate::storage::postgres::Connector;
use crate::storage::url::DatabaseUrl;
use crate::storage::{LaneSizes, StorageSettings};

/// The database, and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Most connections to PostgreSQL, shared out among the lanes. SQLite takes as many as it needs.
    pub connections: NonZeroU32,
    /// How long PostgreSQL works on one statement at most.
    pub statement_limit: Duration,
    /// How long a call waits for a connection at most.
    pub queue_limit: Duration,
    /// What a start does about pending migrations.
    pub migrate: MigrateMode,
    /// How long another process that migrates PostgreSQL is waited for at most.
    pub migration_wait: Duration,
}

/// What a start does about pending migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateMode {
    /// Runs them.
    Auto,
    /// Refuses to start while any is pending.
    Check,
}

impl DatabaseSettings {
    /// The settings of the pools, with so many connections for each lane.
    pub fn storage(&self, connections: LaneSizes) -> StorageSettings {
        StorageSettings {
            url: self.url.clone(),
            connections,
            statement_limit: self.statement_limit,
            queue_limit: self.queue_limit,
        }
    }
}

/// Reads the settings; `None` when the URL is wrong.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<DatabaseSettings> {
    let url = url(reader);
    let connections = reader.given(&IDENTITY_DATABASE_CONNECTIONS);
    let statement_limit = reader.get(&IDENTITY_STATEMENT_TIMEOUT);
    let queue_limit = reader.get(&IDENTITY_QUEUE_TIMEOUT);
    let migrate = reader.get(&IDENTITY_MIGRATE);
    let migration_wait = reader.get(&IDENTITY_MIGRATION_WAIT);
    let url = url?;
    let limit = match &url {
        DatabaseUrl::Postgres(target) => target.connection_limit().map(NonZeroU32::get),
        DatabaseUrl::Sqlite { .. } => None,
    };
    let fewest = LaneSizes::MIN_TOTAL;
    if connections.is_none() && limit.is_some_and(|limit| limit < fewest) {
        reader.warn(&DATABASE_URL, format_args!("has a connection_limit below {fewest}; {fewest} are used"));
    }
    let connections = connections
        .or(limit.map(|limit| limit.max(fewest)))
        .unwrap_or_else(|| IDENTITY_DATABASE_CONNECTIONS.default_value());
    Some(DatabaseSettings {
        url,
        connections: NonZeroU32::new(connections).expect("at least one connection for each lane"),
        statement_limit,
        queue_limit,
        migrate,
        migration_wait,
    })
}

fn url(reader: &mut Reader<'_>) -> Option<DatabaseUrl> {
    // An empty text is no choice of SQLite: a variable behind it may be missing.
    let text = reader.text_or_empty(&DATABASE_URL).unwrap_or_else(|| DATABASE_URL.default_value());
    let (url, warnings) =
        DatabaseUrl::parse(&text).map_err(|problem| reader.fault(&DATABASE_URL, problem)).ok()?;
    warnings.iter().for_each(|warning| reader.warn(&DATABASE_URL, warning));
    if let DatabaseUrl::Postgres(target) = &url
        && let Err(error) = Connector::new(target)
    {
        reader.fault(&DATABASE_URL, format_args!("must have an sslrootcert that is of use: {error}"));
    }
    Some(url)
}
