//! Checksums of migrations: whether one was edited after a database ran it.
//!
//! They are recorded beside diesel's own record of what was run, by whoever runs something. Those of migrations
//! that were run before there were checksums are taken to be right.

use aws_lc_rs::digest;

include!(concat!(env!("OUT_DIR"), "/migration_texts.rs"));

/// A migration of this program.
pub(super) struct Checksum {
    /// The folder's name.
    pub(super) name: &'static str,
    /// What diesel records it by.
    pub(super) version: String,
    /// SHA-256 of its `up.sql`, in hexadecimal.
    pub(super) sha256: String,
}

/// The checksums of this program's migrations for that kind of database, oldest first.
pub(super) fn of(engine: Engine) -> impl Iterator<Item = Checksum> {
    let texts = match engine {
        Engine::Postgres => POSTGRES_TEXTS,
        Engine::Sqlite => SQLITE_TEXTS,
    };
    texts.iter().map(|&(name, text)| Checksum { name, version: version(name), sha256: sha256(text) })
}

/// Records the checksums of all migrations that were run and have none.
pub(super) fn recording(engine: Engine) -> String {
    let update = |Checksum { version, sha256, .. }: Checksum| {
        format!(
            "UPDATE __diesel_schema_migrations SET checksum = '{sha256}' \
             WHERE version = '{version}' AND checksum IS NULL;"
        )
    };
    of(engine).map(update).collect()
}

/// A kind of database.
#[derive(Clone, Copy)]
pub(super) enum Engine {
    Postgres,
    Sqlite,
}

/// As diesel makes it of a folder's name: what comes before the first `_`, without its `-`.
fn version(name: &str) -> String {
    name.split('_').next().unwrap_or(name).replace('-', "")
}

fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
