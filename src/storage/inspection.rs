//! Whether a database that answers is one that this program can work with.

use diesel::dsl::sql;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::connection::{Conn, query};
use super::error::StorageError;

/// Refuses a server that accepts no writes: a standby, or one that was told so.
pub(super) async fn require_writable(conn: &mut Conn) -> Result<(), StorageError> {
    let is_writable: bool = query!(conn,
        postgres: |c| diesel::select(sql::<Bool>("current_setting('transaction_read_only') = 'off'")).get_result(c),
        sqlite: |_c| async { Ok(true) }
    )?;
    if is_writable { Ok(()) } else { Err(StorageError::Unavailable("the database accepts no writes".into())) }
}
