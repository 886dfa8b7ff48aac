//! Callers who leave, and networks that break, while their write is under way.

use identity::proto::v1::RegisterRequest;
use tokio::task::JoinHandle;
use tonic::Status;

use super::clients::{
    Barrier, SLOW_HASHES, assert_unavailable, checks_under_way, eventually, soon, variables, waiting_write,
};
use crate::support::postgres::Cluster;
use crate::support::process::Process;
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::support::wire::CountingProxy;

const REQUEST_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

on_both_databases!(
    a_registration_whose_caller_leaves_is_completed_once,
    a_login_whose_caller_leaves_is_completed_once,
);

async fn a_registration_whose_caller_leaves_is_completed_once(engine: Engine) {
    let (database, process, client) = served(engine, &[]).await;
    let request = RegisterRequest { request_id: REQUEST_ID.into(), ..registration("ada@example.com") };
    let repeated = request.clone();
    let barrier = Barrier::raise(&database).await;
    let before = process.log().len();
    leave(engine, &process, before, tokio::spawn(async move { client.register(request).await })).await;
    barrier.lower();
    eventually("the user is written", async || database.number("SELECT count(*) FROM users") == 1).await;

    let client = Client::new(&format!("http://{}", process.address));
    client.login("ada@example.com", PASSWORD).await.unwrap();
    client.register(repeated).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM tenants"), 1);
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 3);
}

async fn a_login_whose_caller_leaves_is_completed_once(engine: Engine) {
    let (database, process, client) = served(engine, &SLOW_HASHES).await;
    client.register(registration("ada@example.com")).await.unwrap();
    // What it logged is there, so that what comes behind it is the next call's.
    eventually("the registration is logged", async || process.log().contains("call finished")).await;
    let login = tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await });
    checks_under_way(&database, 1).await;
    let barrier = Barrier::raise(&database).await;
    let before = process.log().len();
    leave(engine, &process, before, login).await;
    barrier.lower();
    eventually("the session is written", async || database.number("SELECT count(*) FROM sessions") == 2)
        .await;
    // Whatever was still to come would be finished by the time the server has stopped.
    process.signal("TERM");
    assert!(soon("the server stops", process.ended()).await.0.success());
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 2);
}

async fn served(engine: Engine, others: &[(&'static str, &'static str)]) -> (TestDatabase, Process, Client) {
    let database = TestDatabase::migrated(engine).await;
    let others = [&[("IDENTITY_LOG", "debug")], others].concat();
    let mut process = Process::start(variables(&database.url, &others)).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::new(&format!("http://{}", process.address));
    (database, process, client)
}

/// Gives `call` up when the log tells, behind its first `before` bytes, that it waits to write, and waits
/// until the server has noticed.
async fn leave<T: Send + 'static>(
    engine: Engine,
    process: &Process,
    before: usize,
    call: JoinHandle<Result<T, Status>>,
) {
    eventually("the write waits", async || process.log()[before..].contains(waiting_write(engine))).await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()), "nothing was to let the call end");
    eventually("the server notices", async || process.log()[before..].contains("CANCELLED")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_lost_its_database_half_way_leaves_nothing_and_can_be_repeated() {
    let mut database = TestDatabase::migrated(Engine::Postgres).await;
    let proxy = CountingProxy::start(Cluster::shared().addr());
    database.url = database.postgres.as_ref().unwrap().url_via(proxy.addr());
    let service = TestService::start_with(database, &[]).await;
    let client = service.client();
    let request = RegisterRequest { request_id: REQUEST_ID.into(), ..registration("ada@example.com") };

    let barrier = Barrier::raise(&service.database).await;
    proxy.take();
    let call = tokio::spawn({
        let (client, request) = (client.clone(), request.clone());
        async move { client.register(request).await }
    });
    let mut asked = Vec::new();
    eventually("the write is half done", async || {
        asked.extend(proxy.take().statements);
        asked.iter().any(|statement| statement.contains("INSERT INTO \"passwords\""))
    })
    .await;
    proxy.cut().await;
    assert_unavailable(&soon("the call ends", call).await.unwrap().unwrap_err());
    barrier.lower();
    proxy.restore();

    eventually("the database is back", async || client.register(request.clone()).await.is_ok()).await;
    for table in ["tenants", "users", "login_names", "passwords"] {
        assert_eq!(service.database.number(&format!("SELECT count(*) FROM {table}")), 1, "{table}");
    }
}
