//! What counts towards the limits of guessing and flooding: for each subject and source, when it was tried.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::DbInstant;
use super::connection::{Conn, ask, later, optional, query};
use super::error::StorageError;
use super::pipeline::Answer;
use super::prepared::Prepared;
use super::schema::attempts;
use super::times;
use super::transaction::Tx;
use crate::domain::{Attempts, Timestamp};

/// What is tried, and by whom: keyed digests of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// What is tried, such as an account.
    pub subject: [u8; 32],
    /// Who tries.
    pub source: [u8; 32],
}

/// What is remembered of a subject and a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// When it was tried.
    pub attempts: Attempts,
    /// Until when the source is one from which the subject has logged in.
    pub known_until: Option<Timestamp>,
}

type Row = (Vec<u8>, Vec<u8>, Option<DbInstant>);

const COLUMNS: (attempts::counted, attempts::pending, attempts::known_until) =
    (attempts::counted, attempts::pending, attempts::known_until);

fn into_tried((counted, pending, known_until): Row) -> Result<Tried, StorageError> {
    let read = |bytes: &[u8]| {
        let cut_off = || StorageError::Corrupt("attempts has a time of less than 8 bytes".into());
        times::read(bytes).ok_or_else(cut_off)
    };
    let attempts = Attempts { counted: read(&counted)?, pending: read(&pending)? };
    Ok(Tried { attempts, known_until: known_until.map(Timestamp::from) })
}

/// Finds what is remembered, without waiting for anybody.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, key: AttemptKey) -> Result<Option<Tried>, StorageError> {
    let found = attempts::table.find((key.subject.to_vec(), key.source.to_vec())).select(COLUMNS);
    query!(conn, |c| optional(found.get_result::<Row>(c)))?.map(into_tried).transpose()
}

/// Finds what is remembered, and keeps others who want the same waiting until the transaction ends. Makes a
/// row that may be swept at once when there is none.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn lock(tx: &mut Tx, key: AttemptKey, now: Timestamp) -> Result<Tried, StorageError> {
    ask_locked(tx, key).await?.receive(tx, now).await
}

/// What is remembered of a subject and a source, once it is locked.
#[must_use]
pub struct Locking {
    key: AttemptKey,
    found: Answer<Option<Tried>>,
}

/// As [`lock`], without waiting for the answer yet.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn ask_locked(tx: &mut Tx, key: AttemptKey) -> Result<Locking, StorageError> {
    let row = attempts::table.find((key.subject.to_vec(), key.source.to_vec())).select(COLUMNS);
    let found = ask!(tx,
        postgres: |c| optional(row.for_update().get_result::<Row>(c)),
        sqlite: |c| optional(row.get_result::<Row>(c)),
        then: |row: Option<Row>| row.map(into_tried).transpose()
    )?;
    Ok(Locking { key, found })
}

impl Locking {
    /// Waits for the lock. Makes a row that may be swept at `now` when there is none.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails or the row makes no sense.
    pub async fn receive(self, tx: &mut Tx, now: Timestamp) -> Result<Tried, StorageError> {
        match self.found.receive(tx).await? {
            Some(tried) => Ok(tried),
            None => insert_locked(tx, self.key, now).await,
        }
    }
}

async fn insert_locked(tx: &mut Tx, key: AttemptKey, now: Timestamp) -> Result<Tried, StorageError> {
    let row = (
        attempts::subject.eq(key.subject.to_vec()),
        attempts::source.eq(key.source.to_vec()),
        attempts::counted.eq(Vec::new()),
        attempts::pending.eq(Vec::new()),
        attempts::expires_at.eq(DbInstant::from(now)),
    );
    let insert = diesel::insert_into(attempts::table).values(row);
    let row = query!(tx,
        // Changes nothing in a row that another transaction made meanwhile, but takes its lock and reads it.
        postgres: |c| {
            let upsert = insert
                .on_conflict((attempts::subject, attempts::source))
                .do_update()
                .set(attempts::source.eq(key.source.to_vec()))
                .returning(COLUMNS);
            Prepared(upsert).get_result::<Row>(c)
        },
        sqlite: |c| async { insert.execute(c).await.map(|_| Row::default()) }
    )?;
    into_tried(row)
}

