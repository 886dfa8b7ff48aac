//! Clients that make calls and take them back.

use std::num::NonZeroUsize;

use identity::server::admission::{AdmissionSettings, Closed};
use identity::server::budgets::CutShort;
use tonic::Code;

use crate::raw::{RawClient, get_user};
use crate::server::{Event, Limits, Server};

/// Makes a call, and resets it once its handler runs.
async fn reset_one(server: &mut Server, client: &RawClient) -> bool {
    let mut client = client.clone();
    let call = tokio::spawn(async move { client.try_send(get_user("wait", &[])).await });
    tokio::select! {
        biased;
        event = server.events.recv() => assert_eq!(event, Some(Event::Entered)),
        () = async { while !call.is_finished() { tokio::task::yield_now().await } } => return false,
    }
    call.abort();
    assert_eq!(server.events.recv().await, Some(Event::Dropped));
    true
}

#[tokio::test]
async fn a_client_that_resets_stream_after_stream_loses_its_connection_and_no_other() {
    let admission = AdmissionSettings {
        reset_burst: 20,
        resets_per_second: 0,
        ..AdmissionSettings::new(NonZeroUsize::new(10).unwrap(), 100)
    };
    let mut server = Server::limited(Limits { admission, ..Limits::default() });
    let mut good = RawClient::connect(server.addr).await;
    assert_eq!(good.get_user("", &[]).await.status().code(), Code::Ok);
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    assert_eq!(server.events.recv().await, Some(Event::Dropped));

    let mut bad = RawClient::connect(server.addr).await;
    for _ in 0..20 {
        assert!(reset_one(&mut server, &bad).await);
    }
    assert_eq!(server.admission.closed(Closed::Resets), 0);
    while reset_one(&mut server, &bad).await {}
    bad.closed().await;
    assert_eq!(server.admission.closed(Closed::Resets), 1);
    assert!(server.budgets.cut_short(CutShort::ByClient) > 20);
    assert_eq!(good.get_user("", &[]).await.status().code(), Code::Ok);
}

#[tokio::test]
async fn calls_that_are_answered_are_no_resets() {
    let admission =
        AdmissionSettings { reset_burst: 1, resets_per_second: 0, ..AdmissionSettings::default() };
    let server = Server::limited(Limits { admission, ..Limits::default() });
    let mut client = RawClient::connect(server.addr).await;
    for user_id in ["", "panic", "50000"].repeat(10) {
        client.get_user(user_id, &[]).await;
    }
    assert_eq!(client.get_user("", &[]).await.status().code(), Code::Ok);
    assert_eq!(server.budgets.cut_short(CutShort::ByClient), 0);
}
