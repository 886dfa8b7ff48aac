//! The rules of the tables, by SQL from outside: the database refuses what this program would never
//! write, and no rule is left untried.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::fixture::Fixture;
use crate::schema::tables;
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(every_rule_of_the_tables_refuses_rows, a_row_at_the_limits_is_accepted);

/// A value of a column, in neither database's notation.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// The identifier whose bytes are all this one.
    Id(u8),
    /// An identifier with that many bytes, which only SQLite can hold.
    LongId(usize),
    Bytes(usize),
    /// 32 bytes that are all this one.
    Digest(u8),
    Text(String),
    Int(i64),
    /// Seconds since the Unix epoch.
    Time(i64),
    Null,
}
use Value::{Bytes, Digest, Id, Int, LongId, Null, Time};

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// That many characters of one byte.
fn long(chars: usize) -> Value {
    Value::Text("x".repeat(chars))
}

impl Value {
    fn literal(&self, engine: Engine) -> String {
        match (self, engine) {
            (Id(byte), Engine::Postgres) => format!("'{}'", Uuid::from_bytes([*byte; 16])),
            (Id(byte), Engine::Sqlite) => format!("x'{}'", format!("{byte:02x}").repeat(16)),
            (Digest(byte), Engine::Postgres) => format!("'\\x{}'", format!("{byte:02x}").repeat(32)),
            (Digest(byte), Engine::Sqlite) => format!("x'{}'", format!("{byte:02x}").repeat(32)),
            (LongId(bytes) | Bytes(bytes), Engine::Sqlite) => format!("zeroblob({bytes})"),
            (LongId(bytes) | Bytes(bytes), Engine::Postgres) => {
                format!("decode(repeat('00', {bytes}), 'hex')")
            }
            (Value::Text(text), _) => format!("'{text}'"),
            (Int(number), _) => number.to_string(),
            (Time(seconds), Engine::Postgres) => format!("to_timestamp({seconds})"),
            (Time(seconds), Engine::Sqlite) => (seconds * 1_000_000).to_string(),
            (Null, _) => "NULL".to_owned(),
        }
    }
}

/// The `n`th good row of each table, parents first.
pub(crate) fn good(n: u8) -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let email = text(&format!("user{n}@example.com"));
    let person = [("created_at", Time(10)), ("updated_at", Time(10))];
    let of_user = [("tenant_id", Id(n)), ("user_id", Id(n))];
    vec![
        (
            "tenants",
            [("id", Id(n)), ("name", text("T")), ("version", Int(1))]
                .into_iter()
                .chain(person.clone())
                .chain([("deleted_at", Null), ("users_removed", Int(0))])
                .collect(),
        ),
        (
            "users",
            [
                ("tenant_id", Id(n)),
                ("id", Id(n)),
                ("email", email.clone()),
                ("first_name", text("F")),
                ("last_name", text("L")),
                ("role", text("owner")),
                ("state", text("active")),
                ("version", Int(1)),
                ("external_id", text(&format!("external {n}"))),
            ]
            .into_iter()
            .chain(person)
            .collect(),
        ),
        ("login_names", [("email_normalized", email)].into_iter().chain(of_user.clone()).collect()),
        (
            "passwords",
            of_user
                .clone()
                .into_iter()
                .chain([("scheme", text("bcrypt")), ("hash", text("h")), ("changed_at", Time(0))])
                .collect(),
        ),
        (
            "sessions",
            of_user
                .clone()
                .into_iter()
                .chain([
                    ("id", Id(n)),
                    ("generation", Int(0)),
                    ("secret_digest", Bytes(32)),
                    ("created_at", Time(10)),
                    ("last_used_at", Time(10)),
                    ("expires_at", Time(11)),
                    ("device", Null),
                    ("address", Null),
                    ("revoked_at", Null),
                    ("rotations", Null),
                ])
                .collect(),
        ),
        (
            "request_outcomes",
            of_user
                .into_iter()
                .chain([
                    ("request_id", Id(n)),
                    ("fingerprint", Bytes(32)),
                    ("created_at", Time(10)),
                    ("expires_at", Time(11)),
                ])
                .collect(),
        ),
        (
            "signing_keys",
            vec![
                ("kid", text(&format!("kid{n}"))),
                ("algorithm", text("EdDSA")),
                ("public_key", Bytes(32)),
                ("sealed_private_key", Bytes(32)),
                ("created_at", Time(10)),
                ("signs_from", Time(10)),
                ("published_until", Null),
            ],
        ),
        (
            "attempts",
            vec![
                ("subject", Digest(n)),
                ("source", Digest(n)),
                ("counted", Bytes(0)),
                ("pending", Bytes(0)),
                ("known_until", Null),
                ("expires_at", Time(11)),
            ],
        ),
        (
            "audit_events",
            vec![
                ("tenant_id", Id(n)),
                ("id", Id(n)),
                ("occurred_at", Time(10)),
                ("actor_kind", text("user")),
                ("actor_id", Null),
                ("actor_name", Null),
                ("action", text("user.created")),
                ("target_kind", Null),
                ("target_id", Null),
                ("target_name", Null),
                ("changes", Null),
                ("reason", Null),
                ("request_id", Null),
                ("source", Null),
                ("count", Int(1)),
            ],
        ),
        ("audit_cutoffs", vec![("cutoff", Time(i64::from(n))), ("recorded_at", Time(10))]),
        ("imported_costs", vec![("cost", Int(10 + i64::from(n))), ("batches", Int(1))]),
        (
            "service_tokens",
            vec![
                ("id", Id(n)),
                ("name", text("billing")),
                ("secret_digest", Bytes(32)),
                ("allowed_rpcs", Null),
                ("created_at", Time(10)),
                ("expires_at", Null),
                ("revoked_at", Null),
            ],
        ),
    ]
}

