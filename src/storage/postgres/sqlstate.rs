//! The codes of PostgreSQL's errors, read along on a session's stream.
//!
//! Diesel keeps the text of an error and drops its code. The text is in the server's language, so only the code
//! tells whether waiting helps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The code of an error (PostgreSQL, appendix A).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// A code, when `text` has the length of one.
    pub fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// Whether the cause may go away by itself, so that trying again helps: a lost connection, a server that is
    /// no primary, starts, stops, or has no room, a deadlock, a lock, a time limit, a statement that a pooler has
    /// forgotten.
    pub fn passes(self) -> bool {
        let [first, second, ..] = self.0;
        matches!(&[first, second], b"08" | b"26" | b"40" | b"53" | b"55" | b"57" | b"58")
            || self == Self::READ_ONLY
    }

    /// Whether a text has bytes that its encoding does not define, or that have no equivalent in the one that is
    /// asked for.
    pub fn is_unreadable_text(self) -> bool {
        matches!(&self.0, b"22021" | b"22P05")
    }

    /// The server is no primary, or was told to write nothing.
    pub const READ_ONLY: Self = Self(*b"25006");

    /// A statement before this one failed in the same transaction.
    pub const FAILED_TRANSACTION: Self = Self(*b"25P02");

    /// The server has no room to write.
    pub const DISK_FULL: Self = Self(*b"53100");
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("?????"))
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({self})")
    }
}

/// An error that a server sent on one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Its code.
    pub state: SqlState,
    /// Whether a migration changed the columns of a prepared statement, which fails from then on until it is
    /// prepared anew.
    pub is_stale_plan: bool,
}

/// Where the errors of one session are noted. All clones know the same; one of a session that nobody watches
/// never knows any.
#[derive(Clone, Debug, Default)]
pub struct ServerErrors(Arc<AtomicU64>);

impl ServerErrors {
    /// The last error since the last call that is not the consequence of another.
    pub fn take(&self) -> Option<ServerError> {
        let [is_stale_plan, a, b, c, d, e, ..] = self.0.swap(0, Relaxed).to_le_bytes();
        let state = SqlState([a, b, c, d, e]);
        (a != 0).then_some(ServerError { state, is_stale_plan: is_stale_plan != 0 })
    }

    fn note(&self, error: ServerError) {
        let SqlState([a, b, c, d, e]) = error.state;
        let noted = u64::from_le_bytes([u8::from(error.is_stale_plan), a, b, c, d, e, 0, 0]);
        // Whatever comes behind a failed statement in a transaction fails as well.
        if error.state != SqlState::FAILED_TRANSACTION || self.0.load(Relaxed) == 0 {
            self.0.store(noted, Relaxed);
        }
    }
}

/// The type of an ErrorResponse (PostgreSQL 17, 53.7).
const ERROR_RESPONSE: u8 = b'E';

/// A type and a length, which counts itself.
const HEADER: usize = 5;

/// As much of an error as is kept to be read. Its code comes before its texts.
const MAX_BODY: usize = 8 * 1024;

/// What a server sends, message by message; the contents of errors only.
#[derive(Debug, Default)]
pub(super) struct Replies {
    errors: ServerErrors,
    header: Vec<u8>,
    /// How much of the message's body is still to come.
    remaining: usize,
    /// The body of an error.
    body: Vec<u8>,
}

impl Replies {
    /// Notes errors in `errors`.
    pub(super) fn new(errors: ServerErrors) -> Self {
        Self { errors, ..Self::default() }
    }

    /// Reads what came next.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.header.len() < HEADER { self.feed_header(bytes) } else { self.feed_body(bytes) };
            if self.header.len() == HEADER && self.remaining == 0 {
                self.end_message();
            }
        }
    }

    fn feed_header<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (header, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
        self.header.extend_from_slice(header);
        if let [_, a, b, c, d] = *self.header.as_slice() {
            let length = u32::from_be_bytes([a, b, c, d]);
            self.remaining = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(HEADER - 1);
        }
        rest
    }

    fn feed_body<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (body, rest) = bytes.split_at(bytes.len().min(self.remaining));
        self.remaining -= body.len();
        if self.header.first() == Some(&ERROR_RESPONSE) {
            let room = MAX_BODY.saturating_sub(self.body.len());
            self.body.extend_from_slice(&body[..body.len().min(room)]);
        }
        rest
    }

    fn end_message(&mut self) {
        if let Some(error) = read_error(&self.body) {
            self.errors.note(error);
        }
        self.header.clear();
        self.body.clear();
    }
}

/// Reads the fields of an error (PostgreSQL 17, 53.8): each has a type and a text that ends with a NUL.
fn read_error(body: &[u8]) -> Option<ServerError> {
    let field = |kind| body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]));
    let state = SqlState(field(b'C')?.try_into().ok()?);
    // Code 0A000, as whatever else PostgreSQL does not support; the function of its source tells them apart.
    Some(ServerError { state, is_stale_plan: field(b'R') == Some(b"RevalidateCachedQuery") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    fn state(text: &str) -> SqlState {
        SqlState::parse(text).unwrap()
    }

    #[test]
    fn an_error_is_read_in_whatever_pieces_it_comes() {
        let error = message(b'E', b"SERROR\0C22P05\0MC like this\0Rreport_untranslatable_char\0\0");
        let stale = message(b'E', b"SFEHLER\0C0A000\0MR\0RRevalidateCachedQuery\0\0");
        let stream = [message(b'Z', b"I"), message(b'D', &[b'E'; 100]), error, message(b'Z', b"I"), stale];
        let stream = stream.concat();
        for size in 1..stream.len() {
            let errors = ServerErrors::default();
            let mut replies = Replies::new(errors.clone());
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                replies.feed(piece);
                seen.extend(errors.take());
            }
            let last = ServerError { state: state("0A000"), is_stale_plan: true };
            assert_eq!(seen.last(), Some(&last), "pieces of {size}");
            if size == 1 {
                assert_eq!(seen[0], ServerError { state: state("22P05"), is_stale_plan: false });
                assert_eq!(seen.len(), 2);
            }
        }
    }

    #[test]
    fn only_some_codes_pass_by_themselves() {
        for code in ["08006", "25006", "26000", "40P01", "53100", "53300", "55P03", "57014", "57P01", "58030"]
        {
            assert!(state(code).passes(), "{code}");
        }
        for code in ["22P05", "42501", "42703", "42P01", "25P02", "3D000", "XX001", "0A000"] {
            assert!(!state(code).passes(), "{code}");
        }
    }
}
