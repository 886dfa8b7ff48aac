//! Shares out the file descriptors of the process, so that no client's connections take those of others.

use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit};

use super::admission::AdmissionSettings;
use super::http;
use crate::config::Settings;
use crate::storage::DatabaseUrl;

/// Connections at once to the port for health alone: far more than probes have.
const MAX_HEALTH_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(128).expect("128 is not 0");

/// Percent of these that one source may have: a node's probes come from one.
const HEALTH_SHARE: u32 = 50;

/// What SQLite takes: a file, its log and its index for each of up to seventeen connections, and the files
/// of a migration, a probe and a checkpoint.
const SQLITE_DESCRIPTORS: usize = 64;

/// For each connection to PostgreSQL, a second while the first is being replaced or cancelled.
const DESCRIPTORS_PER_POSTGRES_CONNECTION: usize = 2;

/// What the rest of the process takes: standard streams, the runtime, signals, the listening sockets, the
/// files of TLS and keys when they are read again, name resolution, with room to spare.
const OTHER_DESCRIPTORS: usize = 64;

/// How many connections there may be to the port for gRPC: as many as the settings say, and no more than
/// the limit of open files leaves when all others have theirs.
pub(super) fn admission(settings: &Settings) -> AdmissionSettings {
    let connections = &settings.server.connections;
    let reserved = reserved(settings);
    let limit = open_files();
    let max = AdmissionSettings::connections_within(connections.max, limit.saturating_sub(reserved));
    if max < connections.max {
        tracing::warn!(
            open_files.limit = limit,
            open_files.reserved = reserved,
            connections.limit = max,
            "the limit of open files allows fewer connections than IDENTITY_CONNECTION_LIMIT"
        );
    }
    AdmissionSettings::new(max, connections.share)
}

/// How many connections there may be to the port for health alone.
pub(super) fn health_admission() -> AdmissionSettings {
    AdmissionSettings::new(MAX_HEALTH_CONNECTIONS, HEALTH_SHARE)
}

/// How many files the process may have open.
fn open_files() -> usize {
    // None is no limit.
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What everything but the connections for gRPC takes at most.
fn reserved(settings: &Settings) -> usize {
    let database = match &settings.database.url {
        DatabaseUrl::Sqlite { .. } => SQLITE_DESCRIPTORS,
        DatabaseUrl::Postgres(_) => {
            settings.database.connections.get() as usize * DESCRIPTORS_PER_POSTGRES_CONNECTION
        }
    };
    let health = settings.server.health_listen.map_or(0, |_| health_admission().max_descriptors());
    let http = settings.server.http_listen.map_or(0, |_| http::MAX_CONNECTIONS);
    database + health + http + OTHER_DESCRIPTORS
}