/// What makes the second good row of a table a bad one, while the first one is there.
fn bad(engine: Engine) -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let mut bad = Vec::new();
    let mut one = |table, column, values: Vec<Value>| {
        bad.extend(values.into_iter().map(|value| (table, vec![(column, value)])));
    };
    one("tenants", "id", vec![Id(1)]);
    one("tenants", "name", vec![text(""), long(201)]);
    one("tenants", "version", vec![Int(0)]);
    one("tenants", "updated_at", vec![Time(9)]);
    one("tenants", "users_removed", vec![Int(-1)]);
    one("users", "tenant_id", vec![Id(9)]);
    one("users", "email", vec![long(2), long(255), text(&"\u{e9}".repeat(128))]);
    one("users", "first_name", vec![text(""), long(101)]);
    one("users", "last_name", vec![text(""), long(101)]);
    one("users", "external_id", vec![text("external 1"), text(""), long(256)]);
    one("users", "role", vec![text("root"), text("Owner"), text("")]);
    one("users", "state", vec![text("gone"), text("ACTIVE"), text("")]);
    one("users", "version", vec![Int(0)]);
    one("users", "updated_at", vec![Time(9)]);
    one("login_names", "email_normalized", vec![text("user1@example.com"), long(2), long(255)]);
    one("login_names", "user_id", vec![Id(9)]);
    one("login_names", "tenant_id", vec![Id(1)]);
    one("passwords", "scheme", vec![text("md5"), text("")]);
    one("passwords", "hash", vec![text(""), long(257)]);
    one("passwords", "user_id", vec![Id(9)]);
    one("passwords", "tenant_id", vec![Id(1)]);
    one("sessions", "generation", vec![Int(-1), Int(4_294_967_296)]);
    one("sessions", "secret_digest", vec![Bytes(31), Bytes(33)]);
    one("sessions", "last_used_at", vec![Time(9)]);
    one("sessions", "expires_at", vec![Time(10)]);
    one("sessions", "device", vec![text(""), long(201)]);
    one("sessions", "address", vec![text(""), long(65)]);
    one("sessions", "rotations", vec![Bytes(7), Bytes(129), Bytes(136)]);
    one("sessions", "user_id", vec![Id(9)]);
    one("sessions", "tenant_id", vec![Id(1)]);
    one("request_outcomes", "request_id", vec![Id(1)]);
    one("request_outcomes", "fingerprint", vec![Bytes(31), Bytes(33)]);
    one("request_outcomes", "expires_at", vec![Time(10)]);
    one("request_outcomes", "user_id", vec![Id(9)]);
    one("request_outcomes", "tenant_id", vec![Id(1)]);
    one("signing_keys", "kid", vec![text("kid1"), text(""), long(129)]);
    one("signing_keys", "algorithm", vec![text("none"), text("HS256")]);
    one("signing_keys", "public_key", vec![Bytes(31), Bytes(4_097)]);
    one("signing_keys", "sealed_private_key", vec![Bytes(31), Bytes(8_193)]);
    one("signing_keys", "published_until", vec![Time(10)]);
    one("attempts", "subject", vec![Bytes(31), Bytes(33)]);
    one("attempts", "source", vec![Bytes(31), Bytes(33)]);
    one("attempts", "counted", vec![Bytes(7), Bytes(8_008)]);
    one("attempts", "pending", vec![Bytes(7), Bytes(8_008)]);
    one("audit_events", "actor_kind", vec![text("root"), text("")]);
    one("audit_events", "actor_name", vec![text(""), long(2_049)]);
    one("audit_events", "action", vec![text(""), long(65)]);
    one("audit_events", "target_kind", vec![text(""), long(65)]);
    one("audit_events", "target_name", vec![text(""), long(257)]);
    one("audit_events", "changes", vec![text("x"), long(8_193)]);
    one("audit_events", "reason", vec![text(""), long(65)]);
    one("audit_events", "request_id", vec![text(""), long(65)]);
    one("audit_events", "source", vec![text(""), long(65)]);
    one("audit_events", "count", vec![Int(0)]);
    one("audit_cutoffs", "cutoff", vec![Time(1), Time(11)]);
    one("imported_costs", "cost", vec![Int(3), Int(32), Int(11)]);
    one("imported_costs", "batches", vec![Int(0)]);
    one("service_tokens", "id", vec![Id(1)]);
    one("service_tokens", "name", vec![text(""), long(101)]);
    one("service_tokens", "secret_digest", vec![Bytes(31), Bytes(33)]);
    one("service_tokens", "allowed_rpcs", vec![text(""), long(8_193)]);
    one("service_tokens", "expires_at", vec![Time(10)]);
    if engine == Engine::Sqlite {
        for (table, column) in
            [("tenants", "id"), ("users", "id"), ("sessions", "id"), ("service_tokens", "id")]
        {
            one(table, column, vec![LongId(15), LongId(17), LongId(0)]);
        }
        one("request_outcomes", "request_id", vec![LongId(15), LongId(17), LongId(0)]);
        for column in ["tenant_id", "id", "actor_id", "target_id"] {
            one("audit_events", column, vec![LongId(15), LongId(17), LongId(0)]);
        }
    }
    // Keys of more than one column.
    bad.push(("attempts", vec![("subject", Digest(1)), ("source", Digest(1))]));
    let both = |id, n| vec![("tenant_id", Id(n)), (id, Id(n))];
    bad.push(("users", both("id", 1)));
    bad.push(("audit_events", both("id", 1)));
    bad.push(("passwords", both("user_id", 1)));
    bad.push(("login_names", both("user_id", 1)));
    bad.push(("sessions", [both("user_id", 1), vec![("id", Id(1))]].concat()));
    bad
}

