//! Users looked for by how their e-mail begins, and counted: each statement reads a bounded number of rows.
//!
//! One index has the users by time, another the names by letter; none has both. So a rare beginning is looked
//! up by name ([`find_named`]), and for a common one the users are walked by time ([`scan`]). The other
//! table is asked in a subquery of its own for each row: a join would leave it to the planner of PostgreSQL to
//! read all of that table.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::text::Statement;
use super::user_lists::{UserCursor, UserFilter};
use crate::domain::{EmailPrefix, Order, UserId};

/// What a walk over some users found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Those that satisfy the filter, in the order of the walk.
    pub found: Vec<UserCursor>,
    /// The user that was read last; `None` when there is none behind.
    pub to: Option<UserCursor>,
}

/// What a walk over some names counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedNames {
    /// How many of their users satisfy the filter.
    pub count: usize,
    /// The name that was read last; `None` when there is none behind.
    pub to: Option<String>,
}

#[derive(QueryableByName)]
struct NamedRow {
    #[diesel(sql_type = Id)]
    id: DbId,
    #[diesel(sql_type = Nullable<Instant>)]
    created_at: Option<DbInstant>,
}

#[derive(QueryableByName)]
struct WalkedRow {
    #[diesel(sql_type = Id)]
    id: DbId,
    #[diesel(sql_type = Instant)]
    created_at: DbInstant,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
}

#[derive(QueryableByName)]
struct CountedRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct NamesRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    examined: i64,
    #[diesel(sql_type = Nullable<Text>)]
    last: Option<String>,
}

macro_rules! load {
    ($conn:expr, $statement:expr, $row:ty) => {{
        let statement = $statement;
        query!($conn, |c| statement.into_query().load::<$row>(c))
    }};
}

/// Finds the users of a tenant whose e-mail begins with `prefix`, and who satisfy the rest of the filter, in no
/// order. `None` when more than `most` names begin so; then these were read in vain.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_named(
    conn: &mut Conn,
    filter: &UserFilter,
    prefix: &EmailPrefix,
    most: usize,
) -> Result<Option<Vec<UserCursor>>, StorageError> {
    let (mut names, mut found) = (0, Vec::new());
    for (from, end) in prefix.ranges() {
        let statement = Statement::on(conn).text("SELECT n.user_id AS id, ");
        let statement = matching_user(statement, filter).text(" AS created_at FROM login_names n");
        let statement = of_names(statement, filter, Bounds { from: &from, after: None, end: &end });
        let rows = load!(conn, statement.value(most + 1 - names), NamedRow)?;
        names += rows.len();
        if names > most {
            return Ok(None);
        }
        let user = |row: NamedRow| Some((row.created_at?.into(), UserId::from(row.id)));
        found.extend(rows.into_iter().filter_map(user));
    }
    Ok(Some(found))
}

/// Reads at most `rows` users of a tenant who satisfy the filter, from behind `after` on, and finds those whose
/// e-mail begins with `prefix`.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn scan(
    conn: &mut Conn,
    filter: &UserFilter,
    prefix: &EmailPrefix,
    (order, after): (Order, Option<UserCursor>),
    rows: usize,
) -> Result<Scanned, StorageError> {
    const NAME: &str = "SELECT u.id, u.created_at, \
        (SELECT n.email_normalized FROM login_names n WHERE n.tenant_id = u.tenant_id AND n.user_id = u.id) \
        AS name FROM users u WHERE u.tenant_id = ";
    let statement = Statement::on(conn).text(NAME).value(DbId::from(filter.tenant_id));
    let mut statement = of_users(statement, filter);
    if let Some((created_at, id)) = after {
        let comparison = match order {
            Order::NewestFirst => " AND (u.created_at, u.id) < (",
            Order::OldestFirst => " AND (u.created_at, u.id) > (",
        };
        statement = statement.text(comparison).value(DbInstant::from(created_at));
        statement = statement.text(", ").value(DbId::from(id)).text(")");
    }
    let statement = match order {
        Order::NewestFirst => statement.text(" ORDER BY u.created_at DESC, u.id DESC LIMIT "),
        Order::OldestFirst => statement.text(" ORDER BY u.created_at, u.id LIMIT "),
    };
    let read = load!(conn, statement.value(rows), WalkedRow)?;
    let place = |row: &WalkedRow| (row.created_at.into(), UserId::from(row.id));
    let to = read.last().map(place).filter(|_| read.len() >= rows);
    let begins = |row: &&WalkedRow| row.name.as_deref().is_some_and(|name| prefix.begins(name));
    Ok(Scanned { found: read.iter().filter(begins).map(place).collect(), to })
}

