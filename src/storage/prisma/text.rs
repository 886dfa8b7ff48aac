//! The texts of the old system, which may have any encoding that PostgreSQL stores.
//!
//! PostgreSQL ends a statement when one text of its result cannot be converted. So it sends all texts as they are
//! stored, and converts them in a second step, in which a failure costs one text.

use std::borrow::Cow;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Binary, Text};
use diesel_async::RunQueryDsl;

use super::Source;
use crate::storage::error::StorageError;

/// A text of the old system.
#[derive(Clone, FromSqlRow)]
pub enum OldText {
    /// In UTF-8.
    Utf8(String),
    /// Bytes that are not UTF-8, and that the database cannot convert to it.
    Unreadable(Vec<u8>),
}

impl OldText {
    /// The text; none when it is unreadable.
    pub fn into_utf8(self) -> Option<String> {
        match self {
            Self::Utf8(text) => Some(text),
            Self::Unreadable(_) => None,
        }
    }

    /// The text, with a replacement for each byte that is not UTF-8.
    pub fn to_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Unreadable(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for OldText {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Unreadable(error.into_bytes()), Self::Utf8)
    }
}

impl FromSql<Binary, Pg> for OldText {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <Vec<u8> as FromSql<Binary, Pg>>::from_sql(bytes).map(Self::from)
    }
}

/// Converts many texts, in their order.
const CONVERT: &str = "SELECT convert(bytes, $2::name, 'UTF8') AS text \
     FROM unnest($1) WITH ORDINALITY AS stored (bytes, place) ORDER BY place";

#[derive(QueryableByName)]
struct Converted {
    #[diesel(sql_type = Binary)]
    text: OldText,
}

impl Source {
    /// Converts texts that hold the bytes of `encoding`.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub(super) async fn convert(
        &mut self,
        encoding: &str,
        mut texts: Vec<&mut OldText>,
    ) -> Result<(), StorageError> {
        // All encodings of PostgreSQL's servers contain ASCII (PostgreSQL 17, 23.3.1).
        texts.retain(|text| !text.as_bytes().is_ascii());
        if texts.is_empty() {
            return Ok(());
        }
        self.run("SAVEPOINT conversion").await?;
        let mut parts = vec![texts.as_mut_slice()];
        while let Some(part) = parts.pop() {
            match (self.convert_all(encoding, part).await?, part) {
                (Some(converted), part) => {
                    part.iter_mut().zip(converted).for_each(|(text, converted)| **text = converted);
                }
                // Its bytes may look like UTF-8.
                (None, [text]) => **text = OldText::Unreadable(text.as_bytes().to_owned()),
                (None, part) => {
                    let (first, second) = part.split_at_mut(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        self.run("RELEASE SAVEPOINT conversion").await
    }

    /// The texts as UTF-8; none when one of them cannot be converted.
    async fn convert_all(
        &mut self,
        encoding: &str,
        texts: &[&mut OldText],
    ) -> Result<Option<Vec<OldText>>, StorageError> {
        let bytes: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let converted = sql_query(CONVERT).bind::<Array<Binary>, _>(bytes).bind::<Text, _>(encoding);
        let error = match converted.load::<Converted>(&mut self.connection).await {
            Ok(rows) => return Ok(Some(rows.into_iter().map(|row| row.text).collect())),
            Err(error) => error,
        };
        match self.errors.take() {
            Some(server) if server.state.is_unreadable_text() => {
                self.run("ROLLBACK TO SAVEPOINT conversion").await?;
                Ok(None)
            }
            server => Err(StorageError::of_statement(error, server)),
        }
    }
}
