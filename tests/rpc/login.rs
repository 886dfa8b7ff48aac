//! Who may log in, and what those learn who may not.

use identity::domain::UserState;
use identity::proto::v1::{LoginRequest, LoginResponse, Role};
use tonic::{Code, Request, Status};

use crate::database::{
    OpenTransaction, count, execute, import_hash, set_state, stored_hash, user_id_of, values,
};
use crate::fixture::{claim, refusal, refused, registered, visible};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, registration,
};
use crate::support::wait::eventually;

on_both_databases!(
    a_registered_user_logs_in_and_is_found,
    an_email_is_the_same_in_every_spelling,
    every_login_opens_a_session_of_its_own,
    every_failed_login_looks_the_same,
    a_dear_hash_makes_all_refusals_as_dear,
    credentials_in_the_metadata_do_not_keep_anyone_from_logging_in,
    a_login_while_the_user_is_disabled_opens_no_session,
    a_login_while_the_password_is_changed_opens_no_session,
    a_login_while_the_email_is_changed_opens_no_session,
    a_login_while_the_role_is_changed_gets_the_new_one,
    a_login_while_the_user_is_deleted_opens_no_session,
);

async fn a_registered_user_logs_in_and_is_found(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let registered = client.register(registration("ada@example.com")).await.unwrap();
    let logged_in = client.login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(logged_in.user, registered.user);
    let found = client.get_user(Some(&logged_in.access_token), "").await.unwrap();
    assert_eq!(found.user, registered.user);
}

async fn an_email_is_the_same_in_every_spelling(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "Zo\u{eb}.Z@B\u{fc}cher.example").await;
    for email in [
        "zo\u{eb}.z@b\u{fc}cher.example",
        "ZOE\u{308}.Z@XN--BCHER-KVA.EXAMPLE",
        "Zo\u{eb}.Z@B\u{fc}cher.example",
    ] {
        let user = service.client().login(email, PASSWORD).await.unwrap().user.unwrap();
        assert_eq!(user.email, "Zo\u{eb}.Z@B\u{fc}cher.example");
    }
    for email in
        ["zoe.z@b\u{fc}cher.example", "zo\u{eb}z@b\u{fc}cher.example", "zo\u{eb}.z+x@b\u{fc}cher.example"]
    {
        let result = service.client().login(email, PASSWORD).await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"), "{email}");
    }
}

async fn every_login_opens_a_session_of_its_own(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = service.client();
            tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await.unwrap() })
        })
        .collect();
    let mut sessions = std::collections::BTreeSet::new();
    for call in calls {
        let response = call.await.unwrap();
        assert!(service.client().get_user(Some(&response.access_token), "").await.is_ok());
        sessions.insert(claim(&response.access_token, "sid"));
    }
    assert_eq!((sessions.len(), count(&service.database, "sessions")), (10, 11));
}

async fn every_failed_login_looks_the_same(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    registered(&service, "ada@example.com").await;
    let disabled = registered(&service, "eve@example.com").await.user.unwrap();
    set_state(&service.database, &disabled, UserState::Disabled).await;
    registered(&service, "nobody@example.com").await;
    let of = user_id_of("nobody@example.com");
    execute(&service.database, &format!("DELETE FROM passwords WHERE user_id = {of}"));
    let before = count(&service.database, "sessions");

    let long = format!("{PASSWORD}{}", "x".repeat(1024 - PASSWORD.len()));
    let with_nul = format!("{PASSWORD}\0");
    let repeated = format!("{PASSWORD}\0{PASSWORD}");
    let mut replies = Vec::new();
    for (what, email, password) in [
        ("a wrong password", "ada@example.com", "wrong horse battery"),
        ("the password in another case", "ada@example.com", "Correct horse battery"),
        ("a part of the password", "ada@example.com", &PASSWORD[1..]),
        ("white space behind the password", "ada@example.com", "correct horse battery "),
        ("a NUL behind the password", "ada@example.com", &with_nul),
        ("the password twice with a NUL between", "ada@example.com", &repeated),
        ("a NUL before the password", "ada@example.com", "\0correct horse battery"),
        ("1,024 bytes", "ada@example.com", &long),
        ("an unknown e-mail", "bob@example.com", PASSWORD),
        ("an unknown e-mail with 1,024 bytes", "bob@example.com", &long),
        ("a disabled user", "eve@example.com", PASSWORD),
        ("a disabled user with a wrong password", "eve@example.com", "wrong horse battery"),
        ("a user without a password", "nobody@example.com", PASSWORD),
    ] {
        let status = client.login(email, password).await.unwrap_err();
        assert_eq!(
            refusal::<()>(Err(status.clone())),
            refused(Code::Unauthenticated, "LOGIN_FAILED"),
            "{what}"
        );
        replies.push((what, visible(&status)));
    }
    let (_, first) = &replies[0];
    for (what, reply) in &replies {
        assert_eq!(reply, first, "{what}");
    }
    assert_eq!(count(&service.database, "sessions"), before);
    set_state(&service.database, &disabled, UserState::Active).await;
    client.login("eve@example.com", PASSWORD).await.unwrap();
}

/// The cost that refused password checks take on a server whose new hashes have this cost.
async fn refusal_cost(database: TestDatabase, cost: &str) -> (TestService, f64) {
    let service = TestService::start_with(database, &[("IDENTITY_BCRYPT_COST", cost)]).await;
    let refusal_cost = service.metric("identity_password_refusal_cost").await;
    (service, refusal_cost)
}

