//! All SQL: pools, connections, transactions, one file of queries per aggregate.
//!
//! PostgreSQL and SQLite are served by the same queries, written once (`connection::query!`). There is no
//! storage trait and no mock: what runs in production runs in tests.
//!
//! Query functions take a [`Conn`] or, where they write, a [`Tx`], and are named `find` (may be
//! absent), `list`, `insert`, `update` and `delete`. Deciding who may do what, and when to open a
//! transaction, is left to `service`.

pub mod attempts;
pub mod audit;
mod blocking;
pub mod bulk;
mod checksums;
pub mod clock;
mod columns;
mod connection;
mod connection_pool;
mod error;
pub mod hashes;
mod inspection;
mod lane;
mod link;
mod listing;
pub mod logins;
pub mod migrate;
pub mod outcomes;
mod pipeline;
mod pool;
pub mod postgres;
mod prepared;
pub mod prisma;
mod query_log;
mod reachability;
pub mod removal;
mod rows;
mod schema;
pub mod service_tokens;
pub mod sessions;
mod settings;
pub mod signing_keys;
pub mod snapshot;
mod sqlite;
mod sqlite_file;
pub mod tenants;
mod text;
mod times;
mod transaction;
pub mod url;
mod usage;
pub mod user_lists;
pub mod user_scans;
pub mod users;

pub use connection::Conn;
pub use error::StorageError;
pub use inspection::Inspection;
pub use lane::{Lane, LaneSizes};
pub use listing::Listing;
pub use pipeline::Answer;
pub use pool::{Permit, Storage};
pub use settings::StorageSettings;
pub use snapshot::Snapshot;
pub use transaction::Tx;
pub use url::DatabaseUrl;
pub use usage::PoolUsage;

/// Whether a row was written, where another may have been first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// The row is there now.
    Yes,
    /// A row with that key was there already; nothing was written.
    Taken,
}

impl Inserted {
    fn from_count(rows: usize) -> Self {
        if rows == 0 { Self::Taken } else { Self::Yes }
    }
}
