//! From an old system whose database has another encoding than UTF8.

use std::collections::BTreeMap;

use crate::fixture::{HASH, Place};
use crate::old_system::{OldSystem, TENANT};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    what_is_no_utf_8_is_told_and_the_rest_goes_in,
    texts_of_another_encoding_are_converted_and_rows_with_an_undefined_byte_are_told,
);

async fn what_is_no_utf_8_is_told_and_the_rest_goes_in(engine: Engine) {
    let (old, place) = (OldSystem::encoded("SQL_ASCII"), Place::new(engine).await);
    // "é" in Latin-1, as which the old system may have written it.
    let with_e = |before: &str| format!("('{before}' || convert_from('\\xe9', 'SQL_ASCII'))");
    old.admin(&format!(
        "INSERT INTO tenants VALUES ('other', {}, '2020-01-02', '2020-01-02')",
        with_e("Caf")
    ));
    let broken = [
        ("email", "bad_email"),
        (r#""firstName""#, "bad_first_name"),
        (r#""lastName""#, "bad_last_name"),
        ("password", "bad_password_hash"),
        (r#""tenantId""#, "bad_id"),
    ];
    for (n, (column, _)) in broken.iter().enumerate() {
        old.user(&format!("broken{n}"), &format!("broken{n}@example.com"), HASH, n);
        old.admin(&format!("UPDATE users SET {column} = {} WHERE id = 'broken{n}'", with_e("Ren")));
    }
    old.user("no id", "no-id@example.com", HASH, 90);
    old.admin(&format!("UPDATE users SET id = {} WHERE id = 'no id'", with_e("key")));
    old.user("good", "Ren\u{e9}@example.com", HASH, 100);

    for more in [&["--dry-run"][..], &[]] {
        let run = old.moved_to(&place, more).await;
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.out.contains("users: 1 ") && run.out.contains("0 there already, 6 refused"), "{run:?}");
        let report = place.report("identity-import-refused.jsonl");
        let told = |id: &str| {
            let line = report.iter().find(|line| line["id"] == id);
            let line = line.unwrap_or_else(|| panic!("{id}: {report:?}"));
            assert!(line["detail"].as_str().unwrap().ends_with(" cannot be converted to UTF-8"), "{line}");
            line["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!((told("other"), told("key\u{fffd}")), ("bad_name".to_owned(), "bad_id".to_owned()));
        for (n, (_, reason)) in broken.iter().enumerate() {
            assert_eq!(told(&format!("broken{n}")), *reason, "{n}");
        }
    }
    let emails = place.outside().await.texts("SELECT email AS cell FROM users").await;
    assert_eq!(emails, ["Ren\u{e9}@example.com"]);
}

async fn texts_of_another_encoding_are_converted_and_rows_with_an_undefined_byte_are_told(engine: Engine) {
    let (old, place) = (OldSystem::encoded("WIN1252"), Place::new(engine).await);
    old.admin(&format!("UPDATE tenants SET name = 'Caf\u{e9} \u{20ac}' WHERE id = '{TENANT}'"));
    // 0x81, which Windows-1252 does not define. After 0xC3 it looks like UTF-8.
    let undefined = |before: &str| format!("('{before}' || chr(129))");
    let broken = [
        ("email", "bad_email"),
        (r#""firstName""#, "bad_first_name"),
        (r#""lastName""#, "bad_last_name"),
        ("password", "bad_password_hash"),
        (r#""tenantId""#, "bad_id"),
    ];
    old.admin(&format!(
        "INSERT INTO tenants VALUES ('other', {}, '2020-01-02', '2020-01-02')",
        undefined("Caf\u{c3}")
    ));
    for day in 0..20 {
        old.user(&format!("good{day}"), &format!("ren\u{e9}{day}@example.com"), HASH, day);
    }
    old.admin("UPDATE users SET \"firstName\" = 'Zo\u{eb}', \"lastName\" = '\u{152}uvre'");
    for (n, (column, _)) in broken.iter().enumerate() {
        old.user(&format!("\u{e9}{n}"), &format!("broken{n}@example.com"), HASH, 2 * n);
        old.admin(&format!("UPDATE users SET {column} = {} WHERE id = '\u{e9}{n}'", undefined("\u{c3}")));
    }
    old.user("no id", "no-id@example.com", HASH, 90);
    old.admin(&format!("UPDATE users SET id = {} WHERE id = 'no id'", undefined("key")));

    for more in [&["--dry-run"][..], &[]] {
        let run = old.moved_to(&place, more).await;
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.out.contains("tenants: 1 ") && run.out.contains("users: 20 "), "{run:?}");
        let report = place.report("identity-import-refused.jsonl");
        let told: BTreeMap<_, _> = report
            .iter()
            .map(|line| {
                assert!(
                    line["detail"].as_str().unwrap().ends_with(" cannot be converted to UTF-8"),
                    "{line}"
                );
                (line["id"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap())
            })
            .collect();
        let mut expected = BTreeMap::from([("other".into(), "bad_name"), ("key\u{fffd}".into(), "bad_id")]);
        expected.extend(broken.iter().enumerate().map(|(n, (_, reason))| (format!("\u{e9}{n}"), *reason)));
        assert_eq!(told, expected);
    }
    let mut outside = place.outside().await;
    assert_eq!(outside.texts("SELECT name AS cell FROM tenants").await, ["Caf\u{e9} \u{20ac}"]);
    let names = outside.texts("SELECT DISTINCT first_name || last_name AS cell FROM users").await;
    assert_eq!(names, ["Zo\u{eb}\u{152}uvre"]);
    let email = "SELECT email AS cell FROM users ORDER BY created_at LIMIT 1";
    assert_eq!(outside.texts(email).await, ["ren\u{e9}0@example.com"]);
}
