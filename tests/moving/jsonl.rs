//! From lines of JSON.

use serde_json::{Value, json};

use crate::fixture::{
    HASH, HEADER, Place, end_of, file, rows, tenant, tenant_id, user, user_id, with, without,
};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    broken_lines_are_told_with_their_numbers_and_the_rest_goes_in,
    a_dry_run_tells_the_same_and_writes_nothing,
    the_first_user_of_a_tenant_without_an_owner_becomes_it,
    what_is_there_is_not_changed,
    a_hash_that_is_too_dear_goes_in_only_when_that_is_allowed,
    two_imports_at_once_do_not_get_into_each_others_way,
);

/// Lines after the header, and the reason for which each is refused, if it is.
fn lines() -> Vec<(Value, Option<&'static str>)> {
    let ok = |line| (line, None);
    let bad = |line, reason| (line, Some(reason));
    vec![
        ok(tenant(1)),
        ok(with(user(1, 1), "external_id", "zoe\u{308}")),
        bad(with(user(2, 1), "email", "nobody"), "bad_email"),
        bad(with(user(2, 1), "email", "no\u{200b}body@example.com"), "bad_email"),
        bad(with(user(2, 1), "first_name", "\u{200b}"), "bad_first_name"),
        bad(without(user(3, 1), "email"), "bad_email"),
        bad(with(user(4, 1), "first_name", ""), "bad_first_name"),
        bad(with(user(5, 1), "last_name", "x".repeat(101)), "bad_last_name"),
        bad(with(user(31, 1), "external_id", "x".repeat(256)), "bad_external_id"),
        bad(with(user(31, 1), "external_id", " 7"), "bad_external_id"),
        bad(with(user(6, 1), "role", "king"), "bad_role"),
        bad(with(user(7, 1), "state", "asleep"), "bad_state"),
        bad(with(user(8, 1), "created_at", "yesterday"), "bad_time"),
        bad(with(user(9, 1), "password_changed_at", "yesterday"), "bad_time"),
        bad(with(user(28, 1), "password_changed_at", "9999-01-01T00:00:00Z"), "bad_time"),
        bad(with(user(29, 1), "created_at", "9999-12-31T23:59:59.999999Z"), "bad_time"),
        bad(with(tenant(4), "updated_at", "2999-01-01T00:00:00Z"), "bad_time"),
        bad(
            with(user(10, 1), "password_hash", "$argon2id$v=19$m=65536,t=3,p=4$c29tZQ$aGFzaA"),
            "bad_password_hash",
        ),
        bad(with(user(11, 1), "password_hash", HASH.replace("$04$", "$17$")), "bad_password_hash"),
        bad(with(user(30, 1), "password_hash", HASH.replace("$04$", "$03$")), "bad_password_hash"),
        bad(with(user(12, 1), "password_scheme", "md5"), "bad_password_hash"),
        bad(with(user(13, 1), "password_scheme", "bcrypt-sha256"), "bad_password_hash"),
        bad(without(user(14, 1), "password_hash"), "bad_password_hash"),
        bad(user(15, 2), "unknown_tenant"),
        bad(with(user(16, 1), "email", "USER1@example.com"), "email_taken"),
        bad(with(user(32, 1), "external_id", "zo\u{eb}"), "external_id_taken"),
        bad(with(user(17, 1), "id", user_id(1)), "duplicate_id"),
        bad(with(with(user(18, 3), "id", user_id(1)), "tenant_id", tenant_id(1)), "duplicate_id"),
        bad(without(user(19, 1), "id"), "bad_id"),
        bad(with(user(20, 1), "id", "00000000-0000-0000-0000-000000000000"), "bad_id"),
        bad(with(user(21, 1), "id", "x".repeat(201)), "bad_id"),
        bad(with(tenant(2), "name", "\u{7}"), "bad_name"),
        bad(with(with(tenant(1), "created_at", "2001-01-01T00:00:00Z"), "name", "Other"), "duplicate_id"),
        bad(with(user(22, 1), "first_nam", "Ada"), "bad_line"),
        bad(with(user(23, 1), "first_name", 1), "bad_line"),
        bad(json!({"type": "group", "id": "1"}), "bad_line"),
        bad(json!([1, 2]), "bad_line"),
        bad(with(user(24, 1), "first_name", "x".repeat(70_000)), "bad_line"),
        // By a clock that is behind.
        ok(with(user(25, 1), "updated_at", "2020-01-01T00:00:00Z")),
        ok(with(user(26, 1), "id", "an id of another system")),
        ok(with(user(27, 1), "state", "disabled")),
    ]
}

