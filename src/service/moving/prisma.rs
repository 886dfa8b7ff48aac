//! The rows of the old system, as [`import`](super::import()) takes them.

use tokio::sync::mpsc;

use super::{ImportError, Incoming, IncomingTenant, IncomingUser, Kind, Refusal, Why};
use crate::domain::PasswordScheme;
use crate::storage::StorageError;
use crate::storage::prisma::{OldSystem, OldTenant, OldText, OldUser};

/// How much of an id is shown.
const MAX_ID_CHARS: usize = 200;

/// Sends all tenants and then all users, in batches of `batch` rows; ends early when nobody listens any
/// more. Rows are counted from 1 in each table, in the order of reading.
pub async fn feed(
    mut system: OldSystem,
    batch: usize,
    rows: mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
) {
    if let Err(error) = send_all(&mut system, batch, &rows).await {
        let error = ImportError::Source(error.to_string());
        // Nobody listens any more: the import has failed by itself.
        let _ = rows.send(Err(error)).await;
    }
}

async fn send_all(
    system: &mut OldSystem,
    batch: usize,
    rows: &mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
) -> Result<(), StorageError> {
    let mut position = 0;
    let mut next = || {
        position += 1;
        position
    };
    system.begin_tenants().await?;
    loop {
        let page = system.next_tenants(batch).await?;
        if page.is_empty() {
            break;
        }
        let page = page.into_iter().map(|row| tenant(row, next())).collect();
        if rows.send(Ok(page)).await.is_err() {
            return Ok(());
        }
    }
    let mut position = 0;
    let mut next = || {
        position += 1;
        position
    };
    system.begin_users().await?;
    loop {
        let page = system.next_users(batch).await?;
        if page.is_empty() {
            return Ok(());
        }
        let page = page.into_iter().map(|row| user(row, next())).collect();
        if rows.send(Ok(page)).await.is_err() {
            return Ok(());
        }
    }
}

fn tenant(row: OldTenant, position: u64) -> Incoming {
    let key = Key::new(position, Kind::Tenant, row.id.as_ref());
    let [created_at, updated_at] = row.times();
    let read = || {
        Ok(Incoming::Tenant(IncomingTenant {
            position,
            id: key.text(Why::BadId, "id", row.id)?,
            name: key.text(Why::BadName, "name", row.name)?,
            created_at,
            updated_at,
        }))
    };
    read().unwrap_or_else(Incoming::Unreadable)
}

fn user(row: OldUser, position: u64) -> Incoming {
    let key = Key::new(position, Kind::User, row.id.as_ref());
    let [created_at, updated_at] = row.times();
    let read = || {
        Ok(Incoming::User(Box::new(IncomingUser {
            position,
            id: key.text(Why::BadId, "id", row.id)?,
            tenant_id: key.text(Why::BadId, "tenant_id", row.tenant_id)?,
            email: key.text(Why::BadEmail, "email", row.email)?,
            first_name: key.text(Why::BadFirstName, "first_name", row.first_name)?,
            last_name: key.text(Why::BadLastName, "last_name", row.last_name)?,
            external_id: None,
            role: None,
            state: None,
            created_at,
            updated_at,
            password_hash: key.text(Why::BadPasswordHash, "password_hash", row.password)?,
            // Node's bcrypt cuts passwords at 72 bytes.
            password_scheme: Some(PasswordScheme::BcryptTruncated),
            password_changed_at: None,
        })))
    };
    read().unwrap_or_else(Incoming::Unreadable)
}

/// What a row is told apart by when it is refused.
struct Key {
    position: u64,
    kind: Kind,
    id: Option<String>,
}

impl Key {
    /// Bytes of an unreadable id are replaced.
    fn new(position: u64, kind: Kind, id: Option<&OldText>) -> Self {
        let id = id.map(|id| id.to_lossy().chars().take(MAX_ID_CHARS).collect());
        Self { position, kind, id }
    }

    /// The text of a field, or the refusal of the row.
    fn text(&self, why: Why, field: &str, text: Option<OldText>) -> Result<Option<String>, Refusal> {
        let Some(text) = text else { return Ok(None) };
        text.into_utf8().map(Some).ok_or_else(|| Refusal {
            position: self.position,
            kind: self.kind,
            id: self.id.clone(),
            why,
            detail: format!("{field} cannot be converted to UTF-8"),
        })
    }
}
