//! Several hashes in flight on one thread.

use super::*;

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
    assert_eq!(hasher.counters().hashes.get(), 20);
}

#[tokio::test]
async fn a_job_whose_caller_leaves_is_abandoned_in_its_lane() {
    let hasher = two_lanes();
    let dear_password = password("dear");
    let mut dear = Box::pin(hash_on(&hasher, &dear_password, &ANY));
    assert!(poll(&mut dear).is_pending());
    eventually(&hasher, |statistics| statistics.lanes_in_use == 1);
    drop(dear);
    eventually(&hasher, |_| hasher.counters().abandoned.get() == 1);
    assert_eq!((hasher.statistics().lanes_in_use, hasher.counters().hashes.get()), (0, 0));
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
