//! How often a password may be got wrong, by whom, and that the right one harms nobody.

use std::time::Duration;

use identity::proto::v1::{LoginRequest, LoginResponse};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::database::{execute, values};
use crate::fixture::{TestClock, new_id, refusal, refused, registered, visible};
use crate::services::{SERVICE_TOKEN, token, with};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::support::wait::eventually;

on_both_databases!(
    of_fifty_wrong_passwords_at_once_ten_are_checked,
    fifty_right_passwords_at_once_all_log_in,
    the_span_slides,
    a_clock_that_was_a_day_ahead_locks_no_account,
    a_limit_tells_nothing_of_the_user,
    every_source_has_its_own_limit,
    an_account_under_attack_stays_open_to_sources_that_it_knows,
    an_owner_is_known_where_he_registered,
    checks_whose_callers_leave_are_given_back,
    a_repeated_registration_and_a_change_of_password_count_as_logins,
    nothing_is_kept_of_a_login_that_succeeds_but_where_it_came_from,
);

const WRONG: &str = "not the password";
const MINUTE: Duration = Duration::from_secs(60);

fn too_many() -> (Code, String) {
    refused(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
}

fn failed() -> (Code, String) {
    refused(Code::Unauthenticated, "LOGIN_FAILED")
}

fn retry_delay(status: &Status) -> Duration {
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

/// Logs in `number` times at once, evenly over `clients`.
async fn at_once(
    clients: &[Client],
    number: usize,
    email: &'static str,
    password: &'static str,
) -> Vec<Result<LoginResponse, Status>> {
    let calls: Vec<_> = clients
        .iter()
        .cycle()
        .take(number)
        .map(|client| {
            let client = client.clone();
            tokio::spawn(async move { client.login(email, password).await })
        })
        .collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}

/// How many of the results are failed logins, and how many are refused by the limit; there are no others.
fn outcomes(results: Vec<Result<LoginResponse, Status>>) -> (usize, usize) {
    let refusals: Vec<_> = results.into_iter().map(refusal).collect();
    let count = |of| refusals.iter().filter(|refusal| **refusal == of).count();
    let counts = (count(failed()), count(too_many()));
    assert_eq!(counts.0 + counts.1, refusals.len(), "{refusals:?}");
    counts
}

/// A service that states where its users are.
struct Gateway {
    client: Client,
    token: String,
}

impl Gateway {
    async fn new(service: &TestService) -> Self {
        Self { client: service.client(), token: token(&service.database, &[]).await.1 }
    }

    async fn login(&self, address: &str, email: &str, password: &str) -> Result<LoginResponse, Status> {
        let message = LoginRequest { email: email.into(), password: password.into() };
        let stated = [(SERVICE_TOKEN, self.token.as_str()), ("x-identity-end-user-address", address)];
        self.client.service.clone().login(with(message, &stated)).await.map(Response::into_inner)
    }
}

async fn of_fifty_wrong_passwords_at_once_ten_are_checked(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    for email in ["ada@example.com", "nobody@example.com"] {
        assert_eq!(
            outcomes(at_once(std::slice::from_ref(&client), 50, email, WRONG).await),
            (10, 40),
            "{email}"
        );
    }
    // The right password is no way around it, and others are not concerned.
    assert_eq!(refusal(client.login("ada@example.com", PASSWORD).await), too_many());
    registered(&service, "eve@example.com").await;
    client.login("eve@example.com", PASSWORD).await.unwrap();
    clock.advance(15 * MINUTE);
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

async fn fifty_right_passwords_at_once_all_log_in(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    // With two places left.
    assert_eq!(outcomes(at_once(std::slice::from_ref(&client), 8, "ada@example.com", WRONG).await), (8, 0));
    for result in at_once(std::slice::from_ref(&client), 50, "ada@example.com", PASSWORD).await {
        result.unwrap();
    }
    // None of them made a failure forgotten.
    assert_eq!(outcomes(at_once(std::slice::from_ref(&client), 5, "ada@example.com", WRONG).await), (2, 3));
}

async fn the_span_slides(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    for _ in 0..5 {
        assert_eq!(refusal(client.login("ada@example.com", WRONG).await), failed());
    }
    clock.advance(10 * MINUTE);
    for _ in 0..5 {
        assert_eq!(refusal(client.login("ada@example.com", WRONG).await), failed());
    }
    let status = client.login("ada@example.com", WRONG).await.unwrap_err();
    assert_eq!(retry_delay(&status), 5 * MINUTE);
    assert_eq!(refusal::<()>(Err(status)), too_many());
    clock.advance(5 * MINUTE - Duration::from_micros(1));
    assert_eq!(refusal(client.login("ada@example.com", PASSWORD).await), too_many());
    clock.advance(Duration::from_micros(1));
    for _ in 0..5 {
        assert_eq!(refusal(client.login("ada@example.com", WRONG).await), failed());
    }
    let status = client.login("ada@example.com", WRONG).await.unwrap_err();
    assert_eq!(retry_delay(&status), 10 * MINUTE);
}

async fn a_clock_that_was_a_day_ahead_locks_no_account(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    let gateway = Gateway::new(&service).await;

    let day = 24 * 60 * MINUTE;
    clock.advance(day);
    for _ in 0..10 {
        assert_eq!(refusal(client.login("ada@example.com", WRONG).await), failed());
    }
    assert_eq!(refusal(client.login("ada@example.com", PASSWORD).await), too_many());
    for stranger in 0..100 {
        let address = format!("192.0.2.{stranger}");
        assert_eq!(refusal(gateway.login(&address, "ada@example.com", WRONG).await), failed());
    }
    assert_eq!(refusal(gateway.login("192.0.2.200", "ada@example.com", PASSWORD).await), too_many());

    clock.set_back(day);
    client.login("ada@example.com", PASSWORD).await.unwrap();
    gateway.login("192.0.2.200", "ada@example.com", PASSWORD).await.unwrap();
}

async fn a_limit_tells_nothing_of_the_user(engine: Engine) {
    // The clock stands still, so even the delays are the same.
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], TestClock::new()).await;
    registered(&service, "ada@example.com").await;
    let client = service.client();
    let mut replies = Vec::new();
    for (email, password) in
        [("ada@example.com", WRONG), ("ada@example.com", PASSWORD), ("nobody@example.com", PASSWORD)]
    {
        for _ in 0..10 {
            // With the right password this is refused from the first try on.
            client.login(email, WRONG).await.unwrap_err();
        }
        replies.push(visible(&client.login(email, password).await.unwrap_err()));
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(replies[0], replies[2]);
    // Nor does what is stored name anybody.
    let stored = match engine {
        Engine::Sqlite => "SELECT hex(subject) || hex(source) || hex(counted) AS value FROM attempts",
        Engine::Postgres => "SELECT encode(subject || source || counted, 'hex') AS value FROM attempts",
    };
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for row in values(&service.database, stored) {
        assert!(!row.to_lowercase().contains(&hex("example.com")), "{row}");
    }
}

async fn every_source_has_its_own_limit(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let gateway = Gateway::new(&service).await;
    for _ in 0..5 {
        for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(refusal(gateway.login(address, "Ada@EXAMPLE.com", WRONG).await), failed());
        }
        for address in ["2001:db8::1", "2001:db8::ffff:1"] {
            assert_eq!(refusal(gateway.login(address, "ada@example.com", WRONG).await), failed());
        }
    }
    for address in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::2"] {
        assert_eq!(refusal(gateway.login(address, "ada@example.com", PASSWORD).await), too_many());
    }
    for address in ["192.0.2.2", "2001:db8:0:1::1"] {
        gateway.login(address, "ada@example.com", PASSWORD).await.unwrap();
    }
}

