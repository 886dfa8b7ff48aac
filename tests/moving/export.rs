//! Out of one database and into another.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::fixture::{Place, file, rows, tenant, tenant_id, user, user_id, with};
use crate::support::service::{Engine, PASSWORD, TestService, on_both_databases, registration};

on_both_databases!(
    an_export_is_the_same_lines_after_it_was_read_into_the_other_database_and_back,
    an_export_sees_one_moment_however_slowly_it_is_read,
    an_export_into_a_file_is_there_when_it_is_whole,
    a_row_that_breaks_a_rule_is_exported_as_it_is,
    an_export_passes_on_the_words_of_another_version,
);

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Sqlite => Engine::Postgres,
        Engine::Postgres => Engine::Sqlite,
    }
}

async fn an_export_is_the_same_lines_after_it_was_read_into_the_other_database_and_back(engine: Engine) {
    let place = Place::new(engine).await;
    let sha256 = "$bcrypt-sha256$v=2,t=2b,r=4$abcdefghijklmnopqrstuu$OYmkCAUS7UhE7Tk12Tb2qKwg9I4Ye/e";
    let lines = [
        tenant(3),
        with(tenant(1), "name", "Zo\u{eb} \"&\" \u{1f511}\\"),
        with(user(1, 1), "password_hash", sha256),
        with(user(2, 1), "password_scheme", "bcrypt-truncated"),
        with(user(3, 1), "state", "disabled"),
        with(user(4, 1), "email", "Zo\u{eb}@B\u{fc}cher.example"),
        with(user(5, 1), "created_at", "1969-07-20T20:17:40.000001+00:00"),
        with(user(6, 1), "password_changed_at", "2021-06-01T00:00:00.654321Z"),
        with(user(7, 1), "id", "an id of another system"),
        tenant(2),
        with(user(8, 2), "role", "admin"),
        with(user(9, 1), "external_id", "HR/\u{1f511}\u{eb} \"7\""),
        with(user(10, 2), "external_id", "HR/\u{1f511}\u{eb} \"7\""),
    ];
    place.import_lines(&lines).await.ok();
    let service = TestService::start_with(place.database, &[]).await;
    service.client().register(registration("Grace@example.com")).await.unwrap();
    let place = Place { database: service.stop().await.1 };

    let export = place.export().await;
    assert_eq!(rows(&export).len(), 4 + 11);
    assert_eq!(export.matches("\"external_id\":").count(), 2);
    // Each tenant comes before its users.
    let mut seen = "";
    for line in rows(&export) {
        let id = |field: &str| line.split(&format!("\"{field}\":\"")).nth(1).map(|rest| &rest[..36]);
        match id("tenant_id") {
            Some(tenant) => assert_eq!(tenant, seen),
            None => seen = id("id").unwrap(),
        }
    }

    let there = Place::new(other(engine)).await;
    let run = there.run_with(&["import", "jsonl", "-"], &export).await;
    assert!(!there.path("identity-import-refused.jsonl").exists(), "{run:?}");
    assert_eq!(there.export().await, export);
    let back = Place::new(engine).await;
    back.run_with(&["import", "jsonl", "-"], &there.export().await).await.ok();
    assert_eq!(back.export().await, export);
    // Each export is told.
    let told = "SELECT actor_name AS cell FROM audit_events WHERE action = 'directory.exported'";
    assert_eq!(there.outside().await.texts(told).await, ["grace", "grace"]);

    let service = TestService::start_with(back.database, &[]).await;
    service.client().login("grace@example.com", PASSWORD).await.unwrap();
    service.client().login("user1@example.com", "a").await.unwrap();
    assert!(service.client().login("user3@example.com", "a").await.is_err());
}

