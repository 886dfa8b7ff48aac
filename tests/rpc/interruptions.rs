//! Callers who leave before the answer.

use std::time::Duration;

use identity::proto::v1::RegisterRequest;
use tokio::time::timeout;

use crate::database::census;
use crate::fixture::{new_id, registered};
use crate::support::service::{Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration};

on_both_databases!(a_registration_whose_caller_leaves_happens_once, callers_who_leave_take_nothing_along,);

/// Moments to leave at, spread over what a call takes: connecting, hashing, writing, answering.
fn moments() -> impl Iterator<Item = Duration> {
    (0..24).map(|step| Duration::from_micros(100) * step * step)
}

async fn a_registration_whose_caller_leaves_happens_once(engine: Engine) {
    let service = TestService::start(engine).await;
    let mut answered = 0;
    for (number, moment) in moments().enumerate() {
        let email = format!("ada{number}@example.com");
        let request = RegisterRequest { request_id: new_id(), ..registration(&email) };
        let client = service.client();
        let left = timeout(moment, client.register(request.clone())).await;
        drop(client);
        let again = service.client().register(request.clone()).await.unwrap().user;
        if let Ok(first) = left {
            assert_eq!(first.unwrap().user, again);
            answered += 1;
        }
        assert_eq!(service.client().register(request).await.unwrap().user, again);
    }
    assert!(answered < moments().count(), "nobody left");
    // What those who left had begun has come to its end.
    let (stopped, database) = service.stop().await;
    assert!(stopped.writes_finished);
    let [tenants, users, names, passwords, _] = census(&database);
    assert_eq!([tenants, users, names, passwords], [moments().count(); 4]);
}

async fn callers_who_leave_take_nothing_along(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    // Those who log in leave many sessions behind.
    let variables = [("IDENTITY_DATABASE_CONNECTIONS", "4"), ("IDENTITY_SESSION_LIMIT", "10000")];
    let service = TestService::start_with(database, &variables).await;
    let ada = registered(&service, "ada@example.com").await;
    let rounds: Vec<_> = (0..4)
        .map(|_| {
            let (client, token) = (service.client(), ada.access_token.clone());
            tokio::spawn(async move {
                for moment in moments().chain(moments()) {
                    let _ = timeout(moment, client.get_user(Some(&token), "")).await;
                    let _ = timeout(moment, client.login("ada@example.com", PASSWORD)).await;
                    let _ = timeout(moment, client.register(registration("ada@example.com"))).await;
                }
            })
        })
        .collect();
    for round in rounds {
        round.await.unwrap();
    }
    // Each connection of the pool is used, several times over.
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (client, token) = (service.client(), ada.access_token.clone());
            tokio::spawn(async move {
                let found = client.get_user(Some(&token), "").await.unwrap();
                (found.user, client.login("ada@example.com", PASSWORD).await.unwrap().user)
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), (ada.user.clone(), ada.user.clone()));
    }
    let [tenants, users, names, passwords, _] = census(&service.database);
    assert_eq!([tenants, users, names, passwords], [1; 4]);
}
