//! Pages of lists that are being put together.
//!
//! A page is read in pieces, and gives its connection back after each. Without a limit of their own, all calls
//! that wait for a connection could hold most of a page meanwhile.

use super::connection::Conn;
use super::error::StorageError;
use super::lane::Lane;
use super::pool::Storage;
use crate::budget::Place;
use crate::domain::Party;

/// One page that is being put together, which may have one connection for lists at a time. It counts until this
/// is dropped.
#[must_use]
pub struct Listing {
    storage: Storage,
    party: Party,
    _place: Place,
}

impl Listing {
    pub(super) fn new(storage: Storage, party: Party, place: Place) -> Self {
        Self { storage, party, _place: place }
    }

    /// Waits for a connection for lists, to be given back after a statement or two.
    ///
    /// # Errors
    /// As [`Storage::reader`].
    pub async fn connection(&self) -> Result<Conn, StorageError> {
        self.storage.reader(Lane::Lists, self.party).await
    }
}
