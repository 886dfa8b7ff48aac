//! The rows of the old system, as [`import`](super::import()) takes them.

use tokio::sync::mpsc;

use super::{ImportError, Incoming, IncomingTenant, IncomingUser};
use crate::domain::PasswordScheme;
use crate::storage::StorageError;
use crate::storage::prisma::{OldSystem, OldTenant, OldUser};

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
    let [created_at, updated_at] = row.times();
    Incoming::Tenant(IncomingTenant { position, id: row.id, name: row.name, created_at, updated_at })
}

fn user(row: OldUser, position: u64) -> Incoming {
    let [created_at, updated_at] = row.times();
    Incoming::User(Box::new(IncomingUser {
        position,
        id: row.id,
        tenant_id: row.tenant_id,
        email: row.email,
        first_name: row.first_name,
        last_name: row.last_name,
        role: None,
        state: None,
        created_at,
        updated_at,
        password_hash: row.password,
        // Node's bcrypt cuts passwords at 72 bytes.
        password_scheme: Some(PasswordScheme::BcryptTruncated),
        password_changed_at: None,
    }))
}
