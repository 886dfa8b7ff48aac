//! The hasher with an engine that tells what it is asked for and waits to be let on, and with the
//! real one where it matters that many are in flight.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bcrypt_lanes::{Job, Outcome};

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
async fn a_password_that_bcrypt_would_not_see_whole_is_digested_first() {
    let bench = Bench::new(1, 4);
    bench.permit(100);
    for (text, scheme) in [
        ("x".repeat(72), PasswordScheme::Bcrypt),
        ("x".repeat(73), PasswordScheme::BcryptSha256),
        ("x".repeat(1024), PasswordScheme::BcryptSha256),
        ("a\0a".to_owned(), PasswordScheme::BcryptSha256),
    ] {
        let hash = hash_on(&bench.hasher, &password(&text), &ANY).await.unwrap();
        let prefix =
            if scheme == PasswordScheme::Bcrypt { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
        assert_eq!((hash.scheme, hash.text.starts_with(prefix)), (scheme, true), "{text:?}");
        let again = hash_on(&bench.hasher, &password(&text), &ANY).await.unwrap();
        assert_ne!(again, hash, "every hash has a salt of its own");
        let verdict = verify_on(&bench.hasher, &password(&text), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Match { outdated: false }), "{text:?}");
        let verdict = verify_on(&bench.hasher, &password(&text[..1]), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch), "{text:?}");
    }
}

#[tokio::test]
async fn nobody_costs_one_hash_at_the_configured_cost() {
    let bench = Bench::new(1, 6);
    bench.permit(1);
    assert_eq!(verify_on(&bench.hasher, &password("pw"), None, &ANY).await, Ok(Verdict::Mismatch));
    assert_eq!(bench.all_seen(), [(b'd', 6)]);
}

#[tokio::test]
async fn a_failed_check_of_a_cheap_hash_is_topped_up_and_a_match_is_not() {
    let (bench, hash) = (Bench::new(1, 7), stored("pw", PasswordScheme::Bcrypt).await);
    bench.permit(100);
    let work = |exponent| bcrypt_lanes::Cost::new(exponent).unwrap().expansions();
    assert_eq!(verify_on(&bench.hasher, &password("no"), Some(&hash), &ANY).await, Ok(Verdict::Mismatch));
    assert_eq!((bench.all_seen(), bench.worked.recv()), (vec![(b'n', 4)], Ok(work(7))));

    let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!((bench.all_seen(), bench.worked.recv()), (vec![(b'p', 4)], Ok(work(4))));
}

#[tokio::test]
async fn every_refusal_costs_as_much_as_one_of_the_dearest_stored_hash() {
    let (bench, cheap) = (Bench::new(1, 5), stored("pw", PasswordScheme::Bcrypt).await);
    let dear = PasswordHash { text: cheap.text.replace("$04$", "$06$"), ..cheap.clone() };
    bench.permit(100);
    let work = |exponent| bcrypt_lanes::Cost::new(exponent).unwrap().expansions();
    for (dearest, floor) in [(4, 5), (6, 6), (7, 7), (16, 7), (5, 5)] {
        bench.hasher.set_floor(Cost::new(dearest).unwrap());
        assert_eq!(bench.hasher.floor().get(), floor);
        for stored in [None, Some(&cheap), Some(&dear)] {
            let verdict = verify_on(&bench.hasher, &password("no"), stored, &ANY).await;
            assert_eq!(verdict, Ok(Verdict::Mismatch));
            let least = if stored == Some(&dear) { floor.max(6) } else { floor };
            assert_eq!(bench.worked.recv(), Ok(work(least)), "{dearest}");
        }
    }
    // New hashes and right passwords cost what they cost before.
    bench.hasher.set_floor(Cost::new(7).unwrap());
    let hash = hash_on(&bench.hasher, &password("pw"), &ANY).await.unwrap();
    assert_eq!((hash.text.starts_with("$2b$05$"), bench.worked.recv()), (true, Ok(work(5))));
    let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
    assert_eq!((verdict, bench.worked.recv()), (Ok(Verdict::Match { outdated: false }), Ok(work(5))));
}

#[tokio::test]
async fn what_the_scheme_would_have_cut_off_never_matches_and_costs_the_same() {
    let text = "x".repeat(72);
    let (bench, hash) = (Bench::new(1, 5), stored(&text, PasswordScheme::Bcrypt).await);
    bench.permit(100);
    for longer in [format!("{text}y"), "x\0x".to_owned()] {
        let verdict = verify_on(&bench.hasher, &password(&longer), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch));
        assert_eq!(bench.all_seen(), [(b'x', 4)]);
        assert_eq!(bench.worked.recv(), Ok(bcrypt_lanes::Cost::new(5).unwrap().expansions()));
    }
    let truncated = PasswordHash { scheme: PasswordScheme::BcryptTruncated, ..hash };
    let verdict = verify_on(&bench.hasher, &password(&format!("{text}y")), Some(&truncated), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
}

