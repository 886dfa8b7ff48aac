//! From the old system's PostgreSQL, as Prisma made its tables.

use std::fmt::Write as _;

use serde_json::Value;
use tokio::task::block_in_place;

use crate::fixture::{HASH, Place, Run, rows};
use crate::support::postgres::Cluster;
use crate::support::service::{Client, Engine, TestDatabase, TestService, on_both_databases};
use crate::support::wait::eventually;

/// What `npm bcrypt` made of passwords: hash and password.
fn node_passwords() -> Vec<(String, String)> {
    let rows: Vec<Value> = serde_json::from_str(include_str!("../vectors/passwords.json")).unwrap();
    let text = |row: &Value, name| row[name].as_str().unwrap().to_owned();
    rows.iter()
        .filter(|row| text(row, "source").starts_with("npm bcrypt"))
        .map(|row| (text(row, "hash"), text(row, "password")))
        .collect()
}

pub(crate) const TENANT: &str = "5f8b2b0e-8a3c-4f53-9d0a-7b1f6a0c1d2e";

/// The old system with one tenant, and no user.
pub(crate) struct OldSystem {
    database: TestDatabase,
    users: &'static str,
}

impl OldSystem {
    /// With tables of these names, and columns for ids and times of these types.
    fn new(tenants: &'static str, users: &'static str, id: &str, time: &str) -> Self {
        Self::at(TestDatabase::empty(Engine::Postgres), tenants, users, id, time)
    }

