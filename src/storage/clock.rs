//! What time it is for the database.

use diesel::dsl::sql;
use diesel_async::RunQueryDsl;

use super::columns::{DbInstant, Instant};
use super::connection::{Conn, query};
use super::error::StorageError;
use crate::domain::Timestamp;

/// What time it is now by the database's own clock; `None` for SQLite, which has none.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_time(conn: &mut Conn) -> Result<Option<Timestamp>, StorageError> {
    query!(conn,
        postgres: |c| async {
            let now = diesel::select(sql::<Instant>("clock_timestamp()"));
            now.get_result::<DbInstant>(c).await.map(|now| Some(Timestamp::from(now)))
        },
        sqlite: |_c| async { Ok(None) }
    )
}
