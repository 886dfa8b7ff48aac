//! Sessions.

use std::net::IpAddr;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::columns::{DbId, DbInstant};
use super::connection::{Conn, ask, later, optional, query};
use super::error::StorageError;
use super::pipeline::Answer;
use super::prepared::Prepared;
use super::rows::{self, TenantRow, UserRow, tenant_columns, user_columns};
use super::schema::{sessions, tenants, users};
use super::times;
use super::transaction::Tx;
use crate::domain::{
    DeviceLabel, EndUser, Role, Session, SessionId, TenantId, Timestamp, User, UserId, UserState,
};

/// Later than any session was opened: the end of the year 9999, which both databases can write.
const END_OF_TIME: Timestamp = Timestamp::from_unix_micros(253_402_300_799_999_999);

/// Whether there is any session, open or not.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_any(conn: &mut Conn) -> Result<bool, StorageError> {
    let any = diesel::select(diesel::dsl::exists(sessions::table.select(sessions::id)));
    query!(conn, |c| any.get_result::<bool>(c))
}

/// What keeps a session open, seen from one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAt {
    /// The moment: no session is open that was to end by then.
    pub now: Timestamp,
    /// No session is open that was not used since.
    pub unused_since: Timestamp,
}

#[derive(Queryable)]
struct SessionRow {
    tenant_id: DbId,
    id: DbId,
    user_id: DbId,
    generation: i64,
    secret_digest: Vec<u8>,
    created_at: DbInstant,
    last_used_at: DbInstant,
    expires_at: DbInstant,
    device: Option<String>,
    address: Option<String>,
    revoked_at: Option<DbInstant>,
    rotations: Option<Vec<u8>>,
}

impl SessionRow {
    fn into_session(self) -> Result<Session, StorageError> {
        let corrupt = |column| StorageError::Corrupt(format!("sessions.{column} makes no sense"));
        let device = self.device.map(|device| DeviceLabel::parse(&device)).transpose();
        let address = self.address.map(|address| address.parse::<IpAddr>()).transpose();
        Ok(Session {
            tenant_id: self.tenant_id.into(),
            id: self.id.into(),
            user_id: self.user_id.into(),
            generation: self.generation.try_into().map_err(|_| corrupt("generation"))?,
            secret_digest: self.secret_digest.try_into().map_err(|_| corrupt("secret_digest"))?,
            created_at: self.created_at.into(),
            last_used_at: self.last_used_at.into(),
            expires_at: self.expires_at.into(),
            opened_by: EndUser {
                device: device.map_err(|_| corrupt("device"))?,
                address: address.map_err(|_| corrupt("address"))?,
            },
            revoked_at: self.revoked_at.map(Timestamp::from),
            rotations: times::read(&self.rotations.unwrap_or_default())
                .ok_or_else(|| corrupt("rotations"))?,
        })
    }
}

/// Adds a session.
///
/// # Errors
/// [`StorageError::Refused`] when there is no such user in the tenant.
pub async fn insert(tx: &mut Tx, session: &Session) -> Result<(), StorageError> {
    let row = (
        sessions::tenant_id.eq(DbId::from(session.tenant_id)),
        sessions::id.eq(DbId::from(session.id)),
        sessions::user_id.eq(DbId::from(session.user_id)),
        sessions::generation.eq(i64::from(session.generation)),
        sessions::secret_digest.eq(session.secret_digest.to_vec()),
        sessions::created_at.eq(DbInstant::from(session.created_at)),
        sessions::last_used_at.eq(DbInstant::from(session.last_used_at)),
        sessions::expires_at.eq(DbInstant::from(session.expires_at)),
        sessions::device.eq(session.opened_by.device.as_ref().map(|device| device.as_str().to_owned())),
        sessions::address.eq(session.opened_by.address.map(|address| address.to_string())),
        sessions::revoked_at.eq(session.revoked_at.map(DbInstant::from)),
        sessions::rotations.eq(Some(times::write(&session.rotations)).filter(|times| !times.is_empty())),
    );
    later!(tx, |c| diesel::insert_into(sessions::table).values(row).execute(c))
}

/// Finds a session with its user, whether or not it is open.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn find_with_user(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: SessionId,
) -> Result<Option<(Session, User)>, StorageError> {
    let found = sessions::table
        .inner_join(
            users::table.on(users::tenant_id.eq(sessions::tenant_id).and(users::id.eq(sessions::user_id))),
        )
        .inner_join(tenants::table.on(tenants::id.eq(sessions::tenant_id)))
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::id.eq(DbId::from(id)))
        .select((sessions::all_columns, user_columns(), tenant_columns()));
    let row = query!(conn, |c| optional(found.get_result::<(SessionRow, UserRow, TenantRow)>(c)))?;
    row.map(|(session, user, tenant)| Ok((session.into_session()?, user.into_user(tenant)?))).transpose()
}

