//! What tokens are signed with, over restarts and between servers.

use std::sync::Arc;
use std::time::Duration;

use identity::crypto::MasterKey;
use identity::domain::{Clock, SystemClock};
use identity::service::Authority;
use identity::service::keys::{Custody, Propagation, Takeover};
use identity::storage::{LaneSizes, Storage, StorageSettings};
use tonic::Code;

use crate::database::{count, values};
use crate::fixture::{TestClock, decode_token, refusal, refused, registered};
use crate::support::service::{Engine, MASTER_KEY, PASSWORD, TestDatabase, TestService, on_both_databases};
use crate::support::wait::eventually;

on_both_databases!(
    tokens_outlive_a_restart,
    two_servers_on_one_database_accept_each_others_tokens,
    a_secret_signs_instead_of_the_stored_key_and_both_count,
    another_secret_ends_the_tokens_of_the_first,
    another_master_key_is_refused_by_name,
    another_algorithm_is_published_before_it_signs,
    a_key_is_swept_when_its_last_token_has_expired,
);

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_MASTER_KEY: &str = "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";

/// Without a secret, and with one.
const MODES: [(&str, &[(&str, &str)]); 2] = [("EdDSA", &[]), ("HS256", &[("JWT_SECRET", SECRET)])];

async fn tokens_outlive_a_restart(engine: Engine) {
    for (algorithm, variables) in MODES {
        let service = TestService::start(engine).await;
        let (_, database) = service.stop().await;
        let service = TestService::start_with(database, variables).await;
        let ada = registered(&service, "ada@example.com").await;
        let (header, _) = decode_token(&ada.access_token);
        assert_eq!((&header["alg"], &header["typ"]), (&algorithm.into(), &"at+jwt".into()));
        assert!(!header["kid"].as_str().unwrap().is_empty());
        let (_, database) = service.stop().await;
        let service = TestService::start_with(database, variables).await;
        let client = service.client();
        assert_eq!(client.get_user(Some(&ada.access_token), "").await.unwrap().user, ada.user);
        client.login("ada@example.com", PASSWORD).await.unwrap();
    }
}

async fn two_servers_on_one_database_accept_each_others_tokens(engine: Engine) {
    for (algorithm, variables) in MODES {
        let first = TestService::start_with(TestDatabase::migrated(engine).await, variables).await;
        let second = TestService::start_with(first.database.again(), variables).await;
        let ada = registered(&first, "ada@example.com").await;
        let token = second.client().login("ada@example.com", PASSWORD).await.unwrap().access_token;
        for client in [first.client(), second.client()] {
            for token in [&ada.access_token, &token] {
                let found = client.get_user(Some(token), "").await.unwrap();
                assert_eq!(found.user, ada.user, "{algorithm}");
            }
        }
    }
}

async fn a_secret_signs_instead_of_the_stored_key_and_both_count(engine: Engine) {
    let service = TestService::start(engine).await;
    let before = registered(&service, "ada@example.com").await.access_token;
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[("JWT_SECRET", SECRET)]).await;
    let client = service.client();
    client.get_user(Some(&before), "").await.unwrap();
    let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
    assert_eq!(decode_token(&token).0["alg"], "HS256");
    client.get_user(Some(&token), "").await.unwrap();

    // Without the secret there is nothing to check its tokens with.
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[]).await;
    let result = service.client().get_user(Some(&token), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
    service.client().get_user(Some(&before), "").await.unwrap();
}

async fn another_secret_ends_the_tokens_of_the_first(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_with(database, &[("JWT_SECRET", SECRET)]).await;
    let token = registered(&service, "ada@example.com").await.access_token;
    assert_eq!(count(&service.database, "signing_keys"), 0);
    assert!(!token.contains(SECRET));
    let (_, database) = service.stop().await;
    let other = SECRET.to_uppercase();
    let service = TestService::start_with(database, &[("JWT_SECRET", &other)]).await;
    let result = service.client().get_user(Some(&token), "").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "TOKEN_INVALID"));
}

async fn another_master_key_is_refused_by_name(engine: Engine) {
    let service = TestService::start(engine).await;
    let token = registered(&service, "ada@example.com").await.access_token;
    let kid = values(&service.database, "SELECT kid AS value FROM signing_keys").remove(0);
    let (_, mut database) = service.stop().await;
    // Refresh tokens hang on the master key even where a secret signs access tokens.
    for (_, variables) in MODES {
        let variables = [variables, &[("IDENTITY_MASTER_KEY", OTHER_MASTER_KEY)]].concat();
        let service = TestService::launch(database, &variables, Arc::new(SystemClock));
        assert!(!service.server.ready().await, "started with {variables:?}");
        let message = service.server.stopped().await.unwrap_err().to_string();
        for text in ["IDENTITY_MASTER_KEY", kid.as_str(), "encrypted with another master key"] {
            assert!(message.contains(text), "{message}");
        }
        assert!(!message.contains(OTHER_MASTER_KEY));
        database = service.database;
    }
    // Nothing was changed: with the right key it goes on.
    let service = TestService::start_with(database, &[]).await;
    service.client().get_user(Some(&token), "").await.unwrap();
}

