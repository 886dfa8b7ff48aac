//! The connections by source, in an order in which one that is dispensable is found fast.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::open::{OpenConnection, Use};
use crate::domain::Source;
use crate::server::budgets::SourceUse;

/// How many connections are looked at to find one that is idle. What is found not to be goes to the end
/// of the line, so that all get looked at in turn.
const MAX_CANDIDATES: usize = 32;

/// All connections to one port.
#[derive(Debug, Default)]
pub(super) struct Registry {
    sources: HashMap<Source, Entry>,
    /// How many connections that may stay each source has.
    by_size: BTreeSet<(usize, Source)>,
    staying: usize,
    /// Those that have been told to go and may linger, the oldest first.
    lingering: BTreeMap<u64, Arc<OpenConnection>>,
    /// How many have been told to go at once.
    hurried: usize,
    next: u64,
}

#[derive(Debug, Default)]
struct Entry {
    source_use: Arc<SourceUse>,
    /// Those that may stay, in the order of their last known use. What is called meanwhile does not move
    /// them; that is made up for when they are looked at.
    staying: BTreeMap<Key, Arc<OpenConnection>>,
    /// Where in that order each of them is.
    keys: HashMap<u64, Key>,
    leaving: usize,
}

type Key = (Instant, u64);

/// Where in the registry a connection is.
#[derive(Debug)]
pub(super) struct Place {
    source: Source,
    number: u64,
    connection: Arc<OpenConnection>,
}

impl Place {
    pub(super) fn connection(&self) -> &Arc<OpenConnection> {
        &self.connection
    }
}

impl Registry {
    /// How many connections may stay.
    pub(super) fn staying(&self) -> usize {
        self.staying
    }

    /// How many have been told to go, and have not gone.
    pub(super) fn leaving(&self) -> usize {
        self.lingering.len() + self.hurried
    }

    /// How many of `source` may stay.
    pub(super) fn of(&self, source: Source) -> usize {
        self.sources.get(&source).map_or(0, |entry| entry.staying.len())
    }

    /// Adds the connection that `open` makes of what its source uses.
    pub(super) fn add(
        &mut self,
        source: Source,
        open: impl FnOnce(Arc<SourceUse>) -> OpenConnection,
    ) -> Place {
        let number = self.next;
        self.next += 1;
        let entry = self.sources.entry(source).or_default();
        let connection = Arc::new(open(Arc::clone(&entry.source_use)));
        let key = (connection.last_call(), number);
        self.by_size.remove(&(entry.staying.len(), source));
        entry.staying.insert(key, Arc::clone(&connection));
        entry.keys.insert(number, key);
        self.by_size.insert((entry.staying.len(), source));
        self.staying += 1;
        Place { source, number, connection }
    }

    /// Takes the most dispensable connection of `source`, or of the largest source, from those that may
    /// stay.
    pub(super) fn displace(&mut self, source: Option<Source>) -> Option<Arc<OpenConnection>> {
        let source = source.or_else(|| self.by_size.last().map(|(_, largest)| *largest))?;
        let entry = self.sources.get_mut(&source)?;
        let number = entry.most_dispensable()?;
        self.move_out(source, number)
    }

    /// Notes that a connection has been told to go.
    pub(super) fn leave(&mut self, place: &Place) {
        self.move_out(place.source, place.number);
    }

    /// Lets the oldest of those that linger do so no longer, unless one is on its way already.
    pub(super) fn hurry(&mut self) {
        if self.hurried == 0
            && let Some((_, connection)) = self.lingering.pop_first()
        {
            connection.tell_to_go_now();
            self.hurried += 1;
        }
    }

    /// Forgets a connection that has gone.
    pub(super) fn remove(&mut self, place: &Place) {
        self.move_out(place.source, place.number);
        if self.lingering.remove(&place.number).is_none() {
            self.hurried -= 1;
        }
        if let Some(entry) = self.sources.get_mut(&place.source) {
            entry.leaving -= 1;
            if entry.leaving == 0 && entry.staying.is_empty() {
                self.sources.remove(&place.source);
            }
        }
    }

    /// Counts a connection among those that leave, if it is not yet.
    fn move_out(&mut self, source: Source, number: u64) -> Option<Arc<OpenConnection>> {
        let entry = self.sources.get_mut(&source)?;
        let key = entry.keys.remove(&number)?;
        self.by_size.remove(&(entry.staying.len(), source));
        let connection = entry.staying.remove(&key)?;
        if !entry.staying.is_empty() {
            self.by_size.insert((entry.staying.len(), source));
        }
        entry.leaving += 1;
        self.staying -= 1;
        self.lingering.insert(number, Arc::clone(&connection));
        Some(connection)
    }
}

impl Entry {
    /// The number of the longest idle connection; when the first ones in the line are all in use, of the
    /// one among them that is used least.
    fn most_dispensable(&mut self) -> Option<u64> {
        let mut best: Option<(Use, u64)> = None;
        let mut looked_at = Vec::new();
        while looked_at.len() < MAX_CANDIDATES
            && let Some(((listed_at, number), connection)) = self.staying.pop_first()
        {
            let (usage, last_call) = (connection.usage(), connection.last_call());
            let is_longest_idle = usage == Use::Idle && last_call <= listed_at;
            let key = match usage {
                Use::Idle => (last_call, number),
                Use::Watched | Use::Called => (Instant::now(), number),
            };
            looked_at.push((key, connection));
            if is_longest_idle || best.is_none_or(|(least, _)| usage < least) {
                best = Some((usage, number));
            }
            if is_longest_idle {
                break;
            }
        }
        // Put back afterwards, so that none is looked at twice.
        for (key, connection) in looked_at {
            self.keys.insert(key.1, key);
            self.staying.insert(key, connection);
        }
        best.map(|(_, number)| number)
    }
}
