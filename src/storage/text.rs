//! SQL put together from pieces of text, for what diesel's language cannot say. Values are always bound.
//!
//! Placeholders are `$1`, `$2` and so on, which both databases take.

use diesel::query_builder::BoxedSqlQuery;
use diesel::query_builder::SqlQuery;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Backend, Conn};

/// A statement with its values.
#[derive(Debug)]
pub(super) struct Statement {
    text: String,
    values: Vec<Value>,
    by_bytes: &'static str,
}

#[derive(Debug)]
enum Value {
    Id(DbId),
    Instant(DbInstant),
    Text(String),
    Number(i64),
}

macro_rules! values {
    ($($source:ty => $variant:ident($convert:expr)),* $(,)?) => {$(
        impl From<$source> for Value {
            fn from(value: $source) -> Self {
                Self::$variant($convert(value))
            }
        }
    )*};
}

values!(
    DbId => Id(std::convert::identity),
    DbInstant => Instant(std::convert::identity),
    &str => Text(str::to_owned),
    usize => Number(|number| i64::try_from(number).unwrap_or(i64::MAX)),
);

/// What [`Statement::value`] takes.
#[derive(Debug)]
pub(super) struct Bound(Value);

impl<T: Into<Value>> From<T> for Bound {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

impl Statement {
    /// An empty statement for the database of `conn`.
    pub(super) fn on(conn: &Conn) -> Self {
        let by_bytes = match conn.0 {
            Backend::Postgres(_) => " COLLATE \"C\"",
            // It compares texts byte by byte anyway.
            Backend::Sqlite(_) => "",
        };
        Self { text: String::new(), values: Vec::new(), by_bytes }
    }

    /// Adds text as it is.
    pub(super) fn text(mut self, text: &'static str) -> Self {
        self.text += text;
        self
    }

    /// Makes the text before it be compared byte by byte, as indexes of texts are.
    pub(super) fn by_bytes(mut self) -> Self {
        self.text += self.by_bytes;
        self
    }

    /// Adds a placeholder with its value.
    pub(super) fn value(mut self, value: impl Into<Bound>) -> Self {
        self.values.push(value.into().0);
        self.text += &format!("${}", self.values.len());
        self
    }

    /// The statement as diesel runs it.
    pub(super) fn into_query<'q, DB>(self) -> BoxedSqlQuery<'q, DB, SqlQuery>
    where
        DB: diesel::backend::Backend
            + diesel::sql_types::HasSqlType<Id>
            + diesel::sql_types::HasSqlType<Instant>
            + diesel::sql_types::HasSqlType<Text>
            + diesel::sql_types::HasSqlType<BigInt>,
        DbId: diesel::serialize::ToSql<Id, DB> + 'q,
        DbInstant: diesel::serialize::ToSql<Instant, DB> + 'q,
        String: diesel::serialize::ToSql<Text, DB> + 'q,
        i64: diesel::serialize::ToSql<BigInt, DB> + 'q,
    {
        self.values.into_iter().fold(sql_query(self.text).into_boxed(), |query, value| match value {
            Value::Id(id) => query.bind::<Id, _>(id),
            Value::Instant(at) => query.bind::<Instant, _>(at),
            Value::Text(text) => query.bind::<Text, _>(text),
            Value::Number(number) => query.bind::<BigInt, _>(number),
        })
    }
}