pub(crate) fn insert(engine: Engine, table: &str, row: &[(&str, Value)]) -> String {
    let columns: Vec<_> = row.iter().map(|(column, _)| *column).collect();
    let values: Vec<_> = row.iter().map(|(_, value)| value.literal(engine)).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "))
}

/// `row` with some values replaced.
fn with(row: &[(&'static str, Value)], changes: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let changed = |column| changes.iter().find(|(other, _)| *other == column).map(|(_, value)| value.clone());
    row.iter().map(|(column, value)| (*column, changed(*column).unwrap_or_else(|| value.clone()))).collect()
}

async fn every_rule_of_the_tables_refuses_rows(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut outside = fixture.outside().await;
    for (table, row) in good(1) {
        outside.run(&insert(engine, table, &row)).await;
    }
    let second: BTreeMap<_, _> = good(2).into_iter().collect();
    for parent in ["tenants", "users"] {
        outside.run(&insert(engine, parent, &with(&second[parent], &[]))).await;
    }
    // Parents of the bad rows below are there; their own second rows are not, but for these two.
    let third: BTreeMap<_, _> = good(3).into_iter().collect();
    let row_of = |table| if matches!(table, "tenants" | "users") { &third[table] } else { &second[table] };
    let is_user_of_third = |table: &str| table == "users";

    let mut changes = bad(engine);
    for table in tables() {
        let required = table.columns.iter().filter(|column| !column.nullable);
        for column in required {
            changes.push((table.name, vec![(column.name, Null)]));
        }
    }
    let mut tried: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (table, mut changes) in changes {
        if is_user_of_third(table) && changes.iter().all(|(column, _)| *column != "tenant_id") {
            changes.push(("tenant_id", Id(1)));
        }
        let sql = insert(engine, table, &with(row_of(table), &changes));
        let refusal = outside.try_run(&sql).await.expect_err(&sql);
        assert!(refusal.is_violation, "{sql}: {refusal:?}");
        tried.entry(table).or_default().insert(refusal.rule);
    }

    for table in tables() {
        let tried = tried.remove(table.name).unwrap_or_default();
        match engine {
            Engine::Postgres => {
                let sql = format!(
                    "SELECT conname AS cell FROM pg_constraint \
                     WHERE conrelid = '{}'::regclass AND contype IN ('c', 'f', 'p', 'u')",
                    table.name
                );
                let mut rules: BTreeSet<_> = outside.texts(&sql).await.into_iter().collect();
                let sql = format!(
                    "SELECT indexrelid::regclass::text AS cell FROM pg_index \
                     WHERE indrelid = '{}'::regclass AND indisunique",
                    table.name
                );
                rules.extend(outside.texts(&sql).await);
                let untried: Vec<_> = rules.difference(&tried).collect();
                assert!(!rules.is_empty() && untried.is_empty(), "{}: {untried:?}", table.name);
            }
            Engine::Sqlite => {
                let sql = format!("SELECT sql AS cell FROM sqlite_schema WHERE name = '{}'", table.name);
                let definition = outside.texts(&sql).await.remove(0);
                let checks = definition.matches("CHECK (").count();
                let refused = tried.iter().filter(|rule| rule.starts_with("CHECK constraint failed")).count();
                assert_eq!(refused, checks, "{}: {tried:?}", table.name);
                let foreign = definition.contains("REFERENCES");
                assert_eq!(tried.contains("FOREIGN KEY constraint failed"), foreign, "{}", table.name);
                assert!(tried.iter().any(|rule| rule.starts_with("UNIQUE constraint failed")));
            }
        }
    }
}

async fn a_row_at_the_limits_is_accepted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut outside = fixture.outside().await;
    let mut at_limits: BTreeMap<_, Vec<_>> = BTreeMap::new();
    // Characters, not bytes, where people's words are counted; bytes where a protocol sets the limit.
    let wide = |chars: usize| Value::Text("\u{1f980}".repeat(chars));
    at_limits.insert("tenants", vec![("name", wide(200)), ("version", Int(i64::MAX))]);
    at_limits.insert(
        "users",
        vec![
            ("email", long(254)),
            ("first_name", wide(100)),
            ("last_name", wide(100)),
            ("external_id", wide(255)),
            ("role", text("member")),
        ],
    );
    at_limits.insert("login_names", vec![("email_normalized", long(254))]);
    at_limits.insert("passwords", vec![("hash", long(256)), ("scheme", text("bcrypt-truncated"))]);
    at_limits.insert(
        "sessions",
        vec![
            ("generation", Int(4_294_967_295)),
            ("device", wide(200)),
            ("address", long(64)),
            ("rotations", Bytes(128)),
        ],
    );
    at_limits.insert(
        "signing_keys",
        vec![
            ("kid", long(128)),
            ("algorithm", text("RS256")),
            ("public_key", Bytes(4_096)),
            ("sealed_private_key", Bytes(8_192)),
            ("published_until", Time(11)),
        ],
    );
    at_limits.insert(
        "attempts",
        vec![("counted", Bytes(8_000)), ("pending", Bytes(8_000)), ("known_until", Time(11))],
    );
    at_limits.insert(
        "audit_events",
        vec![
            ("actor_name", wide(2_048)),
            ("action", long(64)),
            ("changes", wide(8_192)),
            ("count", Int(i64::MAX)),
        ],
    );
    at_limits.insert(
        "service_tokens",
        vec![("name", wide(100)), ("allowed_rpcs", wide(8_192)), ("expires_at", Time(11))],
    );
    for (table, row) in good(1) {
        let row = with(&row, at_limits.get(table).map_or(&[], Vec::as_slice));
        outside.run(&insert(engine, table, &row)).await;
    }
}