async fn a_hash_that_is_too_dear_goes_in_only_when_that_is_allowed(engine: Engine) {
    let place = Place::new(engine).await;
    let of_cost = |n: usize, cost: &str| with(user(n, 1), "password_hash", HASH.replace("$04$", cost));
    let input = file(&[tenant(1), of_cost(1, "$14$"), of_cost(2, "$15$"), of_cost(3, "$16$")]);
    // New hashes have cost 12.
    place.run_with(&["import", "jsonl", "-"], &input).await.ok();
    let refused = |position| (position, "user".to_owned(), "bad_password_hash".to_owned());
    assert_eq!(place.refused(), [refused(4), refused(5)]);
    assert!(place.report("identity-import-refused.jsonl")[0]["detail"].to_string().contains("--allow-cost"));
    assert_eq!(place.outside().await.count("passwords").await, 1);

    place.run_with(&["import", "jsonl", "-", "--allow-cost", "15"], &input).await.ok();
    assert_eq!(place.refused(), [refused(5)]);
    assert_eq!(place.outside().await.count("passwords").await, 2);
    for wrong in ["3", "17", "much"] {
        assert_eq!(
            place.run_with(&["import", "jsonl", "-", "--allow-cost", wrong], &input).await.code,
            Some(64)
        );
    }
}

async fn broken_lines_are_told_with_their_numbers_and_the_rest_goes_in(engine: Engine) {
    let place = Place::new(engine).await;
    let lines = lines();
    let values: Vec<_> = lines.iter().map(|(line, _)| line.clone()).collect();
    // A blank line counts; what is no JSON, or cut off, is refused.
    let text = format!("{}\n\nno JSON: user98@example.com\n\u{feff}{{}}\n{{\"type\":", file(&values));
    let run = place.run_with(&["import", "jsonl", "-"], &text).await;
    assert_eq!(run.code, Some(0), "{run:?}");

    let mut expected: Vec<_> = (2..)
        .zip(&lines)
        .filter_map(|(position, (_, reason))| Some((position, (*reason)?.to_owned())))
        .collect();
    let end = lines.len() as u64 + 2;
    expected.extend((end + 1..end + 4).map(|position| (position, "bad_line".to_owned())));
    let refused = place.refused();
    let found: Vec<_> = refused.iter().map(|(position, _, reason)| (*position, reason.clone())).collect();
    assert_eq!(found, expected);
    let users = format!("users: 4 imported, 0 there already, {} refused", {
        refused.iter().filter(|(_, kind, _)| kind == "user").count()
    });
    assert!(run.out.contains(&users), "{run:?}");
    assert!(run.out.contains("tenants: 1 imported, 0 there already, 3 refused"), "{run:?}");
    assert!(run.err.contains(&format!("NOT ALL WENT IN: {} rows were refused", refused.len())), "{run:?}");
    let report = std::fs::read_to_string(place.path("identity-import-refused.jsonl")).unwrap();
    assert!(
        !report.contains("6@example.com") && !report.contains("8@") && !report.contains("$argon2"),
        "{report}"
    );

    assert_eq!(report.matches("password_hash has a cost that is not from 4 to 16").count(), 2, "{report}");
    assert_eq!(report.matches("is in the future").count(), 3, "{report}");

    let states = place.outside().await.texts("SELECT state AS cell FROM users ORDER BY state").await;
    assert_eq!(states, ["active", "active", "active", "disabled"]);
}

