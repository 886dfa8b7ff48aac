//! Which passwords work, and how their hashes are kept.

use identity::proto::v1::RegisterRequest;
use tonic::Code;

use crate::database::{execute, import_hash, stored_hash};
use crate::fixture::{refusal, refused};
use crate::support::service::{Engine, PASSWORD, TestService, on_both_databases, registration};

on_both_databases!(
    a_password_works_exactly_as_it_was_given,
    every_byte_of_a_long_password_counts,
    the_shape_of_a_password_decides_how_it_is_kept,
    a_cheaper_hash_is_replaced_after_a_login,
    a_failed_login_replaces_nothing,
    hashes_of_other_programs_verify_and_are_replaced,
    a_password_that_was_cut_off_is_kept_whole_after_the_next_login,
    a_hash_that_cannot_be_read_fails_its_own_login_only,
);

fn with_password(email: &str, password: &str) -> RegisterRequest {
    RegisterRequest { password: password.into(), ..registration(email) }
}

async fn a_password_works_exactly_as_it_was_given(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let long = |length: usize| "fedcba9876543210".repeat(64)[..length].to_owned();
    let passwords = [
        long(8),
        long(71),
        long(72),
        long(73),
        long(1024),
        "\u{1f511}".repeat(8),
        "\u{1f511}".repeat(256),
        format!("{}\u{e9}", long(71)),
        "\0\0\0\0\0\0\0\0".into(),
        "abc\0defgh".into(),
        "abcdefgh\0".into(),
        " leading and trailing ".into(),
        "Zoe\u{308} Zoe\u{308}".into(),
        "tab\tline\r\nfeed".into(),
        "\u{feff}\u{202e}\u{fffd}\u{10ffff}abcd".into(),
    ];
    for (number, password) in passwords.iter().enumerate() {
        let email = format!("ada{number}@example.com");
        client.register(with_password(&email, password)).await.unwrap();
        client.login(&email, password).await.unwrap();
        let mut shorter = password.clone();
        shorter.pop();
        let longer = format!("{password}x");
        let swapped: String = password.chars().rev().skip(1).chain(['~']).collect();
        for wrong in
            [&shorter, &longer, &swapped, &password.replace('\0', ""), &password.replace('\u{308}', "")]
                .into_iter()
                .filter(|wrong| *wrong != password && (1..=1024).contains(&wrong.len()))
        {
            let result = client.login(&email, wrong).await;
            let expected = refused(Code::Unauthenticated, "LOGIN_FAILED");
            assert_eq!(refusal(result), expected, "{wrong:?} for {password:?}");
        }
    }
    // Composed and decomposed are two passwords.
    let result = client.login("ada12@example.com", "Zo\u{eb} Zo\u{eb}").await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"));
}

async fn every_byte_of_a_long_password_counts(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let password = "0123456789abcdef".repeat(64);
    client.register(with_password("ada@example.com", &password)).await.unwrap();
    for at in [0, 71, 72, 73, 255, 256, 1023] {
        let mut other = password.clone().into_bytes();
        other[at] = b'~';
        let result = client.login("ada@example.com", &String::from_utf8(other).unwrap()).await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"), "byte {at}");
    }
    // More than may be got wrong in a row.
    execute(&service.database, "DELETE FROM attempts");
    for length in [72, 73, 255, 256, 1023] {
        let result = client.login("ada@example.com", &password[..length]).await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"), "{length} bytes");
    }
    client.login("ada@example.com", &password).await.unwrap();
}

async fn the_shape_of_a_password_decides_how_it_is_kept(engine: Engine) {
    let service = TestService::start(engine).await;
    for (number, (password, start)) in [
        ("x".repeat(72), "bcrypt $2b$04$"),
        ("x".repeat(73), "bcrypt-sha256 $bcrypt-sha256$v=2,t=2b,r=4$"),
        ("xxxxxxxx\0".into(), "bcrypt-sha256 $bcrypt-sha256$v=2,t=2b,r=4$"),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("ada{number}@example.com");
        service.client().register(with_password(&email, &password)).await.unwrap();
        assert!(stored_hash(&service.database, &email).starts_with(start), "{start}");
    }
}

async fn a_cheaper_hash_is_replaced_after_a_login(engine: Engine) {
    let service = TestService::start(engine).await;
    let long = "x".repeat(100);
    for (email, password) in [("ada@example.com", PASSWORD), ("eve@example.com", &long)] {
        service.client().register(with_password(email, password)).await.unwrap();
    }
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[("IDENTITY_BCRYPT_COST", "5")]).await;
    for (email, password) in [("ada@example.com", PASSWORD), ("eve@example.com", &long)] {
        service.client().login(email, password).await.unwrap();
    }
    // Whoever stops waits for writes that have begun.
    let (stopped, database) = service.stop().await;
    assert!(stopped.writes_finished);
    let plain = stored_hash(&database, "ada@example.com");
    assert!(plain.starts_with("bcrypt $2b$05$"), "{}", &plain[..20]);
    let digested = stored_hash(&database, "eve@example.com");
    assert!(digested.starts_with("bcrypt-sha256 $bcrypt-sha256$v=2,t=2b,r=5$"));

    // A dearer one is too: its user's refusals would be slower than those of others.
    let service = TestService::start_with(database, &[("IDENTITY_BCRYPT_COST", "4")]).await;
    service.client().login("ada@example.com", PASSWORD).await.unwrap();
    service.client().login("eve@example.com", &long).await.unwrap();
    let (_, database) = service.stop().await;
    assert!(stored_hash(&database, "ada@example.com").starts_with("bcrypt $2b$04$"));
    assert!(
        stored_hash(&database, "eve@example.com").starts_with("bcrypt-sha256 $bcrypt-sha256$v=2,t=2b,r=4$")
    );
}

