//! Many connections: those of one source take no other's place.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::future::join_all;
use identity::server::admission::{AdmissionSettings, Closed};
use identity::server::listener::ListenerSettings;
use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::raw::{RawClient, from_source};
use crate::server::{Event, Limits, Server};

/// How long a newcomer may have to wait.
const AT_ONCE: Duration = Duration::from_secs(1);

const ATTACKER: [u8; 4] = [127, 0, 0, 2];

fn limited(max_connections: usize, share: u32) -> Server {
    let max_connections = NonZeroUsize::new(max_connections).unwrap();
    Server::limited(Limits {
        admission: AdmissionSettings::new(max_connections, share),
        // Nothing here is closed for any other reason.
        listener: ListenerSettings { max_idle: None, max_age: None, ..Default::default() },
        ..Limits::default()
    })
}

/// Connections of the attacker, each of which answers pings.
async fn crowd(server: &Server, connections: usize) -> Vec<RawClient> {
    let connect = |_| async {
        let stream = from_source(ATTACKER, server.addr).await;
        RawClient::over(stream).await.unwrap()
    };
    join_all((0..connections).map(connect)).await
}

async fn works(client: &mut RawClient) -> bool {
    timeout(AT_ONCE, client.get_user("", &[])).await.is_ok_and(|reply| reply.status().code() == Code::Ok)
}

#[tokio::test]
async fn newcomers_and_probes_are_answered_at_once_while_one_source_holds_all_connections() {
    let server = limited(50, 100);
    let crowd = crowd(&server, 120).await;
    for _ in 0..10 {
        let newcomer = async { RawClient::connect(server.addr).await.get_user("", &[]).await };
        let reply = timeout(AT_ONCE, newcomer).await.expect("a newcomer is served");
        assert_eq!(reply.status().code(), Code::Ok);
        let probe = async {
            let mut client = HealthClient::new(server.channel().await);
            client.check(HealthCheckRequest { service: "liveness".to_owned() }).await
        };
        assert!(timeout(AT_ONCE, probe).await.expect("a probe is answered").is_ok());
    }
    assert!(server.admission.closed(Closed::Limit) + server.admission.closed(Closed::Share) >= 70);
    drop(crowd);
}

#[tokio::test]
async fn good_clients_keep_their_connections_while_another_source_connects_again_and_again() {
    let server = limited(20, 100);
    let mut good = Vec::new();
    for _ in 0..5 {
        let mut client = RawClient::connect(server.addr).await;
        assert!(works(&mut client).await);
        good.push(client);
    }
    // They have been idle for longer than any of the attacker's.
    for _ in 0..5 {
        drop(crowd(&server, 40).await);
    }
    let _crowd = crowd(&server, 40).await;
    for client in &mut good {
        assert!(works(client).await);
    }
}

#[tokio::test]
async fn a_source_with_its_share_makes_room_for_itself_and_keeps_the_connections_it_uses() {
    let mut server = limited(100, 4);
    let mut busy = RawClient::over(from_source(ATTACKER, server.addr).await).await.unwrap();
    let mut calling = busy.clone();
    let call = tokio::spawn(async move { calling.get_user("wait", &[]).await });
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    for _ in 0..20 {
        let mut next = RawClient::over(from_source(ATTACKER, server.addr).await).await.unwrap();
        assert!(works(&mut next).await);
    }
    assert!(works(&mut busy).await);
    server.gate.add_permits(1);
    assert_eq!(call.await.unwrap().status().code(), Code::Ok);
    assert_eq!(server.admission.limit_per_source(), 4);
    assert!(server.admission.open() <= 4 + 6 + 1);
}

#[tokio::test]
async fn a_crowd_that_does_not_leave_when_told_to_holds_no_more_connections_than_there_may_be() {
    let server = limited(32, 100);
    // Sockets that never speak, let alone answer a goodbye.
    let mut mute = Vec::new();
    for _ in 0..100 {
        mute.push(from_source(ATTACKER, server.addr).await);
        assert!(server.admission.open() <= 32 + 2 + 1);
    }
    let mut newcomer = RawClient::connect(server.addr).await;
    assert!(works(&mut newcomer).await);
}