async fn another_algorithm_is_published_before_it_signs(engine: Engine) {
    let clock = TestClock::new();
    let first = TestService::start_at(TestDatabase::migrated(engine).await, &[], clock.clone()).await;
    registered(&first, "ada@example.com").await;
    let rs256 = [("IDENTITY_TOKEN_ALGORITHM", "RS256"), ("IDENTITY_KEY_PROPAGATION", "1h")];
    // However many are started with the setting, one key is made.
    let [second, third] =
        [(); 2].map(|()| TestService::launch(first.database.again(), &rs256, clock.clone()));
    assert!(second.server.ready().await && third.server.ready().await);
    assert_eq!(count(&first.database, "signing_keys"), 2);
    let mut tokens = Vec::new();
    for (later, algorithm) in [(0, "EdDSA"), (3_599, "EdDSA"), (1, "RS256")] {
        clock.advance(Duration::from_secs(later));
        for service in [&second, &third] {
            let token = service.client().login("ada@example.com", PASSWORD).await.unwrap().access_token;
            assert_eq!(decode_token(&token).0["alg"], algorithm, "{later}");
            tokens.push(token);
        }
        // The last ones, since those from before have expired.
        for token in &tokens[tokens.len() - 2..] {
            second.client().get_user(Some(token), "").await.unwrap();
        }
    }
    // The server from before the change follows the database as well.
    eventually("the key is known", async || {
        first.client().get_user(tokens.last().map(String::as_str), "").await.is_ok()
    })
    .await;
}

async fn a_key_is_swept_when_its_last_token_has_expired(engine: Engine) {
    let clock = TestClock::new();
    let database = TestDatabase::migrated(engine).await;
    let variables = [("IDENTITY_ACCESS_TTL", "24h"), ("IDENTITY_KEY_PROPAGATION", "1s")];
    let service = TestService::start_at(database, &variables, clock.clone()).await;
    let old = registered(&service, "ada@example.com").await.access_token;
    let custody = custody(&service.database, clock.clone());
    custody.rotate(Takeover::Propagated).await.unwrap();
    clock.advance(Duration::from_secs(1));
    let client = service.client();
    eventually("the new key signs", async || {
        let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;
        decode_token(&token).0["kid"] != decode_token(&old).0["kid"]
    })
    .await;
    // The old key's last token has five seconds to go.
    clock.advance(Duration::from_secs(24 * 60 * 60 - 2));
    client.get_user(Some(&old), "").await.unwrap();
    assert_eq!(count(&service.database, "signing_keys"), 2);
    clock.advance(Duration::from_secs(2 * 60 * 60));
    eventually("the old key is deleted", async || count(&service.database, "signing_keys") == 1).await;
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

/// What changes the keys from outside, as `identity keys` does.
fn custody(database: &TestDatabase, clock: Arc<dyn Clock>) -> Custody {
    let settings = StorageSettings {
        url: database.parsed(),
        connections: LaneSizes::MIN,
        statement_limit: Duration::from_secs(60),
        queue_limit: Duration::from_secs(60),
    };
    Custody {
        storage: Storage::new(&settings).unwrap(),
        master_keys: MasterKey::from_base64(MASTER_KEY).unwrap().into(),
        algorithm: None,
        propagation: Propagation::new(Duration::from_secs(1)),
        clock,
        by: Authority::system(),
    }
}

/// Without the variable, as a start by hand is: the key is in a file beside the database.
const KEY_FILE: (&str, &str) = ("IDENTITY_MASTER_KEY", "");

#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_database_that_was_used_is_not_given_a_new_key_file() {
    for (algorithm, variables) in MODES {
        let variables = [variables, &[KEY_FILE]].concat();
        let service = TestService::start_with(TestDatabase::empty(Engine::Sqlite), &variables).await;
        let ada = registered(&service, "ada@example.com").await;
        let (_, database) = service.stop().await;
        let file = database.folder.path().join("identity.db.key");
        let key = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();

        let service = TestService::launch(database, &variables, Arc::new(SystemClock));
        assert!(!service.server.ready().await, "{algorithm}: started without its key");
        let message = service.server.stopped().await.unwrap_err().to_string();
        for text in [file.to_str().unwrap(), "is missing", "IDENTITY_MASTER_KEY_FILE", "identity keys master"]
        {
            assert!(message.contains(text), "{algorithm}: {message}");
        }
        assert!(!file.exists(), "{algorithm}: a key was made");

        // With its file back it goes on.
        write_private(&file, &key);
        let service = TestService::start_with(service.database, &variables).await;
        service.client().get_user(Some(&ada.access_token), "").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_database_with_tables_and_nothing_in_them_gets_a_key_file() {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let service = TestService::start_with(database, &[KEY_FILE]).await;
    assert!(service.database.folder.path().join("identity.db.key").exists());
}

fn write_private(path: &std::path::Path, content: &[u8]) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(content).unwrap();
}
