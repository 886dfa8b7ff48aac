//! Lists in pieces: each a statement that reads a bounded number of rows, on a connection asked for anew, so
//! that others get their turn in between.
//!
//! A page ends when it has as many entries or bytes as it may, or when its time is over; then its token leads
//! behind what was read, whether or not that is on the page.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::domain::{LoggedEvent, PageSize, Session, Tenant, Timestamp, User};
use crate::storage::{Conn, Listing, Storage, StorageError};

/// The most bytes of a page, as it is encoded.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// How long a page, and how long its count, may go on reading without finding enough.
pub const LIST_TIME: Duration = Duration::from_millis(50);

/// The most entries that a statement returns. What a page has no room for was read in vain.
const MOST_ENTRIES: usize = 250;

/// Where a list goes on: behind the entry of that time and id.
pub type Cursor = (Timestamp, Uuid);

/// Where the statements of one list run, and for how long.
pub struct Pieces<'s> {
    connections: Connections<'s>,
    end: Instant,
}

enum Connections<'s> {
    /// Those for lists of callers.
    Callers(&'s Listing),
    /// Those for operators.
    Operators(&'s Storage),
}

/// What a statement found.
#[derive(Debug)]
pub struct Piece<T> {
    /// What belongs to the list, in its order.
    pub entries: Vec<T>,
    /// What was read last; `None` when nothing is behind it.
    pub to: Option<Cursor>,
}

/// Some entries of a list, and where the next ones begin.
#[derive(Debug)]
pub struct Found<T> {
    /// The entries, in the list's order.
    pub entries: Vec<T>,
    /// Where the list goes on; `None` at its end.
    pub next: Option<Cursor>,
}

/// A list, of which a statement or two read a piece at a time.
pub trait Pieced {
    /// What it lists.
    type Entry: Listed;

    /// Reads a piece from behind `after` on: at most `most` entries, and a bounded number of rows.
    fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> impl Future<Output = Result<Piece<Self::Entry>, StorageError>> + Send;
}

/// What can be on a page.
pub trait Listed {
    /// The place of the entry in its list.
    fn place(&self) -> Cursor;

    /// At least as many bytes as the entry takes on a page.
    fn bytes(&self) -> usize;
}

impl<'s> Pieces<'s> {
    /// The pieces of an operator's list that begins now.
    pub fn of(storage: &'s Storage) -> Self {
        Self::begin(Connections::Operators(storage))
    }

    /// The pieces of a caller's list that begins now.
    pub(in crate::service) fn on(listing: &'s Listing) -> Self {
        Self::begin(Connections::Callers(listing))
    }

    fn begin(connections: Connections<'s>) -> Self {
        Self { connections, end: Instant::now() + LIST_TIME }
    }

    /// A connection for the next piece. To be given back after it.
    pub(in crate::service) async fn connection(&self) -> Result<Conn, StorageError> {
        match self.connections {
            Connections::Callers(listing) => listing.connection().await,
            Connections::Operators(storage) => storage.read().await,
        }
    }

    /// Whether another piece may be read that may find nothing.
    pub(super) fn has_time(&self) -> bool {
        Instant::now() < self.end
    }

    /// Puts a page of a list together, from behind `after` on.
    pub(in crate::service) async fn page<L: Pieced>(
        &self,
        list: &L,
        size: PageSize,
        mut after: Option<Cursor>,
    ) -> Result<Found<L::Entry>, StorageError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        loop {
            // One more tells whether the page is the last.
            let most = (size.entries() - entries.len() + 1).min(MOST_ENTRIES);
            let piece = {
                let mut conn = self.connection().await?;
                list.read(&mut conn, after, most).await?
            };
            let is_thin = piece.entries.len() < most;
            for entry in piece.entries {
                bytes += entry.bytes();
                if entries.len() == size.entries() || (bytes > MAX_PAGE_BYTES && !entries.is_empty()) {
                    let next = entries.last().map(Listed::place);
                    return Ok(Found { entries, next });
                }
                entries.push(entry);
            }
            let Some(to) = piece.to else { return Ok(Found { entries, next: None }) };
            if is_thin && !self.has_time() {
                return Ok(Found { entries, next: Some(to) });
            }
            after = Some(to);
        }
    }
}

impl<T: Listed> Piece<T> {
    /// The piece that a statement returned which was told to return `most` rows, and left out none that it read.
    pub fn whole(entries: Vec<T>, most: usize) -> Self {
        let to = entries.last().map(Listed::place).filter(|_| entries.len() >= most);
        Self { entries, to }
    }
}

/// What an entry takes beside its texts: identifiers, times, words, and what tells fields apart.
const FIXED_BYTES: usize = 400;

