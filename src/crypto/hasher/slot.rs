//! What a call holds from its admission to its end, and what its password is hashed with.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::cost::Costs;
use super::queue::{Place, Queue};
use super::task::{Answer, Task};
use super::terms::{HashError, Verdict};
use crate::crypto::scheme::StoredHash;
use crate::domain::{Party, Password, PasswordHash};

/// A reserved hash, and a place among the calls under way.
///
/// The first is used up by [`Slot::hash`] or [`Slot::verify`], and its place in the queue is free for others
/// once that is done or given up. The second is free when the slot is dropped: keep it until nothing is left
/// to do for the call, in a task that goes on without its caller too. So no more calls are under way than
/// are admitted, however many callers leave.
pub struct Slot {
    queue: Arc<Queue>,
    costs: Costs,
    party: Party,
    /// Until it is used.
    place: Option<Place>,
}

impl Slot {
    /// The slot of a call of `party` that was given `place`.
    pub(super) fn new(queue: Arc<Queue>, costs: Costs, party: Party, place: Place) -> Self {
        Self { queue, costs, party, place: Some(place) }
    }

    /// Computes a new hash of `password`: bcrypt, or bcrypt over a digest when bcrypt would not see
    /// all of the password.
    ///
    /// Dropping the future abandons the job: within a millisecond, if it is being computed already.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] when the deadline has passed, or the place was needed for a party that had
    /// less; [`HashError::Stopped`].
    ///
    /// # Panics
    /// When the slot was used before.
    pub async fn hash(&mut self, password: &Password) -> Result<PasswordHash, HashError> {
        let place = self.place();
        let (presence, answer) = self.presence(place);
        let task = Task::hash(password, self.costs.new, place.deadline, answer);
        self.enter(place, task)?;
        presence.wait().await
    }

    /// Checks `password` against `stored`, or against nothing (`None`: there is no such user), which
    /// costs one hash at the [floor](super::Hasher::floor) and never matches.
    ///
    /// A mismatch takes at least the work of one hash at the floor, whatever `stored` is
    /// and however the password is shaped; a match takes the work of the stored hash's own cost.
    /// Dropping the future abandons the job: within a millisecond, if it is being computed already.
    ///
    /// # Errors
    /// [`HashError::Unreadable`] for a stored hash that makes no sense, which leaves the slot unused;
    /// otherwise as [`Slot::hash`].
    ///
    /// # Panics
    /// When the slot was used before.
    pub async fn verify(
        &mut self,
        password: &Password,
        stored: Option<&PasswordHash>,
    ) -> Result<Verdict, HashError> {
        let stored = stored.map(StoredHash::read).transpose().map_err(|_| HashError::Unreadable)?;
        let place = self.place();
        let (presence, answer) = self.presence(place);
        let task = Task::verify(password, stored.as_ref(), self.costs, place.deadline, answer);
        self.enter(place, task)?;
        presence.wait().await
    }

    fn place(&self) -> Place {
        self.place.expect("a slot is used once")
    }

    fn presence<T>(&self, place: Place) -> (Presence<T, impl FnMut() + use<T>>, Answer<T>) {
        let (queue, party) = (Arc::clone(&self.queue), self.party);
        Presence::new(move || queue.abandon(party, place.id))
    }

    fn enter(&mut self, place: Place, task: Task) -> Result<(), HashError> {
        self.place = None;
        self.queue.enter(self.party, place, task)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue.leave(self.party, self.place);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A caller who waits. Dropped early, it says that nobody does any more.
pub(super) struct Presence<T, F: FnMut()> {
    answer: oneshot::Receiver<Result<T, HashError>>,
    leave: F,
}

impl<T, F: FnMut()> Presence<T, F> {
    /// A caller, and where to answer. `leave` is called after the channel is closed.
    pub(super) fn new(leave: F) -> (Self, Answer<T>) {
        let (reply, answer) = oneshot::channel();
        (Self { answer, leave }, Answer::new(reply))
    }

    /// Waits for the answer.
    pub(super) async fn wait(mut self) -> Result<T, HashError> {
        (&mut self.answer).await.unwrap_or(Err(HashError::Stopped))
    }
}

impl<T, F: FnMut()> Drop for Presence<T, F> {
    fn drop(&mut self) {
        // Closed here and not after this: the queue looks at it. Once answered, nothing is left to drop.
        if !self.answer.is_terminated() {
            self.answer.close();
            (self.leave)();
        }
    }
}