    /// In a database of this encoding. `SQL_ASCII` takes any bytes for text.
    pub(crate) fn encoded(encoding: &str) -> Self {
        let template = format!("template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let database = block_in_place(|| Cluster::shared().create_database_from(&template));
        let folder = tempfile::tempdir().unwrap();
        let database = TestDatabase { url: database.url.clone(), folder, postgres: Some(database) };
        Self::at(database, "tenants", "users", "text", "timestamp(3)")
    }

    fn at(database: TestDatabase, tenants: &'static str, users: &'static str, id: &str, time: &str) -> Self {
        let old = Self { database, users };
        old.admin(&format!(
            r#"CREATE TABLE {tenants} (id {id} PRIMARY KEY, name text, "createdAt" {time}, "updatedAt" {time});
               CREATE TABLE {users} (id {id} PRIMARY KEY, email text UNIQUE, "firstName" text,
                   "lastName" text, password text, "tenantId" {id}, "createdAt" {time}, "updatedAt" {time});
               INSERT INTO {tenants} VALUES ('{TENANT}', 'Analytical Engines', '2020-01-01', '2020-01-01')"#
        ));
        old
    }

    fn usual() -> Self {
        Self::new("tenants", "users", "text", "timestamp(3)")
    }

    pub(crate) fn admin(&self, sql: &str) {
        block_in_place(|| self.database.postgres.as_ref().unwrap().admin(sql));
    }

    /// A user of the tenant who came on a day of 2021.
    pub(crate) fn user(&self, id: &str, email: &str, hash: &str, day: usize) {
        self.admin(&format!(
            "INSERT INTO {} VALUES ('{id}', '{email}', 'Ada', 'Lovelace', '{hash}', '{TENANT}', \
             '2021-01-01'::timestamp + interval '{day} days', '2022-01-01 12:34:56.789')",
            self.users
        ));
    }

    pub(crate) async fn moved_to(&self, place: &Place, more: &[&str]) -> Run {
        place.run(&[&["import", "prisma", "--from", &self.database.url], more].concat()).await
    }
}

on_both_databases!(
    everybody_comes_over_and_logs_in_with_the_old_password,
    an_id_that_is_no_uuid_gets_the_same_other_one_each_time,
    of_e_mails_that_differ_in_case_the_oldest_user_has_it,
    broken_rows_are_told_and_the_rest_goes_in,
    tables_and_columns_as_prisma_may_make_them_are_read,
);

async fn everybody_comes_over_and_logs_in_with_the_old_password(engine: Engine) {
    let (old, place) = (OldSystem::usual(), Place::new(engine).await);
    // 80 bytes, of which the old system knew the first 72.
    let long =
        format!("{}{}", "correct horse battery staple ".repeat(3), "ab").chars().take(80).collect::<String>();
    let mut passwords = node_passwords();
    assert!(passwords.iter().any(|(_, password)| password.len() > 255));
    passwords.push((bcrypt::hash(&long.as_bytes()[..72], 4).unwrap(), long.clone()));
    let mut rows = String::new();
    for (n, (hash, _)) in passwords.iter().enumerate() {
        let separator = if n == 0 { "" } else { ", " };
        write!(
            rows,
            "{separator}('018f4e9a-7c1e-7b3a-9d2e-{n:012}', 'user{n}@example.com', 'Ada', 'Lovelace', '{hash}', \
             '{TENANT}', '2021-01-01'::timestamp + interval '{n} days', '2022-01-01')"
        )
        .unwrap();
    }
    old.admin(&format!("INSERT INTO users VALUES {rows}"));

    let count = passwords.len();
    let printed = old.moved_to(&place, &[]).await.ok();
    let expected = format!(
        "tenants: 1 imported, 0 there already, 0 refused\nusers: {count} imported, 0 there already, 0 refused\n"
    );
    assert_eq!(printed, expected);
    let mut outside = place.outside().await;
    let roles = outside.texts("SELECT role AS cell FROM users ORDER BY created_at").await;
    assert_eq!(roles[0], "owner");
    assert!(roles[1..].iter().all(|role| role == "member"));

    // Each change is told, and the run.
    let told = "SELECT action || ' ' || actor_kind || ' ' || actor_name || ' ' || coalesce(reason, '-') AS cell \
                FROM audit_events ORDER BY id";
    let told = outside.texts(told).await;
    assert_eq!(told.len(), count + 2);
    for (told, expected) in [
        (&told[0], "tenant.created operator grace imported"),
        (&told[1], "user.created operator grace imported"),
        (&told[count + 1], "directory.imported operator grace -"),
    ] {
        assert_eq!(told, expected);
    }

    // The same again is there already.
    let printed = old.moved_to(&place, &[]).await.ok();
    assert!(printed.contains(&format!("users: 0 imported, {count} there already, 0 refused")), "{printed}");

    let service = TestService::start_with(place.database, &[]).await;
    let client = service.client();
    for (n, (_, password)) in passwords.iter().enumerate() {
        let email = format!("USER{n}@example.com");
        client.login(&email, password).await.unwrap_or_else(|status| panic!("{n}: {status}"));
    }
    log_in_with_others(&client, passwords.len() - 1, &long).await;
}

/// After the first login the password is kept as a whole.
async fn log_in_with_others(client: &Client, n: usize, password: &str) {
    let email = format!("user{n}@example.com");
    eventually("the hash is replaced", async || client.login(&email, &password[..72]).await.is_err()).await;
    assert!(client.login(&email, &format!("{}!", &password[..79])).await.is_err());
    assert!(client.login(&email, password).await.is_ok());
}

async fn an_id_that_is_no_uuid_gets_the_same_other_one_each_time(engine: Engine) {
    let (old, place) = (OldSystem::usual(), Place::new(engine).await);
    old.admin(&format!("UPDATE tenants SET id = 'cldtenant' WHERE id = '{TENANT}'"));
    old.user("clduser", "ada@example.com", HASH, 1);
    old.user("018F4E9A-7C1E-7B3A-9D2E-3F5A6B7C8D9E", "grace@example.com", HASH, 2);
    old.admin(r#"UPDATE users SET "tenantId" = 'cldtenant'"#);

    old.moved_to(&place, &[]).await.ok();
    let mapping = place.report("identity-import-mapping.jsonl");
    let old_ids: Vec<_> = mapping.iter().map(|line| line["old_id"].as_str().unwrap()).collect();
    assert_eq!(old_ids, ["cldtenant", "clduser"]);
    let export = place.export().await;
    let new_id = |n: usize| mapping[n]["new_id"].as_str().unwrap();
    let lines: Vec<Value> = rows(&export).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["id"], new_id(0));
    for line in &lines[1..] {
        assert_eq!(line["tenant_id"], new_id(0));
        let ada = line["email"] == "ada@example.com";
        assert_eq!(line["id"], if ada { new_id(1) } else { "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e" });
        assert_eq!(line["role"], if ada { "owner" } else { "member" });
    }
    // RFC 9562, 5.8.
    assert_eq!((&new_id(1)[14..15], new_id(1).len()), ("8", 36));

    // Elsewhere, and again.
    let other = Place::new(engine).await;
    old.moved_to(&other, &["--mapping", "ids"]).await.ok();
    old.moved_to(&other, &["--mapping", "ids"]).await.ok();
    assert_eq!(other.report("ids"), mapping);
    assert_eq!(other.export().await, export);
}

async fn of_e_mails_that_differ_in_case_the_oldest_user_has_it(engine: Engine) {
    let (old, place) = (OldSystem::usual(), Place::new(engine).await);
    // The tenant that is read first has the younger user.
    const FIRST: &str = "00000000-0000-0000-0000-000000000001";
    old.admin(&format!("INSERT INTO tenants VALUES ('{FIRST}', 'First', '2020-01-01', '2020-01-01')"));
    old.user("old", "Ada@Example.com", HASH, 1);
    old.user("young", "ada@example.com", HASH, 2);
    old.user("youngest", "ADA@EXAMPLE.COM", HASH, 3);
    old.user("other", "grace@example.com", HASH, 4);
    old.admin(&format!(r#"UPDATE users SET "tenantId" = '{FIRST}' WHERE id <> 'old'"#));

    let run = old.moved_to(&place, &[]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("users: 2 imported, 0 there already, 2 refused"), "{run:?}");
    assert!(run.out.contains("refused: 2 user email_taken"), "{run:?}");
    assert!(run.err.contains("NOT ALL WENT IN: 2 rows were refused"), "{run:?}");
    let report = place.report("identity-import-refused.jsonl");
    let ids: Vec<_> = report.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["young", "youngest"]);
    let emails = place.outside().await.texts("SELECT email AS cell FROM users ORDER BY email DESC").await;
    assert_eq!(emails, ["grace@example.com", "Ada@Example.com"]);
    assert!(!format!("{run:?}{report:?}").to_lowercase().contains("ada@"));
}

async fn broken_rows_are_told_and_the_rest_goes_in(engine: Engine) {
    let (old, place) = (OldSystem::usual(), Place::new(engine).await);
    old.admin("INSERT INTO tenants VALUES ('nameless', ' ', '2020-01-02', '2020-01-01')");
    // In the order of reading, with what is wrong.
    let broken = [
        ("email = 'nobody'", "bad_email"),
        ("email = NULL", "bad_email"),
        (r#""firstName" = ''"#, "bad_first_name"),
        (r#""lastName" = 'a' || chr(7)"#, "bad_last_name"),
        ("password = 'secret'", "bad_password_hash"),
        ("password = NULL", "bad_password_hash"),
        ("password = replace(password, '$04$', '$17$')", "bad_password_hash"),
        (r#""createdAt" = NULL"#, "bad_time"),
        (r#""updatedAt" = 'infinity'"#, "bad_time"),
        (r#""tenantId" = 'nameless'"#, "unknown_tenant"),
        (r#""tenantId" = 'nobodys'"#, "unknown_tenant"),
        (r#""tenantId" = NULL"#, "bad_id"),
    ];
    for (n, (change, _)) in broken.iter().enumerate() {
        old.user(&format!("broken{n}"), &format!("broken{n}@example.com"), HASH, n);
        old.admin(&format!("UPDATE users SET {change} WHERE id = 'broken{n}'"));
    }
    old.user("good", "good@example.com", HASH, 100);
    // By the clock of another machine: a second before the creation.
    old.admin(r#"UPDATE users SET "updatedAt" = "createdAt" - interval '1 second' WHERE id = 'good'"#);

    let run = old.moved_to(&place, &["--report", "why"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("tenants: 1 imported, 0 there already, 1 refused"), "{run:?}");
    assert!(run.out.contains("users: 1 imported, 0 there already, 12 refused"), "{run:?}");
    let report = place.report("why");
    let reasons = |id: &str| {
        let line = report.iter().find(|line| line["id"] == id).unwrap_or_else(|| panic!("{id}: {report:?}"));
        line["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reasons("nameless"), "bad_name");
    for (n, (_, reason)) in broken.iter().enumerate() {
        assert_eq!(reasons(&format!("broken{n}")), *reason, "{n}");
    }
    let same = "SELECT email AS cell FROM users WHERE updated_at = created_at";
    assert_eq!(place.outside().await.texts(same).await, ["good@example.com"]);
    let told = format!("{run:?}{report:?}");
    assert!(
        !told.contains("0@example.com") && !told.contains("nobody\"") && !told.contains("secret"),
        "{told}"
    );
}

async fn tables_and_columns_as_prisma_may_make_them_are_read(engine: Engine) {
    for (tenants, users, id, time) in [
        ("\"Tenant\"", "\"User\"", "uuid", "timestamptz"),
        ("tenants", "\"User\"", "varchar(36)", "timestamp(3)"),
    ] {
        let (old, place) = (OldSystem::new(tenants, users, id, time), Place::new(engine).await);
        // A session elsewhere must not shift the times.
        old.admin("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''UTC''', current_database()); END $$");
        old.user("018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e", "ada@example.com", HASH, 0);
        old.admin(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$",
        );
        old.moved_to(&place, &[]).await.ok();
        let export = place.export().await;
        let ada: Value = serde_json::from_str(export.lines().nth(2).unwrap()).unwrap();
        assert_eq!(ada["created_at"], "2021-01-01T00:00:00.000000Z");
        assert_eq!(ada["updated_at"], "2022-01-01T12:34:56.789000Z");
        assert_eq!(ada["password_scheme"], "bcrypt-truncated");
        assert!(!place.path("identity-import-mapping.jsonl").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_not_unavailable() {
    let (old, place) = (OldSystem::usual(), Place::new(Engine::Sqlite).await);
    // Roles belong to the whole cluster.
    let role = format!("outsider_of_{}", old.database.postgres.as_ref().unwrap().name());
    old.admin(&format!("CREATE ROLE {role} LOGIN"));
    let from = old.database.url.replacen("//identity@", &format!("//{role}@"), 1);
    let nobody = old.database.url.replacen("//identity@", "//nobody_of_this_name@", 1);
    let import = async |from: &str| {
        let run = place.run(&["import", "prisma", "--from", from]).await;
        assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
        assert!(run.err.contains("the old system's database") && !run.err.contains("unavailable"), "{run:?}");
        run.err
    };
    assert!(import(&from).await.contains("permission denied for table tenants (SQLSTATE 42501)"));
    // What is counted by one of the columns, and cannot be read.
    let grant = format!("GRANT SELECT ON tenants TO {role}; GRANT SELECT (id) ON users TO {role}");
    old.admin(&grant);
    let run = place.run(&["import", "prisma", "--from", &from]).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("permission denied for table users"), "{run:?}");
    assert!(!run.err.contains("unavailable"), "{run:?}");
    assert!(import(&nobody).await.contains("does not let this user in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_before_anything_is_written() {
    let place = Place::new(Engine::Sqlite).await;
    let empty = TestDatabase::empty(Engine::Postgres);
    let run = place.run(&["import", "prisma", "--from", &empty.url]).await;
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("neither a table tenants nor \"Tenant\""), "{run:?}");
    let old = OldSystem::usual();
    old.admin("ALTER TABLE users DROP COLUMN password");
    let run = old.moved_to(&place, &[]).await;
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("has no column \"password\""), "{run:?}");
    for from in ["sqlite:old.db", "postgres://ada:hunter2@h:x/d"] {
        let run = place.run(&["import", "prisma", "--from", from]).await;
        assert_eq!(run.code, Some(64), "{run:?}");
        assert!(
            run.err.contains("IDENTITY_IMPORT_FROM (--from): must ") && !run.err.contains("hunter2"),
            "{run:?}"
        );
    }
    assert_eq!(place.run(&["import", "prisma"]).await.code, Some(64));
    assert_eq!(place.outside().await.count("audit_events").await, 0);

    let old = OldSystem::usual();
    let mut command = place.command(&["import", "prisma"]);
    let run = command.env("IDENTITY_IMPORT_FROM", &old.database.url).output().await.unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
}