#[tokio::test]
async fn a_stored_hash_that_makes_no_sense_is_unreadable_at_once() {
    let bench = Bench::new(1, 4);
    let good = stored("pw", PasswordScheme::Bcrypt).await.text;
    let digested = stored(&"x".repeat(73), PasswordScheme::BcryptSha256).await.text;
    for (scheme, text) in [
        (PasswordScheme::Bcrypt, String::new()),
        (PasswordScheme::Bcrypt, "password".to_owned()),
        (PasswordScheme::Bcrypt, good.replace("$2b$", "$2x$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$03$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$17$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$31$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$+4$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$4$")),
        (PasswordScheme::Bcrypt, format!("{good}x")),
        (PasswordScheme::Bcrypt, format!("{good}$")),
        (PasswordScheme::Bcrypt, good[..59].to_owned()),
        (PasswordScheme::Bcrypt, format!("{}\u{e9}", &good[..58])),
        (PasswordScheme::Bcrypt, format!("{}!", &good[..59])),
        (PasswordScheme::Bcrypt, digested.clone()),
        (PasswordScheme::BcryptTruncated, digested.clone()),
        (PasswordScheme::BcryptSha256, good.clone()),
        (PasswordScheme::BcryptSha256, digested.replace("r=4", "r=17")),
        (PasswordScheme::BcryptSha256, digested.replace("r=4", "r=")),
        (PasswordScheme::BcryptSha256, digested.replace("v=2", "v=1")),
        (PasswordScheme::BcryptSha256, format!("{digested}$")),
    ] {
        let hash = PasswordHash { scheme, text };
        let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
        assert_eq!(verdict, Err(HashError::Unreadable), "{}", hash.text);
    }
    assert_eq!(bench.all_seen(), []);
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

/// One thread with two real lanes.
fn two_lanes() -> Hasher {
    let lanes = Some(Width::new(2).unwrap());
    let max_wait = Duration::from_secs(600);
    Hasher::start(HasherSettings { lanes, max_wait, ..HasherSettings::new(Cost::new(DEAR).unwrap()) })
        .unwrap()
}

#[tokio::test]
async fn a_job_joins_and_leaves_while_another_is_in_flight() {
    let (hasher, hash) = (two_lanes(), stored("pw", PasswordScheme::Bcrypt).await);
    let dear_password = password("dear");
    let mut dear = Box::pin(hash_on(&hasher, &dear_password, &ANY));
    assert!(poll(&mut dear).is_pending());
    eventually(&hasher, |statistics| statistics.lanes_in_use == 1);
    for _ in 0..20 {
        let verdict = verify_on(&hasher, &password("pw"), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    }
    assert!(poll(&mut dear).is_pending());
    assert_eq!(hasher.statistics().hashes, 20);
}

#[tokio::test]
async fn a_job_whose_caller_leaves_is_abandoned_in_its_lane() {
    let hasher = two_lanes();
    let dear_password = password("dear");
    let mut dear = Box::pin(hash_on(&hasher, &dear_password, &ANY));
    assert!(poll(&mut dear).is_pending());
    eventually(&hasher, |statistics| statistics.lanes_in_use == 1);
    drop(dear);
    eventually(&hasher, |statistics| statistics.abandoned == 1);
    let statistics = hasher.statistics();
    assert_eq!((statistics.lanes_in_use, statistics.hashes), (0, 0));
}

#[tokio::test]
async fn a_rehash_leaves_a_lane_to_those_who_wait() {
    let (hasher, hash) = (two_lanes(), stored("pw", PasswordScheme::Bcrypt).await);
    let rehashed = password("old");
    let mut rehashes = [(); 2].map(|()| Box::pin(hasher.rehash(&rehashed)));
    assert!(rehashes.iter_mut().all(|rehash| poll(rehash).is_pending()));
    eventually(&hasher, |statistics| statistics.lanes_in_use == 1);
    let verdict = verify_on(&hasher, &password("pw"), Some(&hash), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!(hasher.statistics().rehashes_waiting, 1);
}

#[tokio::test]
async fn a_thread_that_pauses_gets_its_work_done() {
    let settings = HasherSettings { duty: Duty::Half, ..HasherSettings::new(Cost::MIN) };
    let hasher = Hasher::start(settings).unwrap();
    assert!(hash_on(&hasher, &password("pw"), &ANY).await.is_ok());
}

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
    assert_eq!(bench.hasher.statistics().refused, Refusals { full: 1, share: 1, deadline: 0 });
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
