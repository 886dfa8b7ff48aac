//! Everything that is kept in a database: PostgreSQL or SQLite, chosen by the URL's scheme.

pub mod postgres;
pub mod url;
