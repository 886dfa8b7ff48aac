//! Look-ups and logins of others while one caller uses up all it can.

use std::time::Duration;

use identity::proto::v1::{ListUsersRequest, LoginRequest};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::database::{OpenTransaction, user_id_of, values};
use crate::services::{SERVICE_TOKEN, token, with};
use crate::support::crowd::Crowd;
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::support::wait::eventually;
use crate::world::{Person, founder};

on_both_databases!(
    look_ups_go_on_while_no_login_does,
    look_ups_go_on_while_one_tenant_lists_without_pause,
    calls_that_are_reset_leave_nothing_behind,
    users_of_a_domain_get_in_while_somebody_guesses_at_it,
);

/// No call that waits for nobody takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(20);
/// Enough for a list to take more than a moment.
const USERS: i64 = 20_000;

const WRITING: &str = r#"identity_database_connections_in_use{lane="writes"}"#;
const LISTING: &str = r#"identity_database_connections_in_use{lane="lists"}"#;

/// Logins of one user, each of which waits for a lock on that user's row.
struct HangingLogins {
    lock: OpenTransaction,
    logins: JoinSet<()>,
}

impl HangingLogins {
    /// Locks the row of `person` and keeps 32 logins of theirs in flight.
    async fn of(service: &TestService, person: &Person) -> Self {
        let email = &person.user.email;
        let lock = format!("UPDATE users SET first_name = 'x' WHERE id = {}", user_id_of(email));
        let lock = OpenTransaction::begin(&service.database, &lock).await;
        let mut logins = JoinSet::new();
        for _ in 0..32 {
            let (client, email) = (service.client(), email.clone());
            logins.spawn(async move {
                loop {
                    let _ = client.login(&email, PASSWORD).await;
                }
            });
        }
        Self { lock, logins }
    }

    async fn end(mut self) {
        self.logins.shutdown().await;
        self.lock.commit().await;
    }
}

async fn look_ups_go_on_while_no_login_does(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[("IDENTITY_DATABASE_CONNECTIONS", "4")]).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    let eve = founder(&client, "eve@example.com").await;
    let hanging = HangingLogins::of(&service, &ada).await;
    eventually("a login hangs", async || service.metric(WRITING).await >= 1.0).await;
    for _ in 0..50 {
        look_up(&client, &eve).await;
        let listed = timeout(PATIENCE, client.list_sessions(&eve.access_token, 10, "")).await;
        listed.expect("a list waits for nobody").unwrap();
    }
    assert!(service.metric(WRITING).await >= 1.0, "the logins still hang");
    hanging.end().await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

/// While one user's logins hang, those that a service makes for users elsewhere are served.
#[tokio::test(flavor = "multi_thread")]
async fn logins_from_elsewhere_go_on_while_those_of_one_place_hang() {
    let service = TestService::start(Engine::Postgres).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    founder(&client, "eve@example.com").await;
    let (_, token) = token(&service.database, &[]).await;
    let hanging = HangingLogins::of(&service, &ada).await;
    // Four connections write; one of them is left to newcomers.
    eventually("the logins have all that they can", async || service.metric(WRITING).await >= 3.0).await;
    for _ in 0..20 {
        let message = LoginRequest { email: "eve@example.com".into(), password: PASSWORD.into() };
        let elsewhere = with(
            message,
            &[(SERVICE_TOKEN, token.as_str()), ("x-identity-end-user-address", "198.51.100.7")],
        );
        let login = timeout(PATIENCE, client.service.clone().login(elsewhere)).await;
        login.expect("a login from elsewhere waits for nobody").unwrap();
    }
    hanging.end().await;
}

