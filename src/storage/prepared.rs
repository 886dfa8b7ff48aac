//! Statements that stay prepared although diesel would prepare them anew each time.

use diesel::QueryResult;
use diesel::backend::{Backend, DieselReserveSpecialization};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};

/// A statement that its connection prepares once, as it does with most others.
///
/// Diesel prepares each UPDATE and each upsert anew, since the values to be set may be any of a table's columns
/// and so make very many texts. That costs PostgreSQL more than to execute one, and a round trip. Whatever is
/// wrapped in this has one text, or a few; a connection knows it by that text and the types of its values, so
/// that a statement is never taken for another.
pub(super) struct Prepared<Q>(pub(super) Q);

impl<Q, DB> QueryFragment<DB> for Prepared<Q>
where
    DB: Backend + DieselReserveSpecialization,
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();

    // Its text identifies it.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}