async fn a_dear_hash_makes_all_refusals_as_dear(engine: Engine) {
    let (service, of_refusals) = refusal_cost(TestDatabase::migrated(engine).await, "6").await;
    assert_eq!(of_refusals, 6.0);
    registered(&service, "ada@example.com").await;
    let (_, database) = service.stop().await;

    for (cost, expected) in [("5", 6.0), ("4", 6.0), ("7", 7.0)] {
        let (service, of_refusals) = refusal_cost(database.again(), cost).await;
        assert_eq!(of_refusals, expected, "of {cost}");
        service.stop().await;
    }
    // A login replaces the hash, and nobody has a dearer one any more.
    let (service, _) = refusal_cost(database.again(), "4").await;
    service.client().login("ada@example.com", PASSWORD).await.unwrap();
    let is_replaced = async || stored_hash(&database, "ada@example.com").contains("$04$");
    eventually("the hash is replaced", is_replaced).await;
    service.stop().await;
    let (service, of_refusals) = refusal_cost(database.again(), "4").await;
    assert_eq!(of_refusals, 4.0);
    service.stop().await;

    // Beyond two steps, refusals are not made as slow.
    let hash = stored_hash(&database, "ada@example.com").replace("bcrypt $2b$04$", "$2b$09$");
    import_hash(&database, "ada@example.com", "bcrypt", &hash);
    assert_eq!(refusal_cost(database.again(), "4").await.1, 6.0);
}

async fn credentials_in_the_metadata_do_not_keep_anyone_from_logging_in(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    for value in ["Bearer outdated", "Basic YTpi", ""] {
        let message = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        service.client().service.login(request).await.unwrap();
    }
}

async fn a_login_while_the_user_is_disabled_opens_no_session(engine: Engine) {
    let of = user_id_of("ada@example.com");
    let disable = format!("UPDATE users SET state = 'disabled', version = version + 1 WHERE id = {of}");
    a_login_meanwhile_fails(engine, &disable).await;
}

async fn a_login_while_the_password_is_changed_opens_no_session(engine: Engine) {
    let of = user_id_of("ada@example.com");
    let later = match engine {
        Engine::Sqlite => "changed_at + 1",
        Engine::Postgres => "changed_at + interval '1 microsecond'",
    };
    // The hash stays: what counts is that somebody set a password.
    let change = format!(
        "UPDATE users SET version = version + 1 WHERE id = {of}; \
         UPDATE passwords SET changed_at = {later} WHERE user_id = {of}"
    );
    a_login_meanwhile_fails(engine, &change).await;
}

async fn a_login_while_the_email_is_changed_opens_no_session(engine: Engine) {
    let of = user_id_of("ada@example.com");
    let change = format!(
        "UPDATE users SET email = 'new@example.com', version = version + 1 WHERE id = {of}; \
         UPDATE login_names SET email_normalized = 'new@example.com' WHERE user_id = {of}"
    );
    a_login_meanwhile_fails(engine, &change).await;
}

async fn a_login_while_the_role_is_changed_gets_the_new_one(engine: Engine) {
    let of = user_id_of("ada@example.com");
    let demote = format!("UPDATE users SET role = 'member', version = version + 1 WHERE id = {of}");
    let (login, _service) = login_amid(engine, &demote).await;
    let login = login.unwrap();
    let user = login.user.unwrap();
    assert_eq!((user.role, user.etag.as_str()), (i32::from(Role::Member), "\"2\""));
    assert_eq!(claim(&login.access_token, "role"), "member");
}

async fn a_login_while_the_user_is_deleted_opens_no_session(engine: Engine) {
    let of = user_id_of("ada@example.com");
    a_login_meanwhile_fails(engine, &format!("DELETE FROM users WHERE id = {of}")).await;
}

async fn a_login_meanwhile_fails(engine: Engine, sql: &str) {
    let (login, service) = login_amid(engine, sql).await;
    assert_eq!(refusal(login), refused(Code::Unauthenticated, "LOGIN_FAILED"));
    assert_eq!(count(&service.database, "sessions"), 0);
}

/// Logs in, and runs `sql` after the user was looked up and before the session is opened.
async fn login_amid(engine: Engine, sql: &str) -> (Result<LoginResponse, Status>, TestService) {
    let database = TestDatabase::migrated(engine).await;
    // Long enough for a change in the middle of it.
    let slow = [("IDENTITY_BCRYPT_COST", "13"), ("IDENTITY_HASH_THREADS", "1"), ("IDENTITY_HASH_LANES", "1")];
    let service = TestService::start_with(database, &slow).await;
    let client = Client::patient(&format!("http://{}", service.server.address()));
    client.register(registration("ada@example.com")).await.unwrap();
    execute(&service.database, "DELETE FROM sessions");
    let login = tokio::spawn(async move { client.login("ada@example.com", PASSWORD).await });
    let pending = "SELECT 'pending' AS value FROM attempts WHERE length(pending) > 0";
    until_there_are_rows(&service.database, pending).await;
    let change = OpenTransaction::begin(&service.database, sql).await;
    if engine == Engine::Postgres {
        // As far as it can come. SQLite does not tell who waits, and gives up a write that waits for long.
        let waiting = "SELECT pid::text AS value FROM pg_stat_activity \
                       WHERE wait_event_type = 'Lock' AND datname = current_database()";
        until_there_are_rows(&service.database, waiting).await;
    }
    assert!(!login.is_finished(), "the login did not wait for the change");
    change.commit().await;
    (login.await.unwrap(), service)
}

async fn until_there_are_rows(database: &TestDatabase, sql: &str) {
    eventually(sql, async || !values(database, sql).is_empty()).await;
}
