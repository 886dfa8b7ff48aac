//! The secrets that the operator hands over, and where the master key is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::read::{Name, Reader};
use crate::crypto::MasterKey;
use crate::storage::url::DatabaseUrl;

const JWT_SECRET: Name = Name::without_flag("JWT_SECRET");
const MASTER_KEY: Name = Name::without_flag("IDENTITY_MASTER_KEY");
const MASTER_KEY_FILE: Name =
    Name::with_flag("IDENTITY_MASTER_KEY_FILE", |flags| flags.master_key_file.as_deref());

/// HS256 needs a key at least as long as its hash (RFC 7518, 3.2).
const JWT_SECRET_MIN_BYTES: usize = 32;

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// The key itself, as [`MasterKey::from_base64`] takes it; checked.
    Inline(SecretString),
    /// A file that the operator made, with the key in base64. It is not opened here.
    File(PathBuf),
    /// The file beside an SQLite database, made with mode 0600 at the first start.
    BesideDatabase(PathBuf),
    /// Derived from `JWT_SECRET`, which is set.
    FromJwtSecret,
}

/// `JWT_SECRET`, for HS256; its bytes are the key as they stand.
pub(super) fn jwt_secret(reader: &mut Reader<'_>) -> Option<SecretString> {
    let secret = SecretString::from(reader.text(JWT_SECRET)?);
    if secret.expose_secret().len() < JWT_SECRET_MIN_BYTES {
        reader.fault(
            JWT_SECRET,
            "must have at least 32 bytes (RFC 7518, 3.2); `openssl rand -base64 48` makes one. \
             Without it, tokens are signed with keys that the service makes itself",
        );
    }
    Some(secret)
}

/// The one place that holds the master key. `database` is `None` when its URL is wrong.
pub(super) fn master_key(
    reader: &mut Reader<'_>,
    database: Option<&DatabaseUrl>,
    has_jwt_secret: bool,
) -> Option<MasterKeySource> {
    let inline = reader.text(MASTER_KEY).map(SecretString::from);
    let file = reader.text(MASTER_KEY_FILE).map(PathBuf::from);
    match (inline, file, database) {
        (Some(_), Some(_), _) => {
            reader.fault(MASTER_KEY, "must not be set together with IDENTITY_MASTER_KEY_FILE");
            None
        }
        (Some(key), None, _) => {
            if MasterKey::from_base64(key.expose_secret()).is_err() {
                reader.fault(MASTER_KEY, "must be 32 bytes in base64; `identity keys master` makes one");
            }
            Some(MasterKeySource::Inline(key))
        }
        (None, Some(file), _) => Some(MasterKeySource::File(file)),
        (None, None, Some(DatabaseUrl::Sqlite { path })) => {
            Some(MasterKeySource::BesideDatabase(beside(path)))
        }
        (None, None, Some(DatabaseUrl::Postgres(_))) if has_jwt_secret => {
            Some(MasterKeySource::FromJwtSecret)
        }
        (None, None, Some(DatabaseUrl::Postgres(_))) => {
            reader.fault(
                MASTER_KEY,
                "must be set with PostgreSQL, or else IDENTITY_MASTER_KEY_FILE or JWT_SECRET; \
                 `identity keys master` makes one",
            );
            None
        }
        (None, None, None) => None,
    }
}

/// `identity.db.key` for `identity.db`.
fn beside(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".key");
    PathBuf::from(name)
}
