//! The secrets that the operator hands over, and where the master key is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::declared::{
    IDENTITY_MASTER_KEY, IDENTITY_MASTER_KEY_FILE, IDENTITY_MASTER_KEY_PREVIOUS, JWT_SECRET,
};
use super::read::Reader;
use super::setting::{Secrets, Setting};
use super::{Environment, Flags};
use crate::crypto::{MasterKey, MasterKeyError};
use crate::storage::url::DatabaseUrl;

/// HS256 needs a key at least as long as its hash (RFC 7518, 3.2).
const JWT_SECRET_MIN_BYTES: usize = 32;

/// What becomes of the line end of a key.
const LINE_END_OF_KEY: &str = "is no part of the key";

/// The problem with a key that is none.
const NO_MASTER_KEY: &str = "must be 32 bytes in base64; `identity keys master` makes one";

/// The master key.
#[derive(Clone, Debug)]
pub struct MasterKeySettings {
    /// Where it comes from.
    pub source: MasterKeySource,
    /// Another one that counts as well, while the two are exchanged.
    pub previous: Option<MasterKey>,
}

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// The key that the operator gave.
    Given(MasterKey),
    /// The file that the operator named, and what it held when the settings were read.
    InFile {
        /// The file.
        path: PathBuf,
        /// Its content.
        key: MasterKey,
    },
    /// The file beside an SQLite database, made with mode 0600 at the first start. No setting names it,
    /// so it is not opened here.
    BesideDatabase(PathBuf),
    /// Derived from `JWT_SECRET`, which is set.
    FromJwtSecret,
}

impl MasterKeySource {
    /// The file that holds the key, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::InFile { path, .. } | Self::BesideDatabase(path) => Some(path),
            Self::Given(_) | Self::FromJwtSecret => None,
        }
    }
}

/// `JWT_SECRET`, for HS256; its bytes are the key as they stand.
pub(super) fn jwt_secret(reader: &mut Reader<'_>) -> Option<SecretString> {
    let secret = reader.secret(&JWT_SECRET, "is a part of the secret")?;
    if secret.expose_secret().len() < JWT_SECRET_MIN_BYTES {
        reader.fault(
            &JWT_SECRET,
            "must have at least 32 bytes (RFC 7518, 3.2); `openssl rand -base64 48` makes one. \
             Without it, tokens are signed with keys that the service makes itself",
        );
    }
    Some(secret)
}

/// The master key, and the previous one. `database` is `None` when its URL is wrong.
pub(super) fn master_key(
    reader: &mut Reader<'_>,
    database: Option<&DatabaseUrl>,
    has_jwt_secret: bool,
) -> Option<MasterKeySettings> {
    let previous = reader
        .secret(&IDENTITY_MASTER_KEY_PREVIOUS, LINE_END_OF_KEY)
        .and_then(|key| given_key(reader, &IDENTITY_MASTER_KEY_PREVIOUS, &key));
    let source = master_key_source(reader, database, has_jwt_secret)?;
    Some(MasterKeySettings { source, previous })
}

/// The file that is to hold the master key, if a setting names one, whether it is of any use or not.
pub fn master_key_file(flags: &Flags, environment: &dyn Environment) -> Option<PathBuf> {
    Reader::new(flags, environment).given(&IDENTITY_MASTER_KEY_FILE)
}

/// The one place that holds the master key.
fn master_key_source(
    reader: &mut Reader<'_>,
    database: Option<&DatabaseUrl>,
    has_jwt_secret: bool,
) -> Option<MasterKeySource> {
    let inline = reader.secret(&IDENTITY_MASTER_KEY, LINE_END_OF_KEY);
    let file = reader.given(&IDENTITY_MASTER_KEY_FILE);
    match (inline, file, database) {
        (Some(_), Some(_), _) => {
            reader.fault(&IDENTITY_MASTER_KEY, "must not be set together with IDENTITY_MASTER_KEY_FILE");
            None
        }
        (Some(key), None, _) => given_key(reader, &IDENTITY_MASTER_KEY, &key).map(MasterKeySource::Given),
        (None, Some(file), _) => {
            let key = MasterKey::load(&file);
            key.map_err(|error| reader.fault(&IDENTITY_MASTER_KEY_FILE, problem_with_file(&error)))
                .ok()
                .map(|key| MasterKeySource::InFile { path: file, key })
        }
        (None, None, Some(DatabaseUrl::Sqlite { path })) => {
            Some(MasterKeySource::BesideDatabase(beside(path)))
        }
        (None, None, Some(DatabaseUrl::Postgres(_))) if has_jwt_secret => {
            Some(MasterKeySource::FromJwtSecret)
        }
        (None, None, Some(DatabaseUrl::Postgres(_))) => {
            reader.fault(
                &IDENTITY_MASTER_KEY,
                "must be set with PostgreSQL, or else IDENTITY_MASTER_KEY_FILE or JWT_SECRET; \
                 `identity keys master` makes one",
            );
            None
        }
        (None, None, None) => None,
    }
}

fn given_key(reader: &mut Reader<'_>, setting: &Setting<Secrets>, key: &SecretString) -> Option<MasterKey> {
    let key = MasterKey::from_base64(key.expose_secret());
    key.map_err(|_| reader.fault(setting, NO_MASTER_KEY)).ok()
}

/// What is wrong with a file that should hold the master key. Leaves its name out: it may be the key
/// itself, put into the wrong variable.
fn problem_with_file(error: &MasterKeyError) -> String {
    match error {
        MasterKeyError::File { source, .. } => format!("must name a file that can be read: {source}"),
        MasterKeyError::Exposed { .. } => {
            "must name a file that others cannot access and its group not write; chmod 600 makes it so".into()
        }
        MasterKeyError::Malformed | MasterKeyError::MalformedFile { .. } => {
            "must name a file with 32 bytes in base64; `identity keys master` makes one".into()
        }
    }
}

/// `identity.db.key` for `identity.db`.
fn beside(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".key");
    PathBuf::from(name)
}