/// A session and its user as the database has them now: what an access token's claims are checked
/// against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStanding {
    /// What the session's user may do now.
    pub role: Role,
    /// Whether the session's user may do anything now.
    pub state: UserState,
    /// When the session was last refreshed.
    pub last_used_at: Timestamp,
    /// When the session ends, however much it is used.
    pub expires_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// What a query selects to read a [`StandingRow`].
pub(super) const STANDING: (
    users::role,
    users::state,
    sessions::last_used_at,
    sessions::expires_at,
    sessions::revoked_at,
) = (users::role, users::state, sessions::last_used_at, sessions::expires_at, sessions::revoked_at);

#[derive(Queryable)]
pub(super) struct StandingRow {
    role: String,
    state: String,
    last_used_at: DbInstant,
    expires_at: DbInstant,
    revoked_at: Option<DbInstant>,
}

impl StandingRow {
    pub(super) fn into_standing(self) -> Result<SessionStanding, StorageError> {
        Ok(SessionStanding {
            role: rows::role(&self.role)?,
            state: rows::state(&self.state)?,
            last_used_at: self.last_used_at.into(),
            expires_at: self.expires_at.into(),
            revoked_at: self.revoked_at.map(Timestamp::from),
        })
    }
}

/// The query for the [`STANDING`] of a session of a user.
#[diesel::dsl::auto_type(no_type_alias)]
fn standing_of(tenant_id: DbId, session_id: DbId, user_id: DbId) -> _ {
    let its_session = sessions::tenant_id.eq(users::tenant_id).and(sessions::user_id.eq(users::id));
    // Not a join, which would lock the tenant as well.
    let is_live = diesel::dsl::exists(tenants::table.filter(tenants::id.eq(users::tenant_id)));
    // PostgreSQL locks the rows in this order: the user's first, as everybody does.
    users::table
        .inner_join(sessions::table.on(its_session))
        .filter(users::tenant_id.eq(tenant_id))
        .filter(users::id.eq(user_id))
        .filter(sessions::id.eq(session_id))
        .filter(is_live)
        .select((
            users::role,
            users::state,
            sessions::last_used_at,
            sessions::expires_at,
            sessions::revoked_at,
        ))
}

/// Finds how a session of a user stands.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find_standing(
    conn: &mut Conn,
    tenant_id: TenantId,
    session_id: SessionId,
    user_id: UserId,
) -> Result<Option<SessionStanding>, StorageError> {
    let found = standing_of(tenant_id.into(), session_id.into(), user_id.into());
    let row = query!(conn, |c| optional(found.get_result::<StandingRow>(c)))?;
    row.map(StandingRow::into_standing).transpose()
}

/// As [`find_standing`], of a user and a session that stay as they are until the transaction ends.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn ask_standing_kept(
    tx: &mut Tx,
    tenant_id: TenantId,
    session_id: SessionId,
    user_id: UserId,
) -> Result<Answer<Option<SessionStanding>>, StorageError> {
    let found = standing_of(tenant_id.into(), session_id.into(), user_id.into());
    ask!(tx,
        postgres: |c| optional(found.for_share().get_result::<StandingRow>(c)),
        sqlite: |c| optional(found.get_result::<StandingRow>(c)),
        then: |row: Option<StandingRow>| row.map(StandingRow::into_standing).transpose()
    )
}

/// Lists a user's open sessions, the newest first: at most `limit`, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_open(
    conn: &mut Conn,
    tenant_id: TenantId,
    user_id: UserId,
    open: OpenAt,
    after: Option<(Timestamp, SessionId)>,
    limit: usize,
) -> Result<Vec<Session>, StorageError> {
    // Behind nothing is behind what comes first of all.
    let (created_at, id) = after.unwrap_or((END_OF_TIME, Uuid::max().into()));
    let (created_at, id) = (DbInstant::from(created_at), DbId::from(id));
    let behind =
        sessions::created_at.lt(created_at).or(sessions::created_at.eq(created_at).and(sessions::id.lt(id)));
    let found = sessions::table
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::user_id.eq(DbId::from(user_id)))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(DbInstant::from(open.now)))
        .filter(sessions::last_used_at.gt(DbInstant::from(open.unused_since)))
        .filter(behind)
        .order((sessions::created_at.desc(), sessions::id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    query!(conn, |c| found.load::<SessionRow>(c))?.into_iter().map(SessionRow::into_session).collect()
}

/// Finds whose a session is, whether or not it is open, and keeps it from being changed by others until the
/// transaction ends.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_user_locked(
    tx: &mut Tx,
    tenant_id: TenantId,
    id: SessionId,
) -> Result<Option<UserId>, StorageError> {
    let found = sessions::table.find((DbId::from(tenant_id), DbId::from(id))).select(sessions::user_id);
    let row = query!(tx,
        postgres: |c| optional(found.for_no_key_update().get_result::<DbId>(c)),
        sqlite: |c| optional(found.get_result::<DbId>(c))
    )?;
    Ok(row.map(UserId::from))
}

