//! The hasher with an engine that tells what it is asked for and waits to be let on.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::engine::Computation;
use super::*;
use crate::crypto::scheme::Digest;
use crate::domain::PasswordScheme;

/// What the engine was asked for: the first byte of the key, and the cost.
type Seen = (u8, u32);

struct Probe {
    seen: Sender<Seen>,
    permits: Receiver<()>,
}

impl Engine for Probe {
    fn compute(&mut self, computation: &Computation) -> Digest {
        let first = computation.key.as_bytes()[0];
        let _ = self.seen.send((first, computation.cost.get()));
        // Without a test that gives permits any more, none is needed.
        let _ = self.permits.recv();
        assert_ne!(first, b'!', "the engine was asked to panic");
        BcryptCrate.compute(computation)
    }
}

struct Bench {
    hasher: Hasher,
    seen: Receiver<Seen>,
    permits: Sender<()>,
}

impl Bench {
    /// One thread that has done its first measurement; every other computation needs a permit.
    fn new(queue_capacity: usize, cost: u32) -> Self {
        let ((seen_by, seen), (permits, permits_of)) = (channel(), channel());
        let probe = Mutex::new(Some(Probe { seen: seen_by, permits: permits_of }));
        let settings =
            HasherSettings { threads: NonZeroUsize::MIN, queue_capacity, cost: Cost::new(cost).unwrap() };
        let hasher = Hasher::start_with(settings, || {
            probe.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap()
        })
        .unwrap();
        let bench = Self { hasher, seen, permits };
        assert_eq!(bench.next_seen(), (b'd', 4));
        bench.permit(1);
        bench
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

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn poll<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The hash of `text` at cost 4, or with the cost written over.
async fn stored(text: &str, scheme: PasswordScheme) -> PasswordHash {
    let threads = NonZeroUsize::MIN;
    let hasher = Hasher::start(HasherSettings { threads, queue_capacity: 1, cost: Cost::MIN }).unwrap();
    PasswordHash { scheme, ..hasher.hash(&password(text), None).await.unwrap() }
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
        let hash = bench.hasher.hash(&password(&text), None).await.unwrap();
        let prefix =
            if scheme == PasswordScheme::Bcrypt { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
        assert_eq!((hash.scheme, hash.text.starts_with(prefix)), (scheme, true), "{text:?}");
        let again = bench.hasher.hash(&password(&text), None).await.unwrap();
        assert_ne!(again, hash, "every hash has a salt of its own");
        let verdict = bench.hasher.verify(&password(&text), Some(&hash), None).await;
        assert_eq!(verdict, Ok(Verdict::Match { outdated: false }), "{text:?}");
        let verdict = bench.hasher.verify(&password(&text[..1]), Some(&hash), None).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch), "{text:?}");
    }
}

#[tokio::test]
async fn nobody_costs_one_hash_at_the_configured_cost() {
    let bench = Bench::new(1, 6);
    bench.permit(1);
    assert_eq!(bench.hasher.verify(&password("pw"), None, None).await, Ok(Verdict::Mismatch));
    assert_eq!(bench.all_seen(), [(b'd', 6)]);
}

#[tokio::test]
async fn a_failed_check_of_a_cheap_hash_is_topped_up_and_a_match_is_not() {
    let (bench, hash) = (Bench::new(1, 7), stored("pw", PasswordScheme::Bcrypt).await);
    bench.permit(100);
    assert_eq!(bench.hasher.verify(&password("no"), Some(&hash), None).await, Ok(Verdict::Mismatch));
    let seen = bench.all_seen();
    assert_eq!(seen, [(b'n', 4), (b'd', 6), (b'd', 5), (b'd', 4)]);
    assert_eq!(seen.iter().map(|(_, cost)| 1 << cost).sum::<u32>(), 1 << 7);

    let verdict = bench.hasher.verify(&password("pw"), Some(&hash), None).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!(bench.all_seen(), [(b'p', 4)]);
}