/// Notes that a subject is known at a source, unless anything is remembered of the two.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn insert_known(tx: &mut Tx, key: AttemptKey, until: Timestamp) -> Result<(), StorageError> {
    let row = (
        attempts::subject.eq(key.subject.to_vec()),
        attempts::source.eq(key.source.to_vec()),
        attempts::counted.eq(Vec::new()),
        attempts::pending.eq(Vec::new()),
        attempts::known_until.eq(DbInstant::from(until)),
        attempts::expires_at.eq(DbInstant::from(until)),
    );
    later!(tx, |c| {
        diesel::insert_into(attempts::table)
            .values(row)
            .on_conflict((attempts::subject, attempts::source))
            .do_nothing()
            .execute(c)
    })
}

/// Writes what is to be remembered until `expires_at`, in a row that is locked.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update(
    tx: &mut Tx,
    key: AttemptKey,
    tried: &Tried,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    let row = attempts::table.find((key.subject.to_vec(), key.source.to_vec()));
    let changes = (
        attempts::counted.eq(times::write(&tried.attempts.counted)),
        attempts::pending.eq(times::write(&tried.attempts.pending)),
        attempts::known_until.eq(tried.known_until.map(DbInstant::from)),
        attempts::expires_at.eq(DbInstant::from(expires_at)),
    );
    later!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c))
}

/// Forgets everything of a subject and a source, whose row is locked.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, key: AttemptKey) -> Result<(), StorageError> {
    let row = attempts::table.find((key.subject.to_vec(), key.source.to_vec()));
    later!(tx, |c| diesel::delete(row).execute(c))
}

/// Takes the sources that a subject has logged in from for unknown ones, beyond the `kept` that did so last.
/// What they tried is remembered until `expires_at`. Those that somebody else is busy with are left.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_surplus_unknown(
    tx: &mut Tx,
    subject: [u8; 32],
    kept: usize,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    let surplus = attempts::table
        .filter(attempts::subject.eq(subject.to_vec()))
        .filter(attempts::known_until.is_not_null())
        .order((attempts::known_until.desc(), attempts::source))
        .select(attempts::source)
        .limit(i64::MAX)
        .offset(i64::try_from(kept).unwrap_or(i64::MAX));
    let surplus = query!(tx,
        postgres: |c| surplus.for_update().skip_locked().load::<Vec<u8>>(c),
        sqlite: |c| surplus.load::<Vec<u8>>(c)
    )?;
    for source in surplus {
        let row = attempts::table.find((subject.to_vec(), source));
        let changes = (
            attempts::known_until.eq(None::<DbInstant>),
            attempts::expires_at.eq(DbInstant::from(expires_at)),
        );
        query!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c))?;
    }
    Ok(())
}

/// Deletes at most `limit` rows whose time has passed; returns how many.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete_expired(tx: &mut Tx, now: Timestamp, limit: usize) -> Result<usize, StorageError> {
    let expired = attempts::table
        .filter(attempts::expires_at.le(DbInstant::from(now)))
        .select((attempts::subject, attempts::source))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    // What another process is sweeping, or somebody is trying, is left alone.
    let expired = query!(tx,
        postgres: |c| expired.for_update().skip_locked().load::<(Vec<u8>, Vec<u8>)>(c),
        sqlite: |c| expired.load::<(Vec<u8>, Vec<u8>)>(c)
    )?;
    let count = expired.len();
    for key in expired {
        query!(tx, |c| diesel::delete(attempts::table.find(key)).execute(c))?;
    }
    Ok(count)
}