/// Counts the users of a tenant by role and time, whatever their e-mail: `most` when there are that many or
/// more.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count(conn: &mut Conn, filter: &UserFilter, most: usize) -> Result<usize, StorageError> {
    // In the order of the index, so that it alone is read.
    let statement = Statement::on(conn)
        .text("SELECT count(*) AS count FROM (SELECT 1 AS one FROM users u WHERE u.tenant_id = ")
        .value(DbId::from(filter.tenant_id));
    let statement = of_users(statement, filter).text(" ORDER BY u.created_at, u.id LIMIT ").value(most);
    counted(load!(conn, statement.text(") AS counted"), CountedRow)?)
}

/// Counts the users of a tenant whose e-mail begins with `prefix`, whatever else the filter says: `most` when
/// there are that many or more.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count_names(
    conn: &mut Conn,
    filter: &UserFilter,
    prefix: &EmailPrefix,
    most: usize,
) -> Result<usize, StorageError> {
    let mut count = 0;
    for (from, end) in prefix.ranges() {
        let statement =
            Statement::on(conn).text("SELECT count(*) AS count FROM (SELECT 1 AS one FROM login_names n");
        let statement = of_names(statement, filter, Bounds { from: &from, after: None, end: &end });
        count += counted(load!(conn, statement.value(most - count).text(") AS counted"), CountedRow)?)?;
    }
    Ok(count)
}

/// Reads at most `rows` names of a tenant that begin with the prefix whose range this is, from behind `after` on,
/// and counts those whose users satisfy the rest of the filter.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count_some_names(
    conn: &mut Conn,
    filter: &UserFilter,
    (from, end): (&str, &str),
    after: Option<&str>,
    rows: usize,
) -> Result<CountedNames, StorageError> {
    let statement = Statement::on(conn)
        .text(
            "SELECT count(c.created_at) AS count, count(*) AS examined, max(c.name) AS last \
             FROM (SELECT n.email_normalized",
        )
        .by_bytes()
        .text(" AS name, ");
    let statement = matching_user(statement, filter).text(" AS created_at FROM login_names n");
    let statement = of_names(statement, filter, Bounds { from, after, end }).value(rows).text(") AS c");
    let counted = load!(conn, statement, NamesRow)?.pop();
    let is_last = |row: &NamesRow| usize::try_from(row.examined).unwrap_or(0) < rows;
    Ok(counted.map_or(CountedNames { count: 0, to: None }, |row| CountedNames {
        count: usize::try_from(row.count).unwrap_or(0),
        to: if is_last(&row) { None } else { row.last },
    }))
}

fn counted(mut rows: Vec<CountedRow>) -> Result<usize, StorageError> {
    Ok(rows.pop().map_or(0, |row| usize::try_from(row.count).unwrap_or(0)))
}

/// A range of names: from `from` on, or from behind `after` on, before `end`.
#[derive(Clone, Copy)]
struct Bounds<'b> {
    from: &'b str,
    after: Option<&'b str>,
    end: &'b str,
}

/// The names of a range in their order, up to `LIMIT `.
fn of_names(statement: Statement, filter: &UserFilter, Bounds { from, after, end }: Bounds<'_>) -> Statement {
    let statement = statement.text(" WHERE n.tenant_id = ").value(DbId::from(filter.tenant_id));
    let statement = statement.text(" AND n.email_normalized").by_bytes();
    let statement = match after {
        None => statement.text(" >= ").value(from),
        Some(after) => statement.text(" > ").value(after),
    };
    let statement = statement.text(" AND n.email_normalized").by_bytes().text(" < ").value(end);
    statement.text(" ORDER BY n.email_normalized").by_bytes().text(" LIMIT ")
}

/// When the user of a name was created; nothing for one who does not satisfy the rest of the filter.
///
/// The user is found by key alone: with more conditions in the `WHERE`, PostgreSQL may take the index by role, and
/// read all users of that role for each name.
fn matching_user(statement: Statement, filter: &UserFilter) -> Statement {
    of_users(statement.text("(SELECT CASE WHEN TRUE"), filter)
        .text(" THEN u.created_at END FROM users u WHERE u.tenant_id = n.tenant_id AND u.id = n.user_id)")
}

/// What the filter says of role and time.
fn of_users(mut statement: Statement, filter: &UserFilter) -> Statement {
    if let Some(role) = filter.role {
        statement = statement.text(" AND u.role = ").value(role.as_str());
    }
    if let Some(from) = filter.created_from {
        statement = statement.text(" AND u.created_at >= ").value(DbInstant::from(from));
    }
    if let Some(until) = filter.created_until {
        statement = statement.text(" AND u.created_at < ").value(DbInstant::from(until));
    }
    statement
}
