//! Users of a tenant, found and counted by a filter, in pieces of bounded cost.

use std::collections::HashMap;

use super::pieces::{Cursor, Found, Piece, Pieced, Pieces};
use crate::domain::{EmailPrefix, Order, PageSize, User, UserId};
use crate::storage::user_lists::{self, UserCursor, UserFilter};
use crate::storage::user_scans::{self, Scanned};
use crate::storage::{Conn, StorageError};

/// The most names that are looked up to find users by how their e-mail begins. Where more begin so, one in some
/// users does, and walking finds them soon.
const MOST_NAMES: usize = 500;

/// How many rows a statement reads that walks over users or names: some milliseconds of work.
const WALKED_AT_ONCE: usize = 1_000;

/// Up to which number a list is counted.
pub const MOST_COUNTED: usize = 10_000;

/// How many entries a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// So many at least.
    pub number: usize,
    /// Whether there may be more.
    pub is_estimate: bool,
}

impl Counted {
    /// What was counted up to one more than [`MOST_COUNTED`].
    pub fn up_to_most(count: usize) -> Self {
        Self { number: count.min(MOST_COUNTED), is_estimate: count > MOST_COUNTED }
    }

    fn exactly(number: usize) -> Self {
        Self { number, is_estimate: false }
    }
}

/// Finds a page of the users who satisfy a filter.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn find_users(
    pieces: &Pieces<'_>,
    filter: &UserFilter,
    order: Order,
    size: PageSize,
    after: Option<Cursor>,
) -> Result<Found<User>, StorageError> {
    let Some(prefix) = &filter.email_prefix else {
        return pieces.page(&ByTime { filter, order }, size, after).await;
    };
    let named = {
        let mut conn = pieces.connection().await?;
        user_scans::find_named(&mut conn, filter, prefix, MOST_NAMES).await?
    };
    match named {
        Some(named) => {
            pieces.page(&Named { filter, order, named: in_order(named, order) }, size, after).await
        }
        None => pieces.page(&Walk { filter, prefix, order }, size, after).await,
    }
}

/// Users of any e-mail.
struct ByTime<'f> {
    filter: &'f UserFilter,
    order: Order,
}

impl Pieced for ByTime<'_> {
    type Entry = User;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<User>, StorageError> {
        let users = user_lists::list(conn, self.filter, self.order, after.map(place), most).await?;
        Ok(Piece::whole(users, most))
    }
}

/// Users whose places are known.
struct Named<'f> {
    filter: &'f UserFilter,
    order: Order,
    named: Vec<UserCursor>,
}

impl Pieced for Named<'_> {
    type Entry = User;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<User>, StorageError> {
        let behind = behind(&self.named, self.order, after.map(place));
        let some = &behind[..most.min(behind.len())];
        let to = some.last().copied().filter(|_| some.len() < behind.len());
        users_at(conn, self.filter, some, to).await
    }
}

/// Users in their order, of whom those belong to the list whose e-mail begins with the prefix.
struct Walk<'f> {
    filter: &'f UserFilter,
    prefix: &'f EmailPrefix,
    order: Order,
}

impl Pieced for Walk<'_> {
    type Entry = User;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<User>, StorageError> {
        let from = (self.order, after.map(place));
        let Scanned { found, to } =
            user_scans::scan(conn, self.filter, self.prefix, from, WALKED_AT_ONCE).await?;
        let some = &found[..most.min(found.len())];
        let to = if some.len() < found.len() { some.last().copied() } else { to };
        users_at(conn, self.filter, some, to).await
    }
}

/// The users at these places, in this order. Who has gone by now is left out.
async fn users_at(
    conn: &mut Conn,
    filter: &UserFilter,
    places: &[UserCursor],
    to: Option<UserCursor>,
) -> Result<Piece<User>, StorageError> {
    let ids: Vec<_> = places.iter().map(|(_, id)| *id).collect();
    let users = if ids.is_empty() {
        Vec::new()
    } else {
        user_lists::list_by_ids(conn, Some(filter.tenant_id), &ids).await?
    };
    let mut users: HashMap<UserId, User> = users.into_iter().map(|user| (user.id, user)).collect();
    let entries = ids.iter().filter_map(|id| users.remove(id)).collect();
    Ok(Piece { entries, to: to.map(|(at, id)| (at, id.as_uuid())) })
}

fn place((at, id): Cursor) -> UserCursor {
    (at, UserId::from(id))
}

fn in_order(mut places: Vec<UserCursor>, order: Order) -> Vec<UserCursor> {
    places.sort_unstable();
    if order == Order::NewestFirst {
        places.reverse();
    }
    places
}

/// What is behind a place.
fn behind(places: &[UserCursor], order: Order, after: Option<UserCursor>) -> &[UserCursor] {
    let Some(after) = after else { return places };
    let is_before = |place: &UserCursor| match order {
        Order::NewestFirst => *place >= after,
        Order::OldestFirst => *place <= after,
    };
    &places[places.partition_point(is_before)..]
}

/// Counts the users who satisfy a filter: exactly up to [`MOST_COUNTED`], unless that takes too long.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count_users(pieces: &Pieces<'_>, filter: &UserFilter) -> Result<Counted, StorageError> {
    let mut conn = pieces.connection().await?;
    let Some(prefix) = &filter.email_prefix else {
        return user_scans::count(&mut conn, filter, MOST_COUNTED + 1).await.map(Counted::up_to_most);
    };
    if filter.role.is_none() && filter.created_from.is_none() && filter.created_until.is_none() {
        let count = user_scans::count_names(&mut conn, filter, prefix, MOST_COUNTED + 1).await?;
        return Ok(Counted::up_to_most(count));
    }
    if let Some(named) = user_scans::find_named(&mut conn, filter, prefix, MOST_NAMES).await? {
        return Ok(Counted::exactly(named.len()));
    }
    // Few of that role or time, whatever their names: one walk sees them all.
    let first = (Order::OldestFirst, None);
    if user_scans::count(&mut conn, filter, WALKED_AT_ONCE).await? < WALKED_AT_ONCE {
        let scanned = user_scans::scan(&mut conn, filter, prefix, first, WALKED_AT_ONCE).await?;
        return Ok(Counted::exactly(scanned.found.len()));
    }
    drop(conn);
    count_by_name(pieces, filter, prefix).await
}

/// Counts by walking over the names that begin with the prefix.
async fn count_by_name(
    pieces: &Pieces<'_>,
    filter: &UserFilter,
    prefix: &EmailPrefix,
) -> Result<Counted, StorageError> {
    let mut count = 0;
    for (from, end) in prefix.ranges() {
        let mut after: Option<String> = None;
        loop {
            let counted = {
                let mut conn = pieces.connection().await?;
                let range = (from.as_str(), end.as_str());
                user_scans::count_some_names(&mut conn, filter, range, after.as_deref(), WALKED_AT_ONCE)
                    .await?
            };
            count += counted.count;
            if count > MOST_COUNTED {
                return Ok(Counted::up_to_most(count));
            }
            after = counted.to;
            if after.is_none() {
                break;
            }
            if !pieces.has_time() {
                return Ok(Counted { number: count, is_estimate: true });
            }
        }
    }
    Ok(Counted::exactly(count))
}
