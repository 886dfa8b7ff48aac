//! Servers that start at the same time on one database.

use std::sync::Arc;

use identity::domain::SystemClock;

use crate::database::{census, count, values};
use crate::fixture::registered;
use crate::support::service::{Engine, PASSWORD, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    servers_that_start_at_once_on_an_empty_database_make_one_schema_and_one_key,
    a_second_start_finds_all_done,
);

async fn servers_that_start_at_once_on_an_empty_database_make_one_schema_and_one_key(engine: Engine) {
    let migrated = TestDatabase::migrated(engine).await;
    for round in 0..5 {
        let first = TestService::launch(TestDatabase::empty(engine), &[], Arc::new(SystemClock));
        let others: Vec<_> =
            (0..2).map(|_| TestService::launch(first.database.again(), &[], Arc::new(SystemClock))).collect();
        let mut servers = Vec::new();
        for service in std::iter::once(first).chain(others) {
            if !service.server.ready().await {
                panic!("round {round}: {}", service.server.stopped().await.unwrap_err());
            }
            servers.push(service);
        }
        let database = &servers[0].database;
        assert_eq!(count(database, "signing_keys"), 1);
        assert_eq!(
            count(database, "__diesel_schema_migrations"),
            count(&migrated, "__diesel_schema_migrations")
        );

        let ada = registered(&servers[0], "ada@example.com").await;
        for server in &servers {
            let client = server.client();
            client.get_user(Some(&ada.access_token), "").await.unwrap();
            client.login("ada@example.com", PASSWORD).await.unwrap();
        }
        assert_eq!(census(database), [1, 1, 1, 1, 4]);
    }
}

async fn a_second_start_finds_all_done(engine: Engine) {
    let service = TestService::start_with(TestDatabase::empty(engine), &[]).await;
    let ada = registered(&service, "ada@example.com").await;
    let keys = "SELECT kid AS value FROM signing_keys";
    let kid = values(&service.database, keys);
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[("IDENTITY_MIGRATE", "check")]).await;
    assert_eq!(values(&service.database, keys), kid);
    assert_eq!(service.client().get_user(Some(&ada.access_token), "").await.unwrap().user, ada.user);
}