/// Writes a session that was `rotated` from the generation before; false when that is no longer the latest
/// one, or it has ended. Of several at once only one gets true.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn ask_rotated(tx: &mut Tx, rotated: &Session) -> Result<Answer<bool>, StorageError> {
    let row = sessions::table
        .find((DbId::from(rotated.tenant_id), DbId::from(rotated.id)))
        .filter(sessions::generation.eq(i64::from(rotated.generation) - 1))
        .filter(sessions::revoked_at.is_null());
    let changes = (
        sessions::generation.eq(i64::from(rotated.generation)),
        sessions::last_used_at.eq(DbInstant::from(rotated.last_used_at)),
        sessions::rotations.eq(times::write(&rotated.rotations)),
    );
    ask!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c), then: |rows| Ok(rows > 0))
}

/// Ends a session that has not ended yet; true when there was one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_revoked(
    tx: &mut Tx,
    tenant_id: TenantId,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let row =
        sessions::table.find((DbId::from(tenant_id), DbId::from(id))).filter(sessions::revoked_at.is_null());
    let change = sessions::revoked_at.eq(DbInstant::from(now));
    query!(tx, |c| Prepared(diesel::update(row).set(change)).execute(c)).map(|rows| rows > 0)
}

/// Ends all sessions of a user but `kept`, if that is given; returns how many had not ended yet.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_others_revoked(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    kept: Option<SessionId>,
    now: Timestamp,
) -> Result<usize, StorageError> {
    let rows = sessions::table
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::user_id.eq(DbId::from(user_id)))
        // No session has this id: it is of no UUID's version.
        .filter(sessions::id.ne(kept.map_or(DbId(Uuid::nil()), DbId::from)))
        .filter(sessions::revoked_at.is_null());
    let change = sessions::revoked_at.eq(DbInstant::from(now));
    query!(tx, |c| Prepared(diesel::update(rows).set(change)).execute(c))
}

/// Finds the sessions of a user beyond the `kept` that matter most: open before ended, then by age, the oldest
/// being the first to go.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn ask_surplus(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    open: OpenAt,
    kept: usize,
) -> Result<Answer<Vec<SessionId>>, StorageError> {
    let is_open = sessions::revoked_at
        .is_null()
        .and(sessions::expires_at.gt(DbInstant::from(open.now)))
        .and(sessions::last_used_at.gt(DbInstant::from(open.unused_since)));
    let surplus = sessions::table
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::user_id.eq(DbId::from(user_id)))
        .order((is_open.desc(), sessions::created_at.desc(), sessions::id.desc()))
        .select(sessions::id)
        .limit(i64::MAX)
        .offset(i64::try_from(kept).unwrap_or(i64::MAX));
    let then = |ids: Vec<DbId>| Ok(ids.into_iter().map(SessionId::from).collect());
    ask!(tx, |c| surplus.load::<DbId>(c), then: then)
}

/// Deletes sessions of a tenant; returns how many there were.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, tenant_id: TenantId, ids: &[SessionId]) -> Result<usize, StorageError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let rows = sessions::table
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::id.eq_any(ids.iter().copied().map(DbId::from)));
    query!(tx, |c| diesel::delete(rows).execute(c))
}

/// Deletes at most `limit` sessions that are not open any more because their time has passed; returns how
/// many.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete_expired(tx: &mut Tx, open: OpenAt, limit: usize) -> Result<usize, StorageError> {
    let has_passed = sessions::expires_at
        .le(DbInstant::from(open.now))
        .or(sessions::last_used_at.le(DbInstant::from(open.unused_since)));
    let expired = sessions::table
        .filter(has_passed)
        .select((sessions::tenant_id, sessions::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    // What another process is sweeping, or somebody refreshing, is left alone.
    let expired = query!(tx,
        postgres: |c| expired.for_update().skip_locked().load::<(DbId, DbId)>(c),
        sqlite: |c| expired.load::<(DbId, DbId)>(c)
    )?;
    for &row in &expired {
        query!(tx, |c| diesel::delete(sessions::table.find(row)).execute(c))?;
    }
    Ok(expired.len())
}
