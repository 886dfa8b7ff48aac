//! What slots take and give back, and what a flood of them leaves to others.

use std::collections::VecDeque;

use super::*;

fn overloaded<T>(outcome: &Result<T, HashError>) -> bool {
    matches!(outcome, Err(HashError::Overloaded { .. }))
}

/// Calls under way, jobs that wait, lanes in use.
fn in_use(hasher: &Hasher) -> (usize, usize, usize) {
    let statistics = hasher.statistics();
    (statistics.slots, statistics.waiting, statistics.lanes_in_use)
}

/// A call that holds its slot to its end.
fn call(hasher: &Hasher, text: &'static str, terms: Terms) -> Result<BoxedCall, HashError> {
    let mut slot = hasher.reserve(&terms)?;
    let mut call: BoxedCall = Box::pin(async move { slot.hash(&password(text)).await.map(|_| slot) });
    match poll(&mut call) {
        Poll::Pending => Ok(call),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(_)) => unreachable!("a permit is missing"),
    }
}

type BoxedCall = Pin<Box<dyn Future<Output = Result<Slot, HashError>> + Send>>;

#[tokio::test]
async fn what_is_reserved_is_served_whatever_comes_later() {
    let bench = Bench::new(1, 4);
    let mut slots = [(); 2].map(|()| bench.hasher.reserve(&ANY).unwrap());
    assert!(overloaded(&bench.hasher.reserve(&ANY)));
    bench.permit(2);
    for slot in &mut slots {
        assert!(slot.hash(&password("a")).await.is_ok());
    }
}