async fn an_account_under_attack_stays_open_to_sources_that_it_knows(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[], clock.clone()).await;
    registered(&service, "ada@example.com").await;
    let gateway = Gateway::new(&service).await;
    gateway.login("192.0.2.7", "ada@example.com", PASSWORD).await.unwrap();
    for email in ["ada@example.com", "nobody@example.com"] {
        let mut refusals = Vec::new();
        for network in 0..12 {
            for _ in 0..9 {
                let address = format!("2001:db8:0:{network}::1");
                refusals.push(refusal(gateway.login(&address, email, WRONG).await));
            }
        }
        // A hundred are checked, whatever their number of networks, for those who exist and those who do not.
        assert_eq!(refusals.iter().position(|refusal| *refusal == too_many()), Some(100), "{email}");
        assert!(refusals[100..].iter().all(|refusal| *refusal == too_many()));
    }
    // Each that was refused left nothing behind: 12 networks tried one e-mail, and the last of them in vain.
    let rows = values(&service.database, "SELECT CAST(count(*) AS TEXT) AS value FROM attempts");
    assert_eq!(rows, [(2 * (12 + 1) + 3).to_string()]);

    assert_eq!(refusal(gateway.login("192.0.2.8", "ada@example.com", PASSWORD).await), too_many());
    // Under the own limit, as ever.
    gateway.login("192.0.2.7", "ada@example.com", PASSWORD).await.unwrap();
    for _ in 0..10 {
        assert_eq!(refusal(gateway.login("192.0.2.7", "ada@example.com", WRONG).await), failed());
    }
    assert_eq!(refusal(gateway.login("192.0.2.7", "ada@example.com", WRONG).await), too_many());
    clock.advance(15 * MINUTE);
    gateway.login("192.0.2.8", "ada@example.com", PASSWORD).await.unwrap();
}

