//! Which database to use, and how much of it.

use std::time::Duration;

use super::lane::LaneSizes;
use super::url::DatabaseUrl;

/// Which database to use, and how much of it.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// Where the database is.
    pub url: DatabaseUrl,
    /// The most connections to PostgreSQL, by lane, the health probe's own one aside. SQLite has one that
    /// writes and a few that read, whatever is said here.
    pub connections: LaneSizes,
    /// After that, PostgreSQL ends a statement; after two thirds of it, one that waits for a lock. SQLite's
    /// have no limit.
    pub statement_limit: Duration,
    /// How long a call waits for a connection at most, while the database answers.
    pub queue_limit: Duration,
}