#[tokio::test]
async fn a_computed_hash_leaves_its_place_in_the_queue_and_its_call_the_slot() {
    let bench = Bench::new(1, 4);
    let mut held = Vec::new();
    bench.permit(3);
    for _ in 0..3 {
        let mut slot = bench.hasher.reserve(&ANY).expect("those before are out of the queue");
        slot.hash(&password("a")).await.unwrap();
        held.push(slot);
    }
    // One lane, and twice a queue of one.
    let limit = bench.hasher.statistics().slots_limit;
    assert_eq!((limit, in_use(&bench.hasher)), (3, (3, 0, 0)));
    assert!(overloaded(&bench.hasher.reserve(&ANY)));
    assert!(bench.hasher.reserve(&from(2)).is_ok(), "others are not kept out by those");
    held.pop();
    assert!(bench.hasher.reserve(&ANY).is_ok());
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_queue_and_not_the_call() {
    let bench = Bench::new(1, 4);
    let first = call(&bench.hasher, "a", ANY).unwrap();
    bench.next_seen();
    let mut slot = bench.hasher.reserve(&ANY).unwrap();
    let waited = password("b");
    let mut waiting = Box::pin(slot.verify(&waited, None));
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(in_use(&bench.hasher), (2, 1, 1));
    drop(waiting);
    assert_eq!(in_use(&bench.hasher), (2, 0, 1));
    drop(slot);
    assert_eq!(in_use(&bench.hasher), (1, 0, 1));
    bench.permit(1);
    assert!(first.await.is_ok());
}

#[tokio::test]
#[should_panic(expected = "used once")]
async fn a_slot_serves_one_password() {
    let hasher = Hasher::start(HasherSettings::new(Cost::MIN)).unwrap();
    let mut slot = hasher.reserve(&ANY).unwrap();
    slot.hash(&password("a")).await.unwrap();
    let _ = slot.hash(&password("b")).await;
}

#[tokio::test]
async fn a_slot_that_found_nothing_to_read_is_not_used_up() {
    let bench = Bench::new(1, 4);
    bench.permit(1);
    let mut slot = bench.hasher.reserve(&ANY).unwrap();
    let broken = PasswordHash { scheme: PasswordScheme::Bcrypt, text: "x".to_owned() };
    assert_eq!(slot.verify(&password("a"), Some(&broken)).await, Err(HashError::Unreadable));
    assert_eq!(slot.verify(&password("a"), None).await, Ok(Verdict::Mismatch));
}

#[tokio::test]
async fn a_stored_hash_that_is_dearer_than_reserved_is_checked_and_its_work_counted() {
    let bench = Bench::new(10, 4);
    let dear = {
        let hasher = Hasher::start(HasherSettings::new(Cost::new(6).unwrap())).unwrap();
        hash_on(&hasher, &password("pw"), &ANY).await.unwrap()
    };
    let first = call(&bench.hasher, "a", ANY).unwrap();
    bench.next_seen();
    let (mut slot, pw) = (bench.hasher.reserve(&ANY).unwrap(), password("pw"));
    let mut check = Box::pin(slot.verify(&pw, Some(&dear)));
    assert!(poll(&mut check).is_pending());
    let work = bench.hasher.front.queue.queued_work();
    assert_eq!(work, bcrypt_lanes::Cost::new(6).unwrap().expansions());
    bench.permit(2);
    assert_eq!(check.await, Ok(Verdict::Match { outdated: true }));
    assert!(first.await.is_ok());
}

#[tokio::test]
async fn a_slot_whose_deadline_has_passed_is_refused() {
    let bench = Bench::new(10, 4);
    let soon = Instant::now() + Duration::from_millis(200);
    let mut slot = bench.hasher.reserve(&Terms { deadline: Some(soon), ..ANY }).unwrap();
    std::thread::sleep(soon.saturating_duration_since(Instant::now()));
    assert!(overloaded(&slot.hash(&password("a")).await));
    assert_eq!(refusals(&bench.hasher), [("full", 0), ("share", 0), ("deadline", 1)]);
    assert_eq!(bench.hasher.front.queue.queued_work(), 0);
}

#[tokio::test]
async fn a_stopped_hasher_refuses_what_was_reserved() {
    let bench = Bench::new(10, 4);
    let mut slot = bench.hasher.reserve(&ANY).unwrap();
    bench.hasher.stop();
    assert_eq!(slot.hash(&password("a")).await, Err(HashError::Stopped));
    assert!(matches!(bench.hasher.reserve(&ANY), Err(HashError::Stopped)));
    drop(slot);
    assert_eq!(in_use(&bench.hasher), (0, 0, 0));
}

#[tokio::test]
async fn reservations_that_are_dropped_leave_no_trace() {
    let bench = Bench::new(10, 4);
    for _ in 0..10_000 {
        drop(bench.hasher.reserve(&from(1)).unwrap());
    }
    assert_eq!(in_use(&bench.hasher), (0, 0, 0));
    assert_eq!(bench.hasher.front.queue.queued_work(), 0);
    assert!(refusals(&bench.hasher).iter().all(|(_, count)| *count == 0));
}

/// Drops 10,000 slots of ten parties as they come: reserved, waiting, in a lane or computed.
#[tokio::test]
async fn slots_leave_no_trace_at_whatever_stage_they_are_dropped() {
    let settings = HasherSettings { queue_capacity: 20, ..HasherSettings::new(Cost::MIN) };
    let hasher = Hasher::start(settings).unwrap();
    let mut calls: VecDeque<(Option<Slot>, Option<BoxedCall>)> = VecDeque::new();
    let (mut random, mut taken, mut ended_at) = (11_u32, 0, [0; 4]);
    let mut roll = |sides: u32| {
        // Xorshift, so that a failure can be had again.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random % sides
    };
    while taken < 10_000 {
        if let Ok(slot) = hasher.reserve(&from(roll(10) as u8)) {
            taken += 1;
            calls.push_back((Some(slot), None));
        }
        for _ in 0..roll(4) {
            let Some((slot, call)) = calls.pop_front() else { break };
            match (slot, call, roll(3)) {
                (Some(slot), _, 0) => {
                    ended_at[0] += 1;
                    drop(slot);
                }
                (Some(mut slot), _, _) => {
                    let mut asked: BoxedCall =
                        Box::pin(async move { slot.hash(&password("a")).await.map(|_| slot) });
                    match poll(&mut asked) {
                        Poll::Pending => calls.push_back((None, Some(asked))),
                        // A thread that hashes may be faster.
                        Poll::Ready(ended) => ended_at[if ended.is_ok() { 2 } else { 3 }] += 1,
                    }
                }
                (None, Some(call), 0) => {
                    ended_at[1] += 1;
                    drop(call);
                }
                (None, Some(call), _) => {
                    let ended = call.await;
                    ended_at[if ended.is_ok() { 2 } else { 3 }] += 1;
                }
                (None, None, _) => unreachable!("a call has its slot, or a job that has"),
            }
        }
    }
    drop(calls);
    assert!(ended_at.iter().take(3).all(|count| *count > 500), "{ended_at:?}");
    eventually(&hasher, |statistics| {
        (statistics.slots, statistics.waiting, statistics.lanes_in_use) == (0, 0, 0)
    });
    assert_eq!(hasher.front.queue.queued_work(), 0);
    assert!(hash_on(&hasher, &password("a"), &ANY).await.is_ok());
}

/// Party `a` asks for four times as much as can be computed, without a pause; `b`, `c` and `d` now and then.
///
/// Not within a runtime, whose budget for one task would let none of the many futures be ready.
#[test]
fn a_flood_from_one_source_leaves_others_their_turns_and_gets_all_the_rest() {
    let bench = Bench::new(16, 4);
    let mut calls: Vec<(u8, usize, BoxedCall)> = Vec::new();
    let (steps, mut offered, mut served, mut flood_served) = (600, 0, 0, 0);
    calls.push((b'a', 0, call(&bench.hasher, "a", from(1)).unwrap()));
    for step in 0..steps {
        // In the lane now, which is never idle.
        let (lane, _) = bench.next_seen();
        for _ in 0..4 {
            calls.extend(call(&bench.hasher, "a", from(1)).ok().map(|call| (b'a', step, call)));
        }
        for (host, text, every) in [(b'b', "b", 7), (b'c', "c", 11), (b'd', "d", 13)] {
            if step % every == 0 {
                offered += 1;
                let call = call(&bench.hasher, text, from(host)).expect("one now and then is let in");
                calls.push((host, step, call));
            }
        }
        flood_served += usize::from(lane == b'a');
        bench.permit(1);
        eventually(&bench.hasher, |_| bench.hasher.counters().hashes.get() == step as u64 + 1);
        calls.retain_mut(|(host, since, call)| match poll(call) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                if *host != b'a' {
                    assert!(outcome.is_ok(), "at step {since}");
                    // The one in the lane, their own, and one of each of the others at most.
                    assert!(step - *since <= 5, "{} steps", step - *since);
                    served += 1;
                }
                false
            }
        });
    }
    let waiting = calls.iter().filter(|(host, ..)| *host != b'a').count();
    assert_eq!(served + waiting, offered);
    assert!(flood_served + served >= steps - 3, "{flood_served} and {served} of {steps}");
}