async fn an_export_sees_one_moment_however_slowly_it_is_read(engine: Engine) {
    // More than the pipe and the pages under way hold.
    const USERS: usize = 20_000;
    let place = Place::new(engine).await;
    let mut lines = vec![tenant(1)];
    lines.extend((0..USERS).map(|n| user(n, 1)));
    place.import_lines(&lines).await.ok();

    let mut child = place.command(&["export"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).await.unwrap();
    place.outside().await.run("UPDATE users SET last_name = 'Changed'").await;
    out.read_to_string(&mut text).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(rows(&text).len(), USERS + 1);
    assert!(!text.contains("Changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_export_is_given_up_when_the_log_of_sqlite_has_grown_too_much() {
    let place = Place::new(Engine::Sqlite).await;
    let mut lines = vec![tenant(1)];
    lines.extend((0..20_000).map(|n| user(n, 1)));
    place.import_lines(&lines).await.ok();

    let mut command = place.command(&["export", "--log-limit", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).await.unwrap();
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    // Some 200 bytes a row.
    place.outside().await.run("UPDATE users SET last_name = 'Changed'").await;

    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
    let output = ended.await.expect("the export gives up").unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("has grown by 1 MiB") && err.contains("--log-limit"), "{err}");
    out.read_to_string(&mut text).await.unwrap();
    assert!(!text.contains("identity-export-end"), "a part is not taken for a whole");
    let wrong = place.run(&["export", "--log-limit", "0"]).await;
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
}

async fn an_export_passes_on_the_words_of_another_version(engine: Engine) {
    let place = Place::new(engine).await;
    place.import_lines(&[tenant(1), user(1, 1), user(2, 1)]).await.ok();
    let mut outside = place.outside().await;
    outside.without_word_checks().await;
    let id = match engine {
        Engine::Postgres => format!("'{}'", user_id(2)),
        Engine::Sqlite => format!("X'{}'", user_id(2).replace('-', "")),
    };
    outside.run(&format!("UPDATE users SET role = 'viewer', state = 'invited' WHERE id = {id}")).await;
    outside.run(&format!("UPDATE passwords SET scheme = 'argon2id' WHERE user_id = {id}")).await;
    let export = place.export().await;
    assert_eq!(rows(&export).len(), 3, "{export}");
    for word in [r#""role":"viewer""#, r#""state":"invited""#, r#""password_scheme":"argon2id""#] {
        assert_eq!(export.matches(word).count(), 1, "{word}");
    }
}

async fn an_export_into_a_file_is_there_when_it_is_whole(engine: Engine) {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new(engine).await;
    place.import_lines(&[tenant(1), user(1, 1)]).await.ok();
    assert_eq!(place.run(&["export", "out.jsonl"]).await.ok(), "");
    let path = place.path("out.jsonl");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), place.run(&["export", "-"]).await.ok());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!place.path("out.jsonl.partial").exists());
    let run = place.run(&["export", "absent/out.jsonl"]).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("absent/out.jsonl"), "{run:?}");
    // What is exported twice is there once.
    let twice = file(&[tenant(1), user(1, 1), tenant(1), user(1, 1)]);
    let printed = place.run_with(&["import", "jsonl", "-"], &twice).await.ok();
    assert!(printed.contains("users: 0 imported, 2 there already"), "{printed} {}", tenant_id(1));
}

async fn a_row_that_breaks_a_rule_is_exported_as_it_is(engine: Engine) {
    let place = Place::new(engine).await;
    place.import_lines(&[tenant(1), user(1, 1), user(2, 1), user(3, 1)]).await.ok();
    // The year 10000, and what no version of this program has written.
    let late = match engine {
        Engine::Sqlite => "253402300800000000",
        Engine::Postgres => "'10000-01-01T00:00:00Z'",
    };
    let mut outside = place.outside().await;
    for change in [
        format!("UPDATE passwords SET changed_at = {late}"),
        format!("UPDATE users SET updated_at = {late} WHERE email = 'user1@example.com'"),
        "UPDATE users SET email = 'no e-mail', first_name = ' ' WHERE email = 'user2@example.com'".to_owned(),
        "UPDATE tenants SET name = ' '".to_owned(),
    ] {
        outside.run(&change).await;
    }
    let export = place.export().await;
    let rows: Vec<Value> = rows(&export).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    let latest = "9999-12-31T23:59:59.999999Z";
    assert_eq!((&rows[0]["name"], &rows[1]["updated_at"]), (&" ".into(), &latest.into()));
    assert_eq!((&rows[2]["email"], &rows[2]["first_name"]), (&"no e-mail".into(), &" ".into()));
    assert!(rows[1..].iter().all(|user| user["password_changed_at"] == latest), "{export}");
}
