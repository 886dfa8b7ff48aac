//! Large headers: they cost their own call, and no other on the same connection.

use std::time::Duration;

use identity::budget::Rate;
use identity::server::budgets::{BudgetSettings, Exhausted};
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::raw::{RawClient, Reply};
use crate::server::{Event, Limits, Server};

/// `count` headers of `size` bytes each.
async fn call_with(client: &mut RawClient, user_id: &str, count: usize, size: usize) -> Reply {
    const NAMES: [&str; 12] =
        ["x-0", "x-1", "x-2", "x-3", "x-4", "x-5", "x-6", "x-7", "x-8", "x-9", "x-10", "x-11"];
    let value = "v".repeat(size);
    let headers: Vec<_> = NAMES[..count].iter().map(|name| (*name, value.as_str())).collect();
    client.get_user(user_id, &headers).await
}

#[tokio::test]
async fn a_call_with_large_headers_is_refused_and_others_on_its_connection_are_not() {
    let mut server = Server::start();
    let mut client = RawClient::connect(server.addr).await;
    let mut other = client.clone();
    let other = tokio::spawn(async move { other.get_user("wait", &[]).await });
    assert_eq!(server.events.recv().await, Some(Event::Entered));

    let fits = call_with(&mut client, "", 2, 7_500).await;
    assert_eq!(fits.status().code(), Code::Ok);
    for (count, size) in [(3, 5_500), (10, 5_500), (11, 5_900)] {
        let reply = call_with(&mut client, "", count, size).await;
        let too_large = (Code::ResourceExhausted, "HEADERS_TOO_LARGE".to_owned());
        assert_eq!(reply.refusal(), too_large, "{count} of {size}");
        assert!(reply.status().get_details_retry_info().is_none());
        assert!(!reply.request_id().is_empty());
    }
    server.gate.add_permits(1);
    assert_eq!(other.await.unwrap().status().code(), Code::Ok);
    assert_eq!(server.budgets.refused(Exhausted::Headers), 3);
}

#[tokio::test]
async fn refusals_come_late_once_there_were_too_many_and_good_calls_do_not() {
    let refusals = Rate { burst: 20, per_second: 10 };
    let server = Server::limited(Limits {
        budgets: BudgetSettings { refusals, ..Default::default() },
        ..Limits::default()
    });
    let mut client = RawClient::connect(server.addr).await;
    let refuse = async |client: &mut RawClient| {
        let reply = call_with(client, "", 3, 5_500).await;
        assert_eq!(reply.refusal(), (Code::ResourceExhausted, "HEADERS_TOO_LARGE".to_owned()));
    };
    let began = Instant::now();
    for _ in 0..35 {
        refuse(&mut client).await;
    }
    // One at once, a burst, and those that came back meanwhile.
    assert!(began.elapsed() >= Duration::from_millis(1_300), "{:?}", began.elapsed());
    let held_back = server.budgets.held_back();
    assert!((1..=14).contains(&held_back), "{held_back}");

    let mut late = client.clone();
    let late = tokio::spawn(async move { call_with(&mut late, "", 3, 5_500).await });
    while server.budgets.held_back() == held_back {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get_user("", &[]).await.status().code(), Code::Ok);
    assert!(!late.is_finished(), "a good call does not wait for a refusal");
    assert_eq!(late.await.unwrap().status().code(), Code::ResourceExhausted);
    // The stream ends a moment after its reply.
    while server.budgets.call_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn headers_of_calls_in_flight_are_held_within_a_budget() {
    let budgets =
        BudgetSettings { call_bytes: 400_000, call_bytes_per_connection: 100_000, ..Default::default() };
    let mut server = Server::limited(Limits { budgets, ..Limits::default() });
    let client = RawClient::connect(server.addr).await;
    let mut calls = Vec::new();
    for _ in 0..9 {
        let mut client = client.clone();
        calls.push(tokio::spawn(async move { call_with(&mut client, "wait", 2, 5_000).await }));
        assert_eq!(server.events.recv().await, Some(Event::Entered));
    }
    let refused = call_with(&mut client.clone(), "wait", 2, 5_000).await;
    assert_eq!(refused.refusal(), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(refused.status().get_details_retry_info().is_some());
    // Others have budgets of their own.
    let mut good = RawClient::connect(server.addr).await;
    assert_eq!(good.get_user("", &[]).await.status().code(), Code::Ok);

    server.gate.add_permits(calls.len());
    for call in calls {
        assert_eq!(call.await.unwrap().status().code(), Code::Ok);
    }
    drop((client, good));
    let budgets = server.budgets.clone();
    assert!(server.stop().await.is_clean());
    assert_eq!(budgets.call_bytes(), 0);
}
