//! The hasher with an engine that tells what it is asked for and waits to be let on, and with the
//! real one where it matters that many are in flight.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bcrypt_lanes::{Job, Outcome};

mod checks;
mod lanes;
mod slots;

use super::*;
use crate::domain::{Party, PasswordScheme, Source};

/// What the engine was asked for: the first byte of the key, and the cost.
type Seen = (u8, u32);

/// One that waits for a permit before each job, and tells what it was asked for and how much work that was.
struct Probe {
    seen: Sender<Seen>,
    worked: Sender<u64>,
    permits: Receiver<()>,
}

impl Probe {
    fn compute(&mut self, job: &Job) -> (Outcome, u64) {
        let first = job.key.to_bytes()[0];
        let _ = self.seen.send((first, job.cost.get()));
        // Without a test that gives permits any more, none is needed.
        let _ = self.permits.recv();
        assert_ne!(first, b'!', "the engine was asked to panic");
        let (outcome, expansions) = engine::bcrypt_crate(job);
        let _ = self.worked.send(expansions);
        (outcome, expansions)
    }
}

struct Bench {
    hasher: Hasher,
    seen: Receiver<Seen>,
    worked: Receiver<u64>,
    permits: Sender<()>,
}

impl Bench {
    /// One thread whose every job needs a permit.
    fn new(queue_capacity: usize, cost: u32) -> Self {
        let ((seen_by, seen), (worked_by, worked), (permits, permits_of)) = (channel(), channel(), channel());
        let probe = Probe { seen: seen_by, worked: worked_by, permits: permits_of };
        let probe = Mutex::new(Some(probe));
        let settings = HasherSettings { queue_capacity, ..HasherSettings::new(Cost::new(cost).unwrap()) };
        let hasher = Hasher::start_with(settings, engine::measure_bcrypt_crate(), || {
            let mut probe = probe.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
            Serial::new(move |job: &Job| probe.compute(job))
        })
        .unwrap();
        Self { hasher, seen, worked, permits }
    }

    fn permit(&self, count: usize) {
        for _ in 0..count {
            self.permits.send(()).unwrap();
        }
    }

