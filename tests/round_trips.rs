//! What each call costs on PostgreSQL: statements, round trips, transactions and connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::proto::v1::{BatchGetUsersRequest, RegisterRequest, UpdateUserRequest, User};
use prost_types::FieldMask;
use support::postgres::Cluster;
use support::service::{Client, Engine, PASSWORD, TestDatabase, TestService, registration};
use support::wait::eventually;
use support::wire::{CountingProxy, Trace};

/// What only the health probe asks.
const PROBE: &str = "__diesel_schema_migrations";
/// Longer than it takes to send what is sent together.
const DELAY: Duration = Duration::from_millis(5);
/// What a service asks by itself to follow its signing keys.
const KEYS: &str = "FROM \"signing_keys\"";

/// A service with one connection for each kind of call, and the proxy that it reaches PostgreSQL through.
async fn with_one_connection(variables: &[(&str, &str)]) -> (TestService, CountingProxy) {
    let mut database = TestDatabase::migrated(Engine::Postgres).await;
    let proxy = CountingProxy::start_with_delay(Cluster::shared().addr(), DELAY);
    database.url = database.postgres.as_ref().unwrap().url_via(proxy.addr());
    let variables = [&[("IDENTITY_DATABASE_CONNECTIONS", "4")], variables].concat();
    let service = TestService::start_with(database, &variables).await;
    // The start asks the same as the probe does. The probe's first question sets its connection up.
    proxy.take();
    eventually("the probe has asked", async || asks_probe(&proxy.take())).await;
    (service, proxy)
}

fn asks_probe(trace: &Trace) -> bool {
    trace.statements.iter().any(|statement| statement.contains(PROBE))
}

fn asks_keys(trace: &Trace) -> usize {
    trace.statements.iter().filter(|statement| statement.contains(KEYS)).count()
}

/// What `call` asks of the database, in a moment in which the service asks nothing by itself.
async fn cost<F: Future<Output = ()>>(proxy: &CountingProxy, call: impl Fn() -> F) -> Trace {
    // The first call prepares the statements.
    call().await;
    loop {
        proxy.take();
        call().await;
        let trace = proxy.take();
        if !asks_probe(&trace) && asks_keys(&trace) == 0 {
            return trace;
        }
    }
}

/// A place for a check is reserved, at a source that the account knows.
const ATTEMPT: [&str; 5] = ["BEGIN", "SELECT", "SELECT", "UPDATE", "COMMIT"];
/// The password was right: a session is opened, and the place given back.
const SUCCESS: [&str; 8] = ["BEGIN", "SELECT", "SELECT", "SELECT", "INSERT", "INSERT", "UPDATE", "COMMIT"];