/// A user of a large tenant keeps 50 lists in flight, half of them for a prefix that all have, half for one that
/// nobody has.
async fn look_ups_go_on_while_one_tenant_lists_without_pause(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    service.database.fill(Crowd { initial: 'u', users: USERS, after: 1 });
    let eve = founder(&client, "eve@example.com").await;
    let mut lists = JoinSet::new();
    for n in 0..50 {
        let (client, ada) = (service.client(), ada.clone());
        lists.spawn(async move {
            loop {
                let email_prefix = ["u", "nobody"][n % 2].to_owned();
                let message = ListUsersRequest { email_prefix, count_total: true, ..Default::default() };
                if client.directory.clone().list_users(ada.request(message)).await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    eventually("lists are under way", async || service.metric(LISTING).await >= 1.0).await;
    for _ in 0..50 {
        look_up(&client, &eve).await;
        // The lists of one tenant leave a connection to those of others.
        let message = ListUsersRequest::default();
        let listed = timeout(PATIENCE, client.directory.clone().list_users(eve.request(message))).await;
        let users = listed.expect("a list of another tenant is served").unwrap().into_inner().users;
        assert_eq!(users, std::slice::from_ref(&eve.user));
    }
    eventually("the lists still go on", async || service.metric(LISTING).await >= 1.0).await;
    lists.shutdown().await;
    eventually("no list is left", async || service.metric(LISTING).await == 0.0).await;
}

async fn look_up(client: &Client, person: &Person) {
    let found = timeout(PATIENCE, client.get_user(Some(&person.access_token), "")).await;
    let user = found.expect("a look-up waits for nobody").unwrap().user.unwrap();
    assert_eq!(user.id, person.user.id);
}

async fn calls_that_are_reset_leave_nothing_behind(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = founder(&client, "ada@example.com").await;
    for round in 0..20 {
        let mut calls = JoinSet::new();
        // Whose connection may well be ended for it.
        let hostile = service.client();
        for n in 0..100 {
            let client = hostile.clone();
            calls.spawn(async move { client.login(&format!("nobody{}@example.com", n % 10), "wrong").await });
        }
        sleep(Duration::from_millis(round % 10)).await;
        calls.shutdown().await;
        // A good client beside them is served.
        look_up(&client, &ada).await;
    }
    for name in [
        "identity_password_calls",
        "identity_password_queue_length",
        "identity_password_lanes_in_use",
        r#"identity_database_connections_in_use{lane="writes"}"#,
        r#"identity_database_connections_waiting{lane="writes"}"#,
    ] {
        eventually(name, async || service.metric(name).await == 0.0).await;
    }
    // Every place among the checks that may fail was given back, or is counted: none is pending.
    let pending = "SELECT CAST(count(*) AS TEXT) AS value FROM attempts WHERE length(pending) > 0";
    assert_eq!(values(&service.database, pending), ["0"]);
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

/// Somebody guesses at made-up users of a domain from one address, faster than passwords are checked; its own
/// users log in from theirs.
async fn users_of_a_domain_get_in_while_somebody_guesses_at_it(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let slow = [
        ("IDENTITY_BCRYPT_COST", "11"),
        ("IDENTITY_HASH_THREADS", "1"),
        ("IDENTITY_HASH_LANES", "1"),
        ("IDENTITY_HASH_MAX_WAIT", "20s"),
    ];
    let service = TestService::start_with(database, &slow).await;
    let client = service.client();
    let (_, token) = token(&service.database, &[]).await;
    for n in 0..10 {
        client.register(registration(&format!("user{n}@victim.example"))).await.unwrap();
    }
    let caller = (client.clone(), token);
    let login_from = move |address: String, email: String, password: &'static str| {
        let (client, token) = caller.clone();
        async move {
            let message = LoginRequest { email, password: password.into() };
            let metadata = [(SERVICE_TOKEN, token.as_str()), ("x-identity-end-user-address", &address)];
            client.service.clone().login(with(message, &metadata)).await
        }
    };
    // Sixty a second, several times what one lane computes at this cost.
    let mut guesses = JoinSet::new();
    let guess = login_from.clone();
    guesses.spawn(async move {
        let mut under_way = JoinSet::new();
        for n in 0.. {
            let email = format!("guess{n}@victim.example");
            under_way.spawn(guess("192.0.2.66".to_owned(), email, "wrong"));
            while under_way.try_join_next().is_some() {}
            sleep(Duration::from_millis(16)).await;
        }
    });
    let refused = async || {
        let of = async |reason| {
            service.metric(&format!(r#"identity_password_refused_total{{reason="{reason}"}}"#)).await
        };
        of("full").await + of("share").await + of("deadline").await
    };
    eventually("guesses fill the queue", async || refused().await > 20.0).await;
    let mut got_in = 0;
    for n in 0..10 {
        let outcome = login_from(format!("198.51.100.{n}"), format!("user{n}@victim.example"), PASSWORD);
        got_in += usize::from(outcome.await.is_ok());
    }
    guesses.shutdown().await;
    assert!(got_in >= 9, "{got_in} of 10");
}
