//! Which page of a list is asked for, and the tokens that lead from one page to the next.

use uuid::Uuid;

use super::super::{Service, ServiceError};
use super::pieces::{Cursor, Found};
use crate::crypto::page_token::InvalidPageToken;
use crate::domain::{FieldViolation, Page, PageSize, Timestamp};

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub struct PageQuery {
    /// The most entries.
    pub size: PageSize,
    /// The token of the page, unless it is the first.
    pub token: Option<String>,
}

/// Whether all that a list has is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// It is.
    Counted,
    /// Nobody wants to know.
    Unasked,
}

impl Service {
    /// The page of what was found, with the token of the next one.
    pub(in crate::service) fn page<T>(&self, scope: &[String], found: Found<T>) -> Page<T> {
        let next = found.next.map(|(at, id)| {
            let cursor = [at.as_unix_micros().to_be_bytes().as_slice(), id.as_bytes()].concat();
            self.0.page_tokens.issue(scope, &cursor)
        });
        Page { entries: found.entries, next }
    }

    /// Where a list goes on: behind the entry of that time and id, which need not belong to it.
    ///
    /// # Errors
    /// [`ServiceError::FieldInvalid`] when the page token was not issued for this list.
    pub(in crate::service) fn cursor(
        &self,
        scope: &[String],
        token: Option<&str>,
    ) -> Result<Option<Cursor>, ServiceError> {
        let Some(token) = token else { return Ok(None) };
        let cursor = self.0.page_tokens.parse(scope, token).and_then(|cursor| {
            let (at, id) = cursor.split_first_chunk().ok_or(InvalidPageToken)?;
            let id = Uuid::from_slice(id).map_err(|_| InvalidPageToken)?;
            Ok((Timestamp::from_unix_micros(i64::from_be_bytes(*at)), id))
        });
        cursor.map(Some).map_err(|problem| {
            ServiceError::FieldInvalid(FieldViolation {
                field: "page_token",
                description: problem.to_string(),
            })
        })
    }
}