/// The first word of each statement.
fn verbs(trace: &Trace) -> Vec<&str> {
    trace.statements.iter().filter_map(|statement| statement.split_whitespace().next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_found_with_one_statement_in_one_round_trip() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
    let trace = cost(&proxy, async || drop(client.get_user(Some(&token), "").await.unwrap())).await;
    assert_eq!((trace.round_trips, trace.transactions, verbs(&trace)), (1, 1, vec!["SELECT"]), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_writes_once_before_the_hash_and_once_after_it() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    client.register(registration("ada@example.com")).await.unwrap();
    let trace = cost(&proxy, async || drop(client.login("ada@example.com", PASSWORD).await.unwrap())).await;
    assert_eq!((trace.transactions, verbs(&trace)), (2, [&ATTEMPT[..], &SUCCESS].concat()), "{trace:?}");
    assert_eq!(trace.round_trips, 4, "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_writes_once_before_the_hash_and_once_after_it() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    client.register(registration("ada@example.com")).await.unwrap();
    let known = [&ATTEMPT[..], &["BEGIN", "SELECT", "UPDATE", "INSERT", "COMMIT"]].concat();
    // What a source tries that the account does not know counts twice.
    let attempt = ["BEGIN", "SELECT", "SELECT", "SELECT", "UPDATE", "UPDATE", "COMMIT"];
    let unknown =
        [&attempt[..], &["BEGIN", "SELECT", "SELECT", "UPDATE", "UPDATE", "INSERT", "COMMIT"]].concat();
    for (email, expected, round_trips) in [("ada@example.com", known, 4), ("nobody@example.com", unknown, 5)]
    {
        let trace = cost(&proxy, async || drop(client.login(email, "wrong").await.unwrap_err())).await;
        assert_eq!((trace.transactions, verbs(&trace)), (2, expected), "{email}: {trace:?}");
        assert_eq!(trace.round_trips, round_trips, "{email}: {trace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_refuses_costs_nothing_once_that_is_known() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    for _ in 0..11 {
        client.login("nobody@example.com", "wrong").await.unwrap_err();
    }
    let trace =
        cost(&proxy, async || drop(client.login("nobody@example.com", "wrong").await.unwrap_err())).await;
    assert_eq!((trace.round_trips, verbs(&trace)), (0, vec![]), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reads_once_and_writes_once_and_a_verification_reads_once() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let ada = client.register(registration("ada@example.com")).await.unwrap();
    let token = std::sync::Mutex::new(ada.refresh_token);
    let trace = cost(&proxy, async || {
        let latest = token.lock().unwrap().clone();
        let next = client.refresh(&latest).await.unwrap();
        *token.lock().unwrap() = next.refresh_token;
    })
    .await;
    let expected = vec!["BEGIN", "SELECT", "UPDATE", "COMMIT"];
    assert_eq!((trace.transactions, verbs(&trace)), (1, expected), "{trace:?}");
    assert_eq!(trace.round_trips, 2, "{trace:?}");

    let verify = async || assert!(client.verify_token(&ada.access_token).await.unwrap().active);
    let trace = cost(&proxy, verify).await;
    assert_eq!((trace.round_trips, verbs(&trace)), (1, vec!["SELECT"]), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_user_locks_what_it_rests_on_in_one_round_trip() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let ada = client.register(registration("ada@example.com")).await.unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    let trace = cost(&proxy, async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let user = User { first_name: format!("Ada {number}"), ..ada.user.clone().unwrap() };
        let user = Some(User { etag: String::new(), ..user });
        let update_mask = Some(FieldMask { paths: vec!["first_name".to_owned()] });
        let message = UpdateUserRequest { user, update_mask, ..UpdateUserRequest::default() };
        client.directory.clone().update_user(client.request_by(&ada.access_token, message)).await.unwrap();
    })
    .await;
    // The caller; the tenant, the user and the session under locks; the user; the change.
    let expected =
        vec!["BEGIN", "SELECT", "SELECT", "SELECT", "SELECT", "SELECT", "UPDATE", "INSERT", "COMMIT"];
    assert_eq!((trace.transactions, verbs(&trace)), (1, expected), "{trace:?}");
    assert_eq!(trace.round_trips, 4, "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_found_by_one_query_behind_that_for_the_caller() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let ada = client.register(registration("ada@example.com")).await.unwrap();
    let mut user_ids: Vec<_> = (1..1_000_u128).map(|id| uuid::Uuid::from_u128(id).to_string()).collect();
    user_ids.push(ada.user.unwrap().id);
    let trace = cost(&proxy, async || {
        let message = BatchGetUsersRequest { user_ids: user_ids.clone(), tenant_id: String::new() };
        let request = client.request_by(&ada.access_token, message);
        let found = client.directory.clone().batch_get_users(request).await.unwrap();
        assert_eq!(found.get_ref().users.len(), 1);
    })
    .await;
    assert_eq!((trace.round_trips, verbs(&trace)), (2, vec!["SELECT", "SELECT"]), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_one_transaction() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let number = std::sync::atomic::AtomicU32::new(0);
    let trace = cost(&proxy, async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        client.register(registration(&format!("ada{number}@example.com"))).await.unwrap();
    })
    .await;
    // Before the hash, a look at what the source registered; it counts under the lock.
    let expected = [
        "SELECT", "BEGIN", "SELECT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT",
        "COMMIT",
    ];
    assert_eq!((trace.transactions, verbs(&trace)), (2, expected.to_vec()), "{trace:?}");
    assert_eq!(trace.round_trips, 4, "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_with_a_request_id_is_one_transaction_that_claims_it_first() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    let number = std::sync::atomic::AtomicU32::new(1);
    let trace = cost(&proxy, async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        client.register(numbered(number)).await.unwrap();
    })
    .await;
    // Before the hash, a look at what became of it as well.
    let claim = ["SELECT", "SELECT", "BEGIN", "DELETE", "INSERT"];
    let rest = ["SELECT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT", "INSERT", "COMMIT"];
    assert_eq!((trace.transactions, verbs(&trace)), (3, [&claim[..], &rest].concat()), "{trace:?}");
    assert!(trace.statements[4].contains("request_outcomes"), "{trace:?}");
    assert_eq!(trace.round_trips, 6, "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_registration_finds_its_outcome_and_then_costs_what_a_login_does() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    client.register(numbered(1)).await.unwrap();
    let trace = cost(&proxy, async || drop(client.register(numbered(1)).await.unwrap())).await;
    let expected = [&["SELECT"][..], &ATTEMPT, &SUCCESS].concat();
    assert_eq!((trace.transactions, verbs(&trace)), (3, expected), "{trace:?}");
    assert_eq!(trace.round_trips, 5, "{trace:?}");
}

/// A registration that may be repeated.
fn numbered(number: u32) -> RegisterRequest {
    let request_id = uuid::Uuid::from_u128(number.into()).to_string();
    RegisterRequest { request_id, ..registration(&format!("ada{number}@example.com")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_held_while_a_password_is_hashed() {
    // Long enough for a look-up, short enough to end on a machine that leaves little time for hashes.
    let slow = [
        ("IDENTITY_BCRYPT_COST", "12"),
        ("IDENTITY_HASH_THREADS", "1"),
        ("IDENTITY_HASH_LANES", "1"),
        ("IDENTITY_HASH_MAX_WAIT", "10m"),
    ];
    let (service, proxy) = with_one_connection(&slow).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    let token = client.register(registration("ada@example.com")).await.unwrap().access_token;
    proxy.take();

    let login = spawn(&client, async |client| drop(client.login("ada@example.com", PASSWORD).await.unwrap()));
    let mut asked = Vec::new();
    eventually("the login has read", async || {
        asked.extend(proxy.take().statements);
        asked.iter().any(|statement| statement.contains("login_names"))
    })
    .await;
    // Its hash waits for that of the login.
    let register =
        spawn(&client, async |client| drop(client.register(registration("eve@example.com")).await.unwrap()));
    client.get_user(Some(&token), "").await.unwrap();
    assert!(!login.is_finished() && !register.is_finished());
    login.await.unwrap();
    register.await.unwrap();

    asked.extend(proxy.take().statements);
    let position = |text: &str| asked.iter().position(|statement| statement.contains(text)).unwrap();
    // Had the registration begun before its hash, the login could not have written.
    assert!(position("INSERT INTO \"sessions\"") < position("INSERT INTO \"tenants\""), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_key_ids_cost_one_look_for_new_keys_a_second_at_most() {
    let (service, proxy) = with_one_connection(&[]).await;
    let client = service.client();
    client.register(registration("ada@example.com")).await.unwrap();
    let started = Instant::now();
    proxy.take();
    for number in 0..500 {
        let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"made up {number}"}}"#);
        let token = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header));
        client.get_user(Some(&token), "").await.unwrap_err();
    }
    let looks = asks_keys(&proxy.take());
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(looks <= seconds + 2, "{looks} looks in {seconds} s");
}

fn spawn<F>(client: &Client, call: impl FnOnce(Client) -> F) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(call(client.clone()))
}