async fn an_owner_is_known_where_he_registered(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    registered(&service, "ada@example.com").await;
    let gateway = Gateway::new(&service).await;
    for network in 0..10 {
        let address = format!("2001:db8:0:{network}::1");
        for _ in 0..10 {
            assert_eq!(refusal(gateway.login(&address, "ada@example.com", WRONG).await), failed());
        }
    }
    assert_eq!(refusal(gateway.login("192.0.2.8", "ada@example.com", PASSWORD).await), too_many());
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

async fn checks_whose_callers_leave_are_given_back(engine: Engine) {
    let slow = [("IDENTITY_BCRYPT_COST", "12"), ("IDENTITY_HASH_THREADS", "1"), ("IDENTITY_HASH_LANES", "1")];
    let service = TestService::start_with(TestDatabase::migrated(engine).await, &slow).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    let pending = "SELECT CAST(length(pending) AS TEXT) AS value FROM attempts WHERE length(pending) > 0";
    for _ in 0..3 {
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.login("nobody@example.com", WRONG).await })
            })
            .collect();
        eventually("a check is under way", async || !values(&service.database, pending).is_empty()).await;
        calls.iter().for_each(|call| call.abort());
        eventually("no check is under way", async || values(&service.database, pending).is_empty()).await;
    }
    // Whatever was computed before its caller left counts; at most one a round, by one thread with one lane.
    assert_eq!(refusal(client.login("nobody@example.com", WRONG).await), failed());
}

async fn a_repeated_registration_and_a_change_of_password_count_as_logins(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let mut request = registration("ada@example.com");
    request.request_id = new_id();
    let token = client.register(request.clone()).await.unwrap().access_token;
    request.password = "not the password at all".into();
    for _ in 0..5 {
        let reused = refused(Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(refusal(client.register(request.clone()).await), reused);
        let change = client.change_password(&token, WRONG, "another good password").await;
        assert_eq!(refusal(change), failed());
    }
    assert_eq!(refusal(client.register(request.clone()).await), too_many());
    request.password = PASSWORD.into();
    assert_eq!(refusal(client.register(request).await), too_many());
    let change = client.change_password(&token, PASSWORD, "another good password").await;
    assert_eq!(refusal(change), too_many());
    assert_eq!(refusal(client.login("ada@example.com", PASSWORD).await), too_many());
}

async fn nothing_is_kept_of_a_login_that_succeeds_but_where_it_came_from(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    registered(&service, "ada@example.com").await;
    execute(&service.database, "DELETE FROM attempts");
    for _ in 0..3 {
        client.login("ada@example.com", PASSWORD).await.unwrap();
    }
    let rows = "SELECT CAST(length(counted) + length(pending) AS TEXT) AS value FROM attempts";
    assert_eq!(values(&service.database, rows), ["0"]);
    let known = "SELECT 'known' AS value FROM attempts WHERE known_until IS NOT NULL";
    assert_eq!(values(&service.database, known), ["known"]);
}

/// Two servers on one database, as two processes are.
async fn two_servers() -> (TestService, TestService) {
    let first = TestService::start(Engine::Postgres).await;
    let second = TestService::start_with(first.database.again(), &[]).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_check_ten_wrong_passwords_together() {
    let (first, second) = two_servers().await;
    registered(&first, "ada@example.com").await;
    let clients = [first.client(), second.client()];
    for email in ["ada@example.com", "nobody@example.com"] {
        assert_eq!(outcomes(at_once(&clients, 50, email, WRONG).await), (10, 40), "{email}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_let_all_right_passwords_in() {
    let (first, second) = two_servers().await;
    registered(&first, "ada@example.com").await;
    let clients = [first.client(), second.client()];
    assert_eq!(outcomes(at_once(&clients, 7, "ada@example.com", WRONG).await), (7, 0));
    for result in at_once(&clients, 50, "ada@example.com", PASSWORD).await {
        result.unwrap();
    }
}
