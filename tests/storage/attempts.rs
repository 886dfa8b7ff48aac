//! What counts towards limits: kept, locked, and forgotten in time.

use identity::domain::{Attempts, Timestamp};
use identity::storage;
use identity::storage::attempts::{AttemptKey, Tried};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, at};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    what_was_tried_is_found_as_it_was_written,
    of_many_at_once_each_sees_what_the_others_wrote,
    a_row_that_is_deleted_while_others_wait_for_it_is_made_anew,
    what_is_known_is_not_overwritten,
    only_so_many_sources_stay_known,
    what_has_expired_is_deleted_in_batches,
);

fn key(subject: u8, source: u8) -> AttemptKey {
    AttemptKey { subject: [subject; 32], source: [source; 32] }
}

fn tried(counted: &[i64], pending: &[i64], known_until: Option<i64>) -> Tried {
    let times = |seconds: &[i64]| seconds.iter().map(|second| at(*second)).collect();
    Tried {
        attempts: Attempts { counted: times(counted), pending: times(pending) },
        known_until: known_until.map(at),
    }
}

async fn write(fixture: &Fixture, key: AttemptKey, tried: &Tried, expires_at: Timestamp) {
    let mut tx = fixture.begin().await;
    storage::attempts::lock(&mut tx, key, at(0)).await.unwrap();
    storage::attempts::update(&mut tx, key, tried, expires_at).await.unwrap();
    tx.commit().await.unwrap();
}

async fn read(fixture: &Fixture, key: AttemptKey) -> Option<Tried> {
    let mut conn = fixture.storage.read().await.unwrap();
    storage::attempts::find(&mut conn, key).await.unwrap()
}

async fn what_was_tried_is_found_as_it_was_written(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let written = tried(&[3, -2], &[1, 1], Some(9));
    write(&fixture, key(1, 1), &written, at(9)).await;
    assert_eq!(read(&fixture, key(1, 1)).await, Some(written.clone()));
    assert_eq!((read(&fixture, key(1, 2)).await, read(&fixture, key(2, 1)).await), (None, None));
    let mut tx = fixture.begin().await;
    assert_eq!(storage::attempts::lock(&mut tx, key(1, 1), at(0)).await.unwrap(), written);
    storage::attempts::delete(&mut tx, key(1, 1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(read(&fixture, key(1, 1)).await, None);
}

async fn of_many_at_once_each_sees_what_the_others_wrote(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut writers = JoinSet::new();
    for n in 0..40 {
        let storage = fixture.storage.clone();
        writers.spawn(async move {
            let mut tx = storage.begin("try").await.unwrap();
            let mut tried = storage::attempts::lock(&mut tx, key(1, 1), at(0)).await.unwrap();
            tried.attempts.counted.push(at(n));
            storage::attempts::update(&mut tx, key(1, 1), &tried, at(900)).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    let mut counted = read(&fixture, key(1, 1)).await.unwrap().attempts.counted;
    counted.sort();
    assert_eq!(counted, (0..40).map(at).collect::<Vec<_>>());
}

async fn a_row_that_is_deleted_while_others_wait_for_it_is_made_anew(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut writers = JoinSet::new();
    for n in 0..40 {
        let storage = fixture.storage.clone();
        writers.spawn(async move {
            let mut tx = storage.begin("try").await.unwrap();
            let mut tried = storage::attempts::lock(&mut tx, key(1, 1), at(0)).await.unwrap();
            if n % 2 == 0 {
                tried.attempts.counted.push(at(n));
                storage::attempts::update(&mut tx, key(1, 1), &tried, at(900)).await.unwrap();
            } else {
                storage::attempts::delete(&mut tx, key(1, 1)).await.unwrap();
            }
            tx.commit().await.unwrap();
        });
    }
    writers.join_all().await;
}

async fn what_is_known_is_not_overwritten(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    write(&fixture, key(1, 1), &tried(&[1], &[], None), at(900)).await;
    let mut tx = fixture.begin().await;
    for source in [1, 2] {
        storage::attempts::insert_known(&mut tx, key(1, source), at(7)).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(read(&fixture, key(1, 1)).await, Some(tried(&[1], &[], None)));
    assert_eq!(read(&fixture, key(1, 2)).await, Some(tried(&[], &[], Some(7))));
}

async fn only_so_many_sources_stay_known(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for n in 1..=5 {
        write(&fixture, key(1, n), &tried(&[i64::from(n)], &[], Some(100 + i64::from(n))), at(999)).await;
    }
    write(&fixture, key(1, 6), &tried(&[6], &[], None), at(999)).await;
    write(&fixture, key(2, 1), &tried(&[7], &[], Some(1)), at(999)).await;
    let mut tx = fixture.begin().await;
    storage::attempts::update_surplus_unknown(&mut tx, [1; 32], 3, at(50)).await.unwrap();
    tx.commit().await.unwrap();
    let mut known = Vec::new();
    for n in 1..=6 {
        let tried = read(&fixture, key(1, n)).await.unwrap();
        // What they tried is remembered all the same.
        assert_eq!(tried.attempts.counted, [at(n.into())]);
        known.push(tried.known_until.is_some());
    }
    assert_eq!(known, [false, false, true, true, true, false]);
    assert!(read(&fixture, key(2, 1)).await.unwrap().known_until.is_some());
}

async fn what_has_expired_is_deleted_in_batches(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for n in 1..=5 {
        write(&fixture, key(1, n), &tried(&[0], &[], None), at(n.into())).await;
    }
    let mut deleted = Vec::new();
    for _ in 0..3 {
        let mut tx = fixture.begin().await;
        deleted.push(storage::attempts::delete_expired(&mut tx, at(4), 3).await.unwrap());
        tx.commit().await.unwrap();
    }
    assert_eq!(deleted, [3, 1, 0]);
    assert!(read(&fixture, key(1, 5)).await.is_some());
}
