//! Readiness follows whether the database can be written to.

use tokio::task::block_in_place;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, Watch, assert_unavailable};
use crate::support::postgres::Cluster;
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};

on_both_databases!(a_disk_that_is_full_makes_a_server_unready_until_there_is_room_again);

/// A server that is ready, a client of it, its health, and what its readiness becomes.
async fn ready(engine: Engine) -> (TestService, Client, Health, Watch) {
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &[]).await;
    let client = service.client();
    client.register(registration("ada@example.com")).await.unwrap();
    let health = Health::of(service.server.address()).await;
    let mut readiness = health.watch("readiness").await;
    readiness.becomes(ServingStatus::Serving).await;
    (service, client, health, readiness)
}

async fn a_disk_that_is_full_makes_a_server_unready_until_there_is_room_again(engine: Engine) {
    let (service, client, _health, mut readiness) = ready(engine).await;
    // The database's own words, or code, for that.
    service.database.execute(match engine {
        Engine::Sqlite => {
            "CREATE TRIGGER no_room BEFORE INSERT ON sessions
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        }
        Engine::Postgres => {
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END$$;
             CREATE TRIGGER no_room BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION no_room()"
        }
    });
    assert_unavailable(&client.login("ada@example.com", PASSWORD).await.unwrap_err());
    readiness.becomes(ServingStatus::NotServing).await;
    service.database.execute(match engine {
        Engine::Sqlite => "DROP TRIGGER no_room",
        Engine::Postgres => "DROP TRIGGER no_room ON sessions",
    });
    readiness.becomes(ServingStatus::Serving).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_only_be_read_makes_a_server_unready() {
    let (service, client, _health, mut readiness) = ready(Engine::Postgres).await;
    let name = service.database.postgres.as_ref().unwrap().name().to_owned();
    let tell =
        |what: &str| block_in_place(|| Cluster::shared().admin(&format!("ALTER DATABASE {name} {what}")));
    tell("SET default_transaction_read_only = on");
    readiness.becomes(ServingStatus::NotServing).await;
    tell("RESET default_transaction_read_only");
    readiness.becomes(ServingStatus::Serving).await;
    client.register(registration("bob@example.com")).await.unwrap();
}
