//! Places that are shared out fairly, and the bounded queue of those who wait for one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::queue::{Joined, Queue};
use crate::domain::{Party, RETRY_SOON};

/// A number of places. A clone is another handle on the same ones.
///
/// A party that is alone may take them all, but for those that are kept for newcomers. Where several want them,
/// each gets as many as the others; a newcomer finds room in the queue, at the cost of the party that fills it.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    places: usize,
    /// Places that only parties take that hold none.
    kept: usize,
    patience: Duration,
    state: Mutex<State>,
    /// Told when the last place has come back.
    emptied: Notify,
}

struct State {
    free: usize,
    queue: Queue<oneshot::Sender<Result<Place, Refused>>>,
    granted: u64,
    refused: u64,
    closed: bool,
}

/// One place, given back when dropped.
pub struct Place {
    gate: Gate,
    party: Party,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many wait already, or the wait took too long.
    #[error("too many calls wait already")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The gate is closed for good.
    #[error("no more calls are taken")]
    Closed,
}

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateUsage {
    /// Places that are taken.
    pub in_use: usize,
    /// Places that there are.
    pub limit: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Places that were handed out since the start.
    pub granted: u64,
    /// Calls that were refused since the start.
    pub refused: u64,
}

/// One who waits. Leaves the queue when dropped.
struct Waiting<'g> {
    gate: &'g Gate,
    party: Party,
    ticket: u64,
}

impl Gate {
    /// A gate with `places` places, for which at most `queue` wait, each no longer than `patience`.
    ///
    /// # Panics
    /// Without a place.
    pub fn new(places: usize, queue: usize, patience: Duration) -> Self {
        assert!(places > 0, "a gate has a place");
        let state = State { free: places, queue: Queue::new(queue), granted: 0, refused: 0, closed: false };
        let (state, emptied) = (Mutex::new(state), Notify::new());
        Self(Arc::new(Inner { places, kept: 0, patience, state, emptied }))
    }

    /// A gate that keeps one place in four, rounded down, for parties that hold none: so one whose work hangs
    /// does not keep all others waiting.
    ///
    /// # Panics
    /// Without a place.
    pub fn with_room_for_newcomers(places: usize, queue: usize, patience: Duration) -> Self {
        let mut gate = Self::new(places, queue, patience);
        if let Some(inner) = Arc::get_mut(&mut gate.0) {
            inner.kept = places / 4;
        }
        gate
    }

    /// Waits for a place. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Refused::Busy`] at once when the queue has no room for the party, later when a newcomer took its
    /// room or the wait was too long; [`Refused::Closed`].
    pub async fn enter(&self, party: Party) -> Result<Place, Refused> {
        self.enter_as(party, party).await
    }