async fn a_dry_run_tells_the_same_and_writes_nothing(engine: Engine) {
    let place = Place::new(engine).await;
    let values: Vec<_> = lines().into_iter().map(|(line, _)| line).collect();
    std::fs::write(place.path("in.jsonl"), file(&values)).unwrap();
    let dry = place.run(&["import", "jsonl", "in.jsonl", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.err.contains("this was a dry run"), "{dry:?}");
    let report = place.report("identity-import-refused.jsonl");
    let mut outside = place.outside().await;
    for table in ["tenants", "users", "login_names", "passwords", "audit_events"] {
        assert_eq!(outside.count(table).await, 0, "{table}");
    }
    assert!(!place.path("identity-import-mapping.jsonl").exists());

    let real = place.run(&["import", "jsonl", "in.jsonl"]).await;
    assert_eq!(dry.out.replace("would go in", "imported"), real.ok());
    assert_eq!(place.report("identity-import-refused.jsonl"), report);
    // What is there is told as such in advance as well; a report of nothing is none.
    let good = [tenant(1), user(1, 1)];
    std::fs::write(place.path("in.jsonl"), file(&good)).unwrap();
    let dry = place.run(&["import", "jsonl", "in.jsonl", "--dry-run"]).await.ok();
    assert_eq!(
        dry,
        "tenants: 0 would go in, 1 there already, 0 refused\nusers: 0 would go in, 1 there already, 0 refused\n"
    );
    assert!(!place.path("identity-import-refused.jsonl").exists());
}

async fn the_first_user_of_a_tenant_without_an_owner_becomes_it(engine: Engine) {
    let place = Place::new(engine).await;
    let first = [
        tenant(1),
        with(user(1, 1), "email", "nobody"),
        user(2, 1),
        user(3, 1),
        tenant(2),
        with(user(4, 2), "role", "owner"),
        user(5, 2),
        tenant(3),
        with(user(6, 3), "role", "admin"),
    ];
    assert_eq!(place.import_lines(&first).await.code, Some(0));
    place.import_lines(&[user(7, 1), user(8, 2), user(9, 3)]).await.ok();
    let roles = "SELECT email || ' ' || role AS cell FROM users ORDER BY email";
    let roles = place.outside().await.texts(roles).await;
    let expected =
        ["2 owner", "3 member", "4 owner", "5 member", "6 admin", "7 member", "8 member", "9 owner"];
    assert_eq!(roles, expected.map(|role| format!("user{}", role.replace(' ', "@example.com "))));
}

async fn what_is_there_is_not_changed(engine: Engine) {
    let place = Place::new(engine).await;
    let employee = with(user(2, 1), "external_id", "HR/7");
    place.import_lines(&[tenant(1), user(1, 1), employee]).await.ok();
    let mut outside = place.outside().await;
    outside.run("UPDATE tenants SET name = 'Renamed', version = 2").await;
    outside
        .run("UPDATE users SET email = 'new@example.com', version = 2 WHERE email = 'user1@example.com'")
        .await;
    outside
        .run("UPDATE login_names SET email_normalized = 'new@example.com' WHERE email_normalized = 'user1@example.com'")
        .await;
    let before = place.export().await;

    let again = [
        tenant(1),
        user(1, 1),
        with(user(2, 1), "first_name", "Grace"),
        // The e-mails that are there now.
        with(user(3, 1), "email", "New@example.com"),
        with(user(4, 1), "email", "user1@example.com"),
        // The external id that is there, in its tenant and in another one.
        with(user(5, 1), "external_id", "HR/7"),
        tenant(2),
        with(user(6, 2), "external_id", "HR/7"),
    ];
    let run = place.import_lines(&again).await;
    assert!(run.out.contains("tenants: 1 imported, 1 there already, 0 refused"), "{run:?}");
    assert!(run.out.contains("users: 2 imported, 2 there already, 2 refused"), "{run:?}");
    let refused = |position, reason: &str| (position, "user".to_owned(), reason.to_owned());
    assert_eq!(place.refused(), [refused(5, "email_taken"), refused(7, "external_id_taken")]);
    let after = place.export().await;
    assert!(rows(&before).iter().all(|line| after.contains(line)), "{before}{after}");
}

async fn two_imports_at_once_do_not_get_into_each_others_way(engine: Engine) {
    const USERS: usize = 3_000;
    let place = Place::new(engine).await;
    let mut lines = vec![tenant(1)];
    lines.extend((0..USERS).map(|n| user(n, 1)));
    std::fs::write(place.path("in.jsonl"), file(&lines)).unwrap();
    let run = async |report| place.run(&["import", "jsonl", "in.jsonl", "--report", report]).await;
    let (one, other) = tokio::join!(run("one"), run("other"));
    let imported = |out: &str| -> usize {
        let words = out.lines().find(|line| line.starts_with("users: ")).unwrap();
        words.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(imported(&one.ok()) + imported(&other.ok()), USERS);
    let mut outside = place.outside().await;
    for table in ["users", "login_names", "passwords"] {
        assert_eq!(outside.count(table).await, USERS, "{table}");
    }
    // A tenant, and the two runs.
    assert_eq!(outside.count("audit_events").await, USERS + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_export_is_refused_as_a_whole() {
    let place = Place::new(Engine::Sqlite).await;
    for text in [
        tenant(1).to_string(),
        HEADER.replace('1', "2") + "\n",
        "\n[]".to_owned(),
        format!("{}\n{HEADER}", tenant(1)),
    ] {
        let run = place.run_with(&["import", "jsonl", "-"], &text).await;
        assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{text}: {run:?}");
        assert!(run.err.contains(HEADER), "{run:?}");
    }
    assert_eq!(place.run(&["import", "jsonl", "absent"]).await.code, Some(1));
    assert_eq!(place.run(&["import", "jsonl"]).await.code, Some(64));
    assert_eq!(place.run(&["import"]).await.code, Some(64));
    let unwritable = ["import", "jsonl", "-", "--report", "absent/report"];
    let run = place.run_with(&unwritable, &file(&[json!({})])).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(place.outside().await.count("tenants").await, 0);
    // An empty export, and joined ones.
    assert_eq!(place.run_with(&["import", "jsonl", "-"], HEADER).await.code, Some(0));
    let joined = format!("{}\n{}", file(&[tenant(1)]), file(&[tenant(2)]));
    assert!(place.run_with(&["import", "jsonl", "-"], &joined).await.ok().contains("tenants: 2 imported"));
}

/// The lines in another encoding.
fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_no_export_is_named() {
    let place = Place::new(Engine::Sqlite).await;
    let export = file(&[tenant(1)]);
    let marked = format!("\u{feff}{export}");
    for (input, problem) in [
        (utf16(&marked, u16::to_le_bytes), "in UTF-16 and must be in UTF-8"),
        (utf16(&marked, u16::to_be_bytes), "in UTF-16 and must be in UTF-8"),
        (utf16(&export, u16::to_le_bytes), "in UTF-16LE and must be in UTF-8"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), "compressed by gzip: `gzip -dc "),
        (Vec::new(), HEADER),
        (b" \n\n".to_vec(), HEADER),
        ("x".repeat(70_000).into_bytes(), HEADER),
    ] {
        std::fs::write(place.path("in.jsonl"), &input).unwrap();
        for more in [&["--dry-run"][..], &[]] {
            let run = place.run(&[&["import", "jsonl", "in.jsonl"], more].concat()).await;
            assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{problem}: {run:?}");
            assert!(run.err.contains(problem), "{problem}: {run:?}");
        }
    }
    assert_eq!(place.outside().await.count("tenants").await, 0);
    // Before a header, the mark has no meaning.
    let joined = format!("{marked}\n\u{feff}{}", file(&[tenant(2)]));
    let printed = place.run_with(&["import", "jsonl", "-"], &joined).await.ok();
    assert!(printed.contains("tenants: 2 imported, 0 there already, 0 refused"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_not_whole_is_noticed() {
    let place = Place::new(Engine::Sqlite).await;
    place.import_lines(&[tenant(1), user(1, 1), user(2, 1)]).await.ok();
    let whole = place.export().await;
    let without =
        |text: &str| whole.lines().filter(|line| !line.contains(text)).collect::<Vec<_>>().join("\n");
    let end = end_of(3);
    const WARNING: &str = "it may have been cut off";
    for (input, code, told) in [
        (whole.clone(), 0, ""),
        (format!("{whole}{whole}"), 0, ""),
        (format!("{whole}\n \n"), 0, ""),
        (without("identity-export-end"), 0, WARNING),
        (whole[..whole.len() / 2].to_owned(), 0, WARNING),
        (format!("{}\n{whole}", without("identity-export-end")), 0, WARNING),
        // After the end.
        (format!("{whole}{}", user(3, 1)), 0, WARNING),
        (without("user2"), 1, "line 4 says that the export had 3 rows, and there are 2"),
        (format!("{}\n{whole}", without("user2")), 1, "line 4 says that the export had 3 rows"),
        (whole.replace(&end, &format!("{}\n{end}", user(3, 1))), 1, "had 3 rows, and there are 4"),
        // What is refused counts as well.
        (whole.replace("user2@example.com", "nobody"), 0, ""),
        (whole.replace("user2@", "\"user2@"), 0, ""),
    ] {
        let run = place.run_with(&["import", "jsonl", "-", "--dry-run"], &input).await;
        assert_eq!(run.code, Some(code), "{input}: {run:?}");
        assert!(run.out.contains("tenants: 0 would go in, "), "{run:?}");
        let is_warned = run.err.contains(WARNING) || run.err.contains("is not whole");
        assert_eq!((is_warned, run.err.contains(told)), (!told.is_empty(), true), "{input}: {run:?}");
    }
    // What is there goes in all the same.
    let other = Place::new(Engine::Sqlite).await;
    let run = other.run_with(&["import", "jsonl", "-"], &without("user2")).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.out.contains("users: 1 imported, 0 there already, 0 refused"), "{run:?}");
}
