//! What the queue lets in and refuses, at a pace of its own; and what a refusal costs.

use std::net::IpAddr;

use tokio::sync::oneshot;

use super::*;
use crate::crypto::hasher::Cost;
use crate::crypto::hasher::task::Answer;
use crate::domain::{Password, Source};

const SECOND: Duration = Duration::from_secs(1);

/// Of one worker with one lane, which takes a second for an expansion, and so 33 for a hash.
fn queue() -> Queue {
    let limits = Limits { capacity: 10, max_wait: 1_000 * SECOND };
    Queue::new(NonZeroUsize::MIN, Ideal::new(vec![SECOND]), limits)
}

/// Asks for a hash within `allowed`.
fn push(queue: &Queue, allowed: Duration) -> Result<(), HashError> {
    let place = reserve(queue, allowed)?;
    let password = Password::new("correct horse".to_owned()).unwrap();
    let answer = Answer::new(oneshot::channel().0);
    queue.enter(Party::System, place, Task::hash(&password, Cost::MIN, place.deadline, answer))
}

fn reserve(queue: &Queue, allowed: Duration) -> Result<Place, HashError> {
    queue.reserve(33, &Terms { deadline: Some(Instant::now() + allowed), ..Terms::SYSTEM })
}

fn assign(queue: &Queue) {
    let mut state = queue.lock();
    let task = state.line.pop().unwrap();
    assert!(matches!(state.assign(task, 0), Next::Job(_)));
}

#[test]
fn who_would_have_nothing_to_spare_is_refused() {
    let queue = queue();
    push(&queue, 40 * SECOND).unwrap();
    assign(&queue);
    // 66 seconds are forecast, and half as much again is to spare.
    assert!(matches!(push(&queue, 90 * SECOND), Err(HashError::Overloaded { .. })));
    push(&queue, 110 * SECOND).unwrap();
}

#[test]
fn what_is_reserved_for_one_is_not_reserved_for_another() {
    let queue = queue();
    push(&queue, 40 * SECOND).unwrap();
    assign(&queue);
    let first = reserve(&queue, 110 * SECOND).unwrap();
    assert!(matches!(reserve(&queue, 110 * SECOND), Err(HashError::Overloaded { .. })));
    queue.leave(Party::System, Some(first));
    push(&queue, 110 * SECOND).unwrap();
    assert!(matches!(reserve(&queue, 110 * SECOND), Err(HashError::Overloaded { .. })));
}

#[test]
fn a_slow_spell_keeps_nobody_from_a_hasher_that_is_idle_since() {
    let queue = queue();
    let idle = Report {
        lanes: 1,
        expansions: 1,
        elapsed: 3_600 * SECOND,
        lanes_left: 0,
        work_left: 0,
        finished: 1,
        abandoned: 0,
    };
    queue.report(0, &idle);
    push(&queue, 40 * SECOND).unwrap();
    // Beside a job that runs, what was measured counts.
    assert!(matches!(push(&queue, 400 * SECOND), Err(HashError::Overloaded { .. })));
}

/// `cargo test --lib what_a_refusal_costs -- --ignored --nocapture`
#[test]
#[ignore = "measures, and asserts nothing that a busy machine could not refute"]
fn what_a_refusal_costs() {
    let limits = Limits { capacity: 10_000, max_wait: 1_000_000_000 * SECOND };
    let queue = Queue::new(NonZeroUsize::MIN, Ideal::new(vec![SECOND]), limits);
    let party = |number: u32| Party::Address(Source::of(Some(IpAddr::from(number.to_be_bytes()))));
    let password = Password::new("correct horse".to_owned()).unwrap();
    // As many as wait and are in flight at most, of 200 parties.
    let answers: Vec<_> = (0..10_001)
        .map(|number| {
            let party = party(number % 200);
            let place = queue.reserve(33, &Terms { party, ..Terms::SYSTEM }).unwrap();
            let (reply, answer) = oneshot::channel();
            let task = Task::hash(&password, Cost::MIN, None, Answer::new(reply));
            queue.enter(party, place, task).unwrap();
            answer
        })
        .collect();
    let soon = Some(Instant::now() + 100 * SECOND);
    for (case, party, deadline) in
        [("for want of room", party(0), None), ("of a newcomer, for want of time", party(200), soon)]
    {
        let began = Instant::now();
        for _ in 0..10_000 {
            let refused = queue.reserve(33, &Terms { deadline, party });
            assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{case}");
        }
        eprintln!("a refusal {case}: {:?}", began.elapsed() / 10_000);
    }
    drop(answers);
}