    /// As [`Gate::enter`], where the places are shared among [groups](Party::group) first, and within each
    /// among its parties.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    pub async fn enter_by_group(&self, party: Party) -> Result<Place, Refused> {
        self.enter_as(party, party.group()).await
    }

    async fn enter_as(&self, party: Party, group: Party) -> Result<Place, Refused> {
        let (sender, place) = oneshot::channel();
        let (ticket, evicted) = {
            let mut state = self.lock();
            if state.closed {
                return Err(Refused::Closed);
            }
            if state.free > self.kept_from(state.queue.held(party)) {
                state.free -= 1;
                state.granted += 1;
                state.queue.take(party, group);
                return Ok(Place { gate: self.clone(), party });
            }
            match state.queue.join(party, group, sender) {
                Joined::Waits(ticket) => (ticket, None),
                Joined::Instead(ticket, evicted) => {
                    state.refused += 1;
                    (ticket, Some(evicted))
                }
                Joined::Refused => {
                    state.refused += 1;
                    return Err(BUSY);
                }
            }
        };
        // One who has left in the meantime needs no answer.
        let _ = evicted.map(|evicted| evicted.send(Err(BUSY)));
        let _waiting = Waiting { gate: self, party, ticket };
        match timeout(self.0.patience, place).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refused::Closed),
            Err(_) => {
                self.lock().refused += 1;
                Err(BUSY)
            }
        }
    }

    /// How it stands now.
    pub fn usage(&self) -> GateUsage {
        let state = self.lock();
        GateUsage {
            in_use: self.0.places - state.free,
            limit: self.0.places,
            waiting: state.queue.waiting(),
            granted: state.granted,
            refused: state.refused,
        }
    }

    /// Whether somebody waits for a place.
    pub fn is_awaited(&self) -> bool {
        self.lock().queue.waiting() > 0
    }

    /// Lets nobody in from now on, and waits until all who are in or wait have come and gone.
    pub async fn close(&self) {
        self.lock().closed = true;
        loop {
            let emptied = self.0.emptied.notified();
            {
                let state = self.lock();
                if state.free == self.0.places && state.queue.waiting() == 0 {
                    return;
                }
            }
            emptied.await;
        }
    }

    /// How many free places a party that holds `held` has to leave free.
    fn kept_from(&self, held: usize) -> usize {
        if held == 0 { 0 } else { self.0.kept }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For those who found no room: the queue empties many times in that time.
const BUSY: Refused = Refused::Busy { retry_after: RETRY_SOON };

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.queue.give_back(self.party);
        state.free += 1;
        // The one who holds the fewest is next: where that one has to leave the place free, all have.
        let free = state.free;
        let next = state.queue.next_if(|held| free > self.gate.kept_from(held));
        let Some((party, waiter)) = next else {
            let is_empty = state.free == self.gate.0.places;
            drop(state);
            if is_empty {
                self.gate.0.emptied.notify_waiters();
            }
            return;
        };
        state.free -= 1;
        state.granted += 1;
        drop(state);
        // Sent as a value: should its receiver be dropped unread, the place is dropped with it, and goes on.
        let _ = waiter.send(Ok(Self { gate: self.gate.clone(), party }));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.queue.leave(self.party, self.ticket);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("party", &self.party).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;
    use crate::domain::Source;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn host(n: u8) -> Party {
        Party::Address(Source::of(Some([192, 0, 2, n].into())))
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_handed_out_until_there_are_none_and_then_as_they_come_back() {
        let gate = Gate::new(2, 10, PATIENCE);
        let first = gate.enter(host(1)).await.unwrap();
        let _second = gate.enter(host(1)).await.unwrap();
        let mut third = Box::pin(gate.enter(host(1)));
        assert!(poll!(&mut third).is_pending());
        assert_eq!((gate.usage().in_use, gate.usage().waiting), (2, 1));
        drop(first);
        let Poll::Ready(Ok(_third)) = poll!(&mut third) else { panic!("a place came back") };
        assert_eq!(gate.usage(), GateUsage { in_use: 2, limit: 2, waiting: 0, granted: 3, refused: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_before_the_turn_came_leaves_no_trace() {
        let gate = Gate::new(1, 10, PATIENCE);
        let held = gate.enter(host(1)).await.unwrap();
        let mut waiting: Vec<_> = (0..10).map(|n| Box::pin(gate.enter(host(n)))).collect();
        for one in &mut waiting {
            assert!(poll!(one).is_pending());
        }
        drop(waiting);
        drop(held);
        assert_eq!((gate.usage().in_use, gate.usage().waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_was_handed_to_somebody_who_has_gone_goes_to_the_next() {
        let gate = Gate::new(1, 10, PATIENCE);
        let held = gate.enter(host(1)).await.unwrap();
        let mut gone = Box::pin(gate.enter(host(2)));
        let mut next = Box::pin(gate.enter(host(3)));
        assert!(poll!(&mut gone).is_pending() && poll!(&mut next).is_pending());
        // Handed over, and never looked at.
        drop(held);
        drop(gone);
        let Poll::Ready(Ok(place)) = poll!(&mut next) else { panic!("the place was lost") };
        drop(place);
        assert_eq!(gate.usage().in_use, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_the_gate_allows() {
        let gate = Gate::new(1, 10, PATIENCE);
        let _held = gate.enter(host(1)).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(gate.enter(host(2)).await.unwrap_err(), BUSY);
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!((gate.usage().waiting, gate.usage().refused), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_refused_at_once_and_a_newcomer_is_not() {
        let gate = Gate::new(1, 3, PATIENCE);
        let held = gate.enter(host(1)).await.unwrap();
        let mut crowd: Vec<_> = (0..3).map(|_| Box::pin(gate.enter(host(1)))).collect();
        for one in &mut crowd {
            assert!(poll!(one).is_pending());
        }
        assert_eq!(gate.enter(host(1)).await.unwrap_err(), BUSY);
        let mut newcomer = Box::pin(gate.enter(host(2)));
        assert!(poll!(&mut newcomer).is_pending());
        let evicted = crowd.pop().unwrap().await;
        assert_eq!(evicted.unwrap_err(), BUSY);
        drop(held);
        assert!(matches!(poll!(&mut newcomer), Poll::Ready(Ok(_))), "the newcomer is next");
        assert_eq!(gate.usage().refused, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_party_whose_work_hangs_leaves_a_place_to_newcomers() {
        let gate = Gate::with_room_for_newcomers(4, 10, PATIENCE);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(gate.enter(host(1)).await.unwrap());
        }
        let mut fourth = Box::pin(gate.enter(host(1)));
        assert!(poll!(&mut fourth).is_pending());
        let newcomer = gate.enter(host(2)).await.unwrap();
        let mut other = Box::pin(gate.enter(host(3)));
        assert!(poll!(&mut other).is_pending(), "all are taken");
        drop(newcomer);
        let Poll::Ready(Ok(other)) = poll!(&mut other) else { panic!("a newcomer is next") };
        drop(other);
        assert!(poll!(&mut fourth).is_pending(), "the place stays free");
        held.pop();
        assert!(matches!(poll!(&mut fourth), Poll::Ready(Ok(_))));
        assert_eq!(gate.usage().in_use, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_serves_those_who_wait_and_nobody_else() {
        let gate = Gate::new(1, 3, PATIENCE);
        let held = gate.enter(host(1)).await.unwrap();
        let mut waiting = Box::pin(gate.enter(host(1)));
        assert!(poll!(&mut waiting).is_pending());
        let mut closing = Box::pin(gate.close());
        assert!(poll!(&mut closing).is_pending());
        assert_eq!(gate.enter(host(2)).await.unwrap_err(), Refused::Closed);
        drop(held);
        assert!(poll!(&mut closing).is_pending());
        drop(waiting.await.unwrap());
        closing.await;
    }
}