fn tenant_bytes(tenant: &Tenant) -> usize {
    tenant.name.as_str().len()
}

impl Listed for User {
    fn place(&self) -> Cursor {
        (self.created_at, self.id.as_uuid())
    }

    fn bytes(&self) -> usize {
        let texts: usize = self.profile.fields().iter().map(|(_, text)| text.map_or(0, str::len)).sum();
        FIXED_BYTES + texts + tenant_bytes(&self.tenant)
    }
}

impl Listed for Tenant {
    fn place(&self) -> Cursor {
        (self.created_at, self.id.as_uuid())
    }

    fn bytes(&self) -> usize {
        FIXED_BYTES + tenant_bytes(self)
    }
}

impl Listed for Session {
    fn place(&self) -> Cursor {
        (self.created_at, self.id.as_uuid())
    }

    fn bytes(&self) -> usize {
        FIXED_BYTES + self.opened_by.device.as_ref().map_or(0, |device| device.as_str().len())
    }
}

impl Listed for LoggedEvent {
    fn place(&self) -> Cursor {
        (self.occurred_at, self.id.as_uuid())
    }

    fn bytes(&self) -> usize {
        /// Tags and lengths.
        const CHANGE_BYTES: usize = 16;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let changes = self
            .changes
            .iter()
            .map(|change| CHANGE_BYTES + change.field.len() + length(&change.before) + length(&change.after));
        FIXED_BYTES + length(&self.actor_name) + length(&self.origin.request_id) + changes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(i64, usize);

    impl Listed for Entry {
        fn place(&self) -> Cursor {
            (Timestamp::from_unix_micros(self.0), Uuid::nil())
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    /// The numbers below 100, of which every `nth` is listed, with so many bytes; ten are read at a time.
    struct Numbers {
        nth: i64,
        bytes: usize,
    }

    impl Pieced for Numbers {
        type Entry = Entry;

        async fn read(
            &self,
            _: &mut Conn,
            after: Option<Cursor>,
            most: usize,
        ) -> Result<Piece<Entry>, StorageError> {
            let from = after.map_or(0, |(at, _)| at.as_unix_micros() + 1);
            let rows = from..100.min(from + 10);
            let to = rows.clone().last().filter(|last| *last < 99);
            let listed = rows.filter(|n| n % self.nth == self.nth - 1);
            let entries: Vec<_> = listed.map(|n| Entry(n, self.bytes)).take(most).collect();
            let is_full = entries.len() == most;
            let to = if is_full { entries.last().map(|last| last.0) } else { to };
            Ok(Piece { entries, to: to.map(|last| Entry(last, 0).place()) })
        }
    }

    async fn page(end: Instant, size: i32, bytes: usize, nth: i64, after: Option<Cursor>) -> Found<Entry> {
        use crate::storage::{DatabaseUrl, LaneSizes, StorageSettings, migrate};
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite { path: folder.path().join("identity.db") };
        migrate::run(&url, Duration::from_secs(60)).await.unwrap();
        let (connections, limit) = (LaneSizes::MIN, Duration::from_secs(60));
        let settings = StorageSettings { url, connections, statement_limit: limit, queue_limit: limit };
        let storage = Storage::new(&settings).unwrap();
        let pieces = Pieces { end, ..Pieces::of(&storage) };
        let size = PageSize::requested(size).unwrap();
        pieces.page(&Numbers { nth, bytes }, size, after).await.unwrap()
    }

    fn numbers(found: &Found<Entry>) -> Vec<i64> {
        found.entries.iter().map(|entry| entry.0).collect()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_is_filled_from_as_many_pieces_as_it_takes() {
        let found = page(later(), 3, 1, 20, None).await;
        assert_eq!(numbers(&found), [19, 39, 59]);
        let rest = page(later(), 3, 1, 20, found.next).await;
        assert_eq!((numbers(&rest), rest.next), (vec![79, 99], None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_without_time_ends_behind_what_was_read() {
        let (mut after, mut all, mut pages) = (None, Vec::new(), 0);
        loop {
            let found = page(Instant::now(), 3, 1, 20, after).await;
            all.extend(numbers(&found));
            pages += 1;
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((all, pages), (vec![19, 39, 59, 79, 99], 10));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_has_no_more_bytes_than_it_may_but_one_entry_at_least() {
        let found = page(later(), 50, MAX_PAGE_BYTES / 2, 1, None).await;
        assert_eq!(numbers(&found), [0, 1]);
        let found = page(later(), 50, MAX_PAGE_BYTES * 2, 1, found.next).await;
        assert_eq!(numbers(&found), [2]);
    }
}