async fn a_failed_login_replaces_nothing(engine: Engine) {
    let service = TestService::start(engine).await;
    let user = crate::fixture::registered(&service, "ada@example.com").await.user.unwrap();
    let before = stored_hash(&service.database, "ada@example.com");
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[("IDENTITY_BCRYPT_COST", "5")]).await;
    service.client().login("ada@example.com", "wrong horse battery").await.unwrap_err();
    crate::database::set_state(&service.database, &user, identity::domain::UserState::Disabled).await;
    service.client().login("ada@example.com", PASSWORD).await.unwrap_err();
    let (_, database) = service.stop().await;
    assert_eq!(stored_hash(&database, "ada@example.com"), before);
}

/// Hashes of other programs, of each kind those cases in which the kinds differ.
fn vectors() -> Vec<[String; 3]> {
    const CASES: [&str; 7] =
        ["ASCII", "four-byte characters", "72 bytes", "73 bytes", "255 bytes", "1024 bytes", "NUL inside"];
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../vectors/passwords.json")).unwrap();
    rows.iter()
        .filter(|row| CASES.contains(&row["case"].as_str().unwrap()))
        .map(|row| ["scheme", "hash", "password"].map(|name| row[name].as_str().unwrap().to_owned()))
        .collect()
}

async fn hashes_of_other_programs_verify_and_are_replaced(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let vectors = vectors();
    assert!(vectors.len() > 30);
    for (number, [scheme, hash, password]) in vectors.iter().enumerate() {
        let email = format!("ada{number}@example.com");
        client.register(registration(&email)).await.unwrap();
        import_hash(&service.database, &email, scheme, hash);
        let name = format!("{scheme} {hash}");
        let old = client.login(&email, PASSWORD).await;
        assert_eq!(refusal(old), refused(Code::Unauthenticated, "LOGIN_FAILED"), "{name}");
        assert!(client.login(&email, password).await.is_ok(), "{name}");
    }
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[]).await;
    for (number, [scheme, hash, password]) in vectors.iter().enumerate() {
        let email = format!("ada{number}@example.com");
        let today = match password.len() <= 72 && !password.contains('\0') {
            true => ("bcrypt", "$2b$04$"),
            false => ("bcrypt-sha256", "$bcrypt-sha256$v=2,t=2b,r=4$"),
        };
        let is_today = (scheme.as_str(), hash.starts_with(today.1)) == (today.0, true);
        let now = stored_hash(&service.database, &email);
        let name = format!("{scheme} {hash}");
        assert_eq!(now == name, is_today, "{name} became {now}");
        assert!(now.starts_with(&format!("{} {}", today.0, today.1)), "{name} became {now}");
        assert!(service.client().login(&email, password).await.is_ok(), "{name}, replaced");
    }
}

async fn a_password_that_was_cut_off_is_kept_whole_after_the_next_login(engine: Engine) {
    let service = TestService::start(engine).await;
    crate::fixture::registered(&service, "ada@example.com").await;
    let truncated = vectors()
        .into_iter()
        .find(|[scheme, hash, password]| {
            scheme == "bcrypt-truncated" && hash.starts_with("$2b$") && password.len() == 73
        })
        .unwrap();
    let [scheme, hash, password] = &truncated;
    import_hash(&service.database, "ada@example.com", scheme, hash);
    let same_start = format!("{}~ and more", &password[..72]);
    service.client().login("ada@example.com", &same_start).await.unwrap();
    let (_, database) = service.stop().await;
    let service = TestService::start_with(database, &[]).await;
    service.client().login("ada@example.com", &same_start).await.unwrap();
    let result = service.client().login("ada@example.com", password).await;
    assert_eq!(refusal(result), refused(Code::Unauthenticated, "LOGIN_FAILED"));
}

async fn a_hash_that_cannot_be_read_fails_its_own_login_only(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    for email in ["ada@example.com", "eve@example.com"] {
        client.register(registration(email)).await.unwrap();
    }
    let too_dear = format!("$2b$31${}", "a".repeat(53));
    for hash in ["x", "$2b$04$", "$2x$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG", &too_dear] {
        import_hash(&service.database, "eve@example.com", "bcrypt", hash);
        let result = client.login("eve@example.com", PASSWORD).await;
        assert_eq!(refusal(result), refused(Code::Internal, "INTERNAL"), "{hash}");
        client.login("ada@example.com", PASSWORD).await.unwrap();
    }
}