    fn next_seen(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(20)).expect("the engine is asked for something")
    }

    fn all_seen(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

/// No deadline, and all from one party.
const ANY: Terms = Terms::SYSTEM;

async fn hash_on(hasher: &Hasher, password: &Password, terms: &Terms) -> Result<PasswordHash, HashError> {
    hasher.reserve(terms)?.hash(password).await
}

async fn verify_on(
    hasher: &Hasher,
    password: &Password,
    stored: Option<&PasswordHash>,
    terms: &Terms,
) -> Result<Verdict, HashError> {
    hasher.reserve(terms)?.verify(password, stored).await
}

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn poll<T>(future: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// How many calls got no hash, by the reason.
fn refusals(hasher: &Hasher) -> Vec<(&'static str, u64)> {
    hasher.counters().refused.read().collect()
}

/// Waits until the statistics satisfy `condition`.
fn eventually(hasher: &Hasher, condition: impl Fn(&HasherStatistics) -> bool) {
    let began = Instant::now();
    while !condition(&hasher.statistics()) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", hasher.statistics());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The hash of `text` at cost 4, or with the cost written over.
async fn stored(text: &str, scheme: PasswordScheme) -> PasswordHash {
    let hasher = Hasher::start(HasherSettings::new(Cost::MIN)).unwrap();
    PasswordHash { scheme, ..hash_on(&hasher, &password(text), &ANY).await.unwrap() }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_serves_the_rest_in_order() {
    let bench = Bench::new(2, 4);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(password);
    let mut first = Box::pin(hash_on(&bench.hasher, &a, &ANY));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(hash_on(&bench.hasher, &b, &ANY));
    let mut third = Box::pin(hash_on(&bench.hasher, &c, &ANY));
    assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
    let Err(HashError::Overloaded { retry_after }) = hash_on(&bench.hasher, &d, &ANY).await else {
        panic!("the queue has no room for a fourth");
    };
    assert!((Duration::from_millis(100)..=Duration::from_secs(30)).contains(&retry_after));

    bench.permit(3);
    assert!(first.await.is_ok() && second.await.is_ok() && third.await.is_ok());
    assert_eq!(bench.all_seen(), [(b'b', 4), (b'c', 4)]);
}

#[tokio::test]
async fn the_job_of_a_caller_who_left_is_skipped_and_makes_room() {
    let bench = Bench::new(1, 4);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(password);
    let mut first = Box::pin(hash_on(&bench.hasher, &a, &ANY));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(hash_on(&bench.hasher, &b, &ANY));
    assert!(poll(&mut second).is_pending());
    drop(second);
    let mut third = Box::pin(verify_on(&bench.hasher, &c, None, &ANY));
    assert!(poll(&mut third).is_pending(), "the place of the one who left is free");
    drop(third);
    bench.permit(2);
    assert!(first.await.is_ok());
    assert!(hash_on(&bench.hasher, &d, &ANY).await.is_ok());
    assert_eq!(bench.all_seen(), [(b'd', 4)]);
}

#[tokio::test]
async fn what_cannot_be_done_by_the_deadline_is_refused_without_being_tried() {
    let bench = Bench::new(100, 16);
    bench.permit(1);
    let cheap = stored("pw", PasswordScheme::Bcrypt).await;
    let verdict = verify_on(&bench.hasher, &password("pw"), Some(&cheap), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!(bench.all_seen(), [(b'p', 4)]);

    // Cost 16 takes seconds, as the computation at cost 4 has let be known.
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let refused = hash_on(&bench.hasher, &password("pw"), &Terms { deadline, ..ANY }).await;
    assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");
    assert_eq!(bench.all_seen(), []);
}

#[tokio::test]
async fn a_rehash_waits_until_nothing_else_does() {
    let bench = Bench::new(10, 4);
    let [a, r, b, c] = ["a", "r", "b", "c"].map(password);
    let mut first = Box::pin(hash_on(&bench.hasher, &a, &ANY));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut rehash = Box::pin(bench.hasher.rehash(&r));
    let mut second = Box::pin(hash_on(&bench.hasher, &b, &ANY));
    let mut third = Box::pin(hash_on(&bench.hasher, &c, &ANY));
    assert!(poll(&mut rehash).is_pending());
    assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
    bench.permit(4);
    assert!(first.await.is_ok() && rehash.await.is_ok());
    assert_eq!(bench.all_seen(), [(b'b', 4), (b'c', 4), (b'r', 4)]);
}

#[tokio::test]
async fn a_panic_ends_its_job_and_nothing_else() {
    let bench = Bench::new(10, 4);
    bench.permit(2);
    let failed = hash_on(&bench.hasher, &password("!"), &ANY).await;
    assert_eq!(failed, Err(HashError::Stopped));
    assert!(hash_on(&bench.hasher, &password("a"), &ANY).await.is_ok());
    assert_eq!(bench.all_seen(), [(b'!', 4), (b'a', 4)]);
}

#[tokio::test]
async fn a_stopped_hasher_answers_those_who_wait_and_those_who_come() {
    let bench = Bench::new(10, 4);
    let [a, b] = ["a", "b"].map(password);
    let mut first = Box::pin(hash_on(&bench.hasher, &a, &ANY));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(hash_on(&bench.hasher, &b, &ANY));
    assert!(poll(&mut second).is_pending());
    bench.hasher.stop();
    assert_eq!(second.await, Err(HashError::Stopped));
    assert_eq!(bench.hasher.rehash(&b).await, Err(HashError::Stopped));
    bench.permit(1);
    assert!(first.await.is_ok(), "what was being computed is finished");
}

#[test]
fn the_threads_end_with_the_last_handle() {
    let Bench { hasher, seen, permits: _permits, worked: _worked } = Bench::new(1, 4);
    drop(hasher.clone());
    assert_eq!(seen.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    drop(hasher);
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
}

#[test]
#[cfg(target_os = "linux")]
fn the_threads_are_named_and_give_way() {
    let (send, seen) = channel();
    let settings =
        HasherSettings { threads: NonZeroUsize::new(2).unwrap(), ..HasherSettings::new(Cost::MIN) };
    let look = || {
        let send = send.clone();
        Serial::new(move |job: &Job| {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 41st field of proc(5), counted from behind the name in parentheses, the 2nd.
            let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap();
            let _ = send.send((std::thread::current().name().map(str::to_owned), policy.to_owned()));
            engine::bcrypt_crate(job)
        })
    };
    let hasher = Hasher::start_with(settings, engine::measure_bcrypt_crate(), look).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let password = password("pw");
    let looks: std::collections::BTreeSet<_> = std::iter::repeat_with(|| {
        let both =
            async { tokio::join!(hash_on(&hasher, &password, &ANY), hash_on(&hasher, &password, &ANY)) };
        assert!(matches!(runtime.block_on(both), (Ok(_), Ok(_))));
        seen.try_iter().collect::<Vec<_>>()
    })
    .take(50)
    .flatten()
    .collect();
    // SCHED_IDLE.
    let expected = ["hash-0", "hash-1"].map(|name| (Some(name.to_owned()), "5".to_owned()));
    assert_eq!(looks.into_iter().collect::<Vec<_>>(), expected);
}

/// Takes ten seconds and more on any machine, if nobody abandons it.
const DEAR: u32 = 16;

/// Terms of a caller at 192.0.2.`host`.
fn from(host: u8) -> Terms {
    let source = Source::of(Some(std::net::IpAddr::from([192, 0, 2, host])));
    Terms { deadline: None, party: Party::Address(source) }
}

#[tokio::test]
async fn one_source_may_fill_the_queue_and_makes_room_for_another() {
    let bench = Bench::new(4, 4);
    let [a, b] = ["a", "b"].map(password);
    let (flood, other) = (from(1), from(2));
    let mut first = Box::pin(hash_on(&bench.hasher, &a, &flood));
    assert!(poll(&mut first).is_pending());
    bench.next_seen();
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(hash_on(&bench.hasher, &a, &flood))).collect();
    assert!(waiting.iter_mut().all(|job| poll(job).is_pending()));
    let refused = hash_on(&bench.hasher, &a, &flood).await;
    assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");

    let mut newcomer = Box::pin(hash_on(&bench.hasher, &b, &other));
    assert!(poll(&mut newcomer).is_pending());
    let displaced = waiting.pop().unwrap().await;
    assert!(matches!(displaced, Err(HashError::Overloaded { .. })), "{displaced:?}");
    bench.permit(5);
    assert!(newcomer.await.is_ok());
    for job in waiting {
        assert!(job.await.is_ok());
    }
    let order: Vec<_> = bench.all_seen().into_iter().map(|(first, _)| first).collect();
    assert_eq!(order, [b'b', b'a', b'a', b'a']);
    assert_eq!(refusals(&bench.hasher), [("full", 1), ("share", 1), ("deadline", 0)]);
}

#[tokio::test]
async fn a_caller_without_a_deadline_waits_no_longer_than_the_ceiling() {
    let settings = HasherSettings {
        max_wait: Duration::from_millis(100),
        ..HasherSettings::new(Cost::new(DEAR).unwrap())
    };
    let hasher = Hasher::start(settings).unwrap();
    let refused = hash_on(&hasher, &password("pw"), &ANY).await;
    assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");
    eventually(&hasher, |statistics| statistics.lanes_in_use == 0);
    let patient = Terms { deadline: Some(Instant::now() + Duration::from_secs(3600)), ..ANY };
    let pw = password("pw");
    let mut admitted = Box::pin(hash_on(&hasher, &pw, &patient));
    assert!(poll(&mut admitted).is_pending());
}