#[tokio::test]
async fn what_the_scheme_would_have_cut_off_never_matches_and_costs_the_same() {
    let text = "x".repeat(72);
    let (bench, hash) = (Bench::new(1, 5), stored(&text, PasswordScheme::Bcrypt).await);
    bench.permit(100);
    for longer in [format!("{text}y"), "x\0x".to_owned()] {
        let verdict = bench.hasher.verify(&password(&longer), Some(&hash), None).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch));
        assert_eq!(bench.all_seen(), [(b'x', 4), (b'd', 4)]);
    }
    let truncated = PasswordHash { scheme: PasswordScheme::BcryptTruncated, ..hash };
    let verdict = bench.hasher.verify(&password(&format!("{text}y")), Some(&truncated), None).await;
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
        let verdict = bench.hasher.verify(&password("pw"), Some(&hash), None).await;
        assert_eq!(verdict, Err(HashError::Unreadable), "{}", hash.text);
    }
    assert_eq!(bench.all_seen(), []);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_serves_the_rest_in_order() {
    let bench = Bench::new(2, 4);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(password);
    let mut first = Box::pin(bench.hasher.hash(&a, None));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(bench.hasher.hash(&b, None));
    let mut third = Box::pin(bench.hasher.hash(&c, None));
    assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
    let Err(HashError::Overloaded { retry_after }) = bench.hasher.hash(&d, None).await else {
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
    let mut first = Box::pin(bench.hasher.hash(&a, None));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(bench.hasher.hash(&b, None));
    assert!(poll(&mut second).is_pending());
    drop(second);
    let mut third = Box::pin(bench.hasher.verify(&c, None, None));
    assert!(poll(&mut third).is_pending(), "the place of the one who left is free");
    drop(third);
    bench.permit(2);
    assert!(first.await.is_ok());
    assert!(bench.hasher.hash(&d, None).await.is_ok());
    assert_eq!(bench.all_seen(), [(b'd', 4)]);
}

#[tokio::test]
async fn what_cannot_be_done_by_the_deadline_is_refused_without_being_tried() {
    let bench = Bench::new(100, 16);
    bench.permit(1);
    let cheap = stored("pw", PasswordScheme::Bcrypt).await;
    let verdict = bench.hasher.verify(&password("pw"), Some(&cheap), None).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!(bench.all_seen(), [(b'p', 4)]);

    // Cost 16 takes seconds, as the computation at cost 4 has let be known.
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let refused = bench.hasher.hash(&password("pw"), deadline).await;
    assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");
    assert_eq!(bench.all_seen(), []);
}

#[tokio::test]
async fn a_rehash_waits_until_nothing_else_does() {
    let bench = Bench::new(10, 4);
    let [a, r, b, c] = ["a", "r", "b", "c"].map(password);
    let mut first = Box::pin(bench.hasher.hash(&a, None));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut rehash = Box::pin(bench.hasher.rehash(&r));
    let mut second = Box::pin(bench.hasher.hash(&b, None));
    let mut third = Box::pin(bench.hasher.hash(&c, None));
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
    let failed = bench.hasher.hash(&password("!"), None).await;
    assert_eq!(failed, Err(HashError::Stopped));
    assert!(bench.hasher.hash(&password("a"), None).await.is_ok());
    assert_eq!(bench.all_seen(), [(b'!', 4), (b'a', 4)]);
}

#[tokio::test]
async fn a_stopped_hasher_answers_those_who_wait_and_those_who_come() {
    let bench = Bench::new(10, 4);
    let [a, b] = ["a", "b"].map(password);
    let mut first = Box::pin(bench.hasher.hash(&a, None));
    assert!(poll(&mut first).is_pending());
    assert_eq!(bench.next_seen(), (b'a', 4));
    let mut second = Box::pin(bench.hasher.hash(&b, None));
    assert!(poll(&mut second).is_pending());
    bench.hasher.stop();
    assert_eq!(second.await, Err(HashError::Stopped));
    assert_eq!(bench.hasher.rehash(&b).await, Err(HashError::Stopped));
    bench.permit(1);
    assert!(first.await.is_ok(), "what was being computed is finished");
}

#[test]
fn the_threads_end_with_the_last_handle() {
    let Bench { hasher, seen, permits: _permits } = Bench::new(1, 4);
    drop(hasher.clone());
    assert_eq!(seen.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    drop(hasher);
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
}

#[test]
#[cfg(target_os = "linux")]
fn the_threads_are_named_and_have_the_lowest_priority() {
    struct Look(Sender<(Option<String>, String)>);

    impl Engine for Look {
        fn compute(&mut self, computation: &Computation) -> Digest {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 19th field of proc(5), counted from behind the name in parentheses, the 2nd.
            let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap();
            let _ = self.0.send((std::thread::current().name().map(str::to_owned), nice.to_owned()));
            BcryptCrate.compute(computation)
        }
    }

    let (send, seen) = channel();
    let threads = NonZeroUsize::new(2).unwrap();
    let settings = HasherSettings { threads, queue_capacity: 1, cost: Cost::MIN };
    let _hasher = Hasher::start_with(settings, || Look(send.clone())).unwrap();
    let mut looks: Vec<_> = seen.iter().take(2).map(|(name, nice)| (name.unwrap(), nice)).collect();
    looks.sort();
    assert_eq!(looks, [("hash-0", "19"), ("hash-1", "19")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}
