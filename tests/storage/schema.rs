//! The live schema: what `src/storage/schema.rs` says it is, the same on both databases, and made
//! so that it stays fast and can be split by tenant.

use std::collections::BTreeSet;

use identity::storage;

use crate::fixture::{Fixture, at, user};
use crate::sql::Outside;
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    the_tables_are_those_that_the_queries_are_written_for,
    the_view_has_the_tenants_that_are_not_deleted,
    the_indexes_are_the_same,
);

/// A table of `src/storage/schema.rs`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    key: Vec<&'static str>,
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    kind: &'static str,
    pub(crate) nullable: bool,
}

/// The tables of `src/storage/schema.rs`, diesel's own and the view aside.
pub(crate) fn tables() -> Vec<Table> {
    let mut tables = tables_and_view();
    tables.retain(|table| table.name != VIEW);
    tables
}

fn tables_and_view() -> Vec<Table> {
    parse(include_str!("../../src/storage/schema.rs"))
}

/// Reads diesel's `table!` notation, as far as that file uses it: one line a column.
fn parse(source: &'static str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut sql_name = None;
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("#[sql_name = \"") {
            sql_name = name.strip_suffix("\"]");
        } else if let Some((name, key)) = line.strip_suffix(") {").and_then(|line| line.split_once(" (")) {
            let name = sql_name.take().unwrap_or(name);
            tables.push(Table { name, key: key.split(", ").collect(), columns: Vec::new() });
        } else if let Some((name, kind)) = line.strip_suffix(',').and_then(|line| line.split_once(" -> ")) {
            let required = kind.strip_prefix("Nullable<").and_then(|kind| kind.strip_suffix('>'));
            let column = Column { name, kind: required.unwrap_or(kind), nullable: required.is_some() };
            tables.last_mut().unwrap().columns.push(column);
        }
    }
    tables.retain(|table| !table.name.starts_with("__diesel"));
    tables
}

/// What the file has that is no table in the database but a view: its rules are those of its table.
const VIEW: &str = "live_tenants";

/// What a type of the schema file is in a database.
fn native(kind: &str, engine: Engine) -> &'static str {
    match (kind, engine) {
        ("Id", Engine::Postgres) => "uuid",
        ("Instant", Engine::Postgres) => "timestamp with time zone",
        ("Text", Engine::Postgres) => "text",
        ("BigInt", Engine::Postgres) => "bigint",
        ("Binary", Engine::Postgres) => "bytea",
        ("Id" | "Binary", Engine::Sqlite) => "BLOB",
        ("Instant" | "BigInt", Engine::Sqlite) => "INTEGER",
        ("Text", Engine::Sqlite) => "TEXT",
        _ => panic!("say what {kind} is on {engine:?}"),
    }
}

/// Each as `table: column type [not] null, … key (…)`, the columns in order.
fn described(engine: Engine) -> BTreeSet<String> {
    let describe = |table: Table| {
        let columns = table.columns.iter().map(|column| {
            let null = if column.nullable { "null" } else { "not null" };
            format!("{} {} {null}", column.name, native(column.kind, engine))
        });
        format!("{}: {}; key {}", table.name, columns.collect::<Vec<_>>().join(", "), table.key.join(", "))
    };
    tables().into_iter().map(describe).collect()
}

/// What the database has, in the same words.
async fn live(outside: &mut Outside) -> BTreeSet<String> {
    let sql = match outside {
        Outside::Sqlite(_) => {
            "SELECT t.name || ': ' || (
                 SELECT group_concat(name || ' ' || type || iif(\"notnull\", ' not null', ' null'), ', ' ORDER BY cid)
                 FROM pragma_table_info(t.name)
             ) || '; key ' || (
                 SELECT group_concat(name, ', ' ORDER BY pk) FROM pragma_table_info(t.name) WHERE pk > 0
             ) AS cell
             FROM pragma_table_list AS t
             WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'"
        }
        Outside::Postgres(_) => {
            "SELECT t.table_name || ': ' || (
                 SELECT string_agg(c.column_name || ' ' || c.data_type
                     || CASE c.is_nullable WHEN 'NO' THEN ' not null' ELSE ' null' END, ', ' ORDER BY ordinal_position)
                 FROM information_schema.columns c
                 WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name
             ) || '; key ' || (
                 SELECT string_agg(k.column_name, ', ' ORDER BY k.ordinal_position)
                 FROM information_schema.table_constraints p
                 JOIN information_schema.key_column_usage k USING (constraint_schema, constraint_name)
                 WHERE p.table_schema = t.table_schema AND p.table_name = t.table_name
                   AND p.constraint_type = 'PRIMARY KEY'
             ) AS cell
             FROM information_schema.tables t
             WHERE t.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND t.table_name NOT LIKE '\\_\\_diesel%'"
        }
    };
    outside.texts(sql).await.into_iter().collect()
}

async fn the_tables_are_those_that_the_queries_are_written_for(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let live = live(&mut fixture.outside().await).await;
    assert_eq!(live, described(engine));
    assert_eq!(live.len(), 12);
}

/// The columns of the view are the first of its table: what is left out tells of deleted tenants.
async fn the_view_has_the_tenants_that_are_not_deleted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut outside = fixture.outside().await;
    let find = |name| tables_and_view().into_iter().find(|table: &Table| table.name == name).unwrap();
    let (view, table) = (find(VIEW), find("tenants"));
    assert_eq!(view.columns, table.columns[..view.columns.len()]);
    for n in [1, 2] {
        fixture.register(&user(n)).await;
    }
    let mut tx = fixture.begin().await;
    assert!(storage::tenants::delete(&mut tx, user(1).tenant.id, at(9)).await.unwrap());
    tx.commit().await.unwrap();
    let columns: Vec<_> = view.columns.iter().map(|column| column.name).collect();
    let listed = format!("(SELECT {} FROM {VIEW}) AS listed", columns.join(", "));
    assert_eq!(outside.count(&listed).await, 1);
    assert_eq!(outside.count("tenants").await, 2);
}

async fn the_indexes_are_the_same(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let sql = match engine {
        Engine::Sqlite => {
            "SELECT m.tbl_name || ' (' || (SELECT group_concat(name, ', ' ORDER BY seqno) FROM pragma_index_info(m.name)) || ')'
                 || coalesce(' ' || substr(m.sql, nullif(instr(m.sql, 'WHERE'), 0)), '') AS cell
             FROM sqlite_schema m WHERE m.type = 'index' AND m.sql IS NOT NULL"
        }
        Engine::Postgres => {
            // The collation is what SQLite's texts have anyway, and parentheses around a condition are taste.
            "SELECT tablename || regexp_replace(substring(indexdef FROM ' \\(.*'),
                 ' COLLATE \"C\"|(?<=WHERE )\\(|\\)$(?<=\\(.*\\).*\\))', '', 'g') AS cell FROM pg_indexes
             WHERE schemaname = 'public' AND indexname NOT IN (SELECT conname FROM pg_constraint)
               AND tablename NOT LIKE '\\_\\_diesel%'"
        }
    };
    let indexes: BTreeSet<_> = fixture.outside().await.texts(sql).await.into_iter().collect();
    let expected = [
        "users (id)",
        "users (tenant_id, created_at, id)",
        "users (tenant_id, role, created_at, id)",
        "users (tenant_id, external_id) WHERE external_id IS NOT NULL",
        "login_names (tenant_id, email_normalized)",
        "tenants (created_at, id)",
        "tenants (created_at, id) WHERE deleted_at IS NULL",
        "tenants (deleted_at, id) WHERE deleted_at IS NOT NULL",
        "audit_events (occurred_at)",
        "audit_events (tenant_id, action, id)",
        "audit_events (tenant_id, target_id, id)",
        "audit_events (tenant_id, actor_id, id) WHERE actor_id IS NOT NULL",
        "sessions (tenant_id, user_id)",
        "sessions (expires_at)",
        "sessions (last_used_at)",
        "request_outcomes (tenant_id, user_id)",
        "request_outcomes (expires_at)",
        "attempts (expires_at)",
    ];
    assert_eq!(indexes, expected.map(str::to_owned).into());
}

/// Deleting a parent looks its children up; without an index, in the whole table.
#[tokio::test(flavor = "multi_thread")]
async fn every_foreign_key_has_an_index() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut outside = fixture.outside().await;
    let without_index = "
        SELECT conrelid::regclass || '.' || conname AS cell FROM pg_constraint c
        WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = c.conrelid AND i.indpred IS NULL
              AND (SELECT array_agg(column_number ORDER BY column_number)
                   FROM unnest(i.indkey[0:cardinality(c.conkey) - 1]) column_number)
                = (SELECT array_agg(column_number ORDER BY column_number) FROM unnest(c.conkey) column_number)
        )";
    assert_eq!(outside.texts(without_index).await, Vec::<String>::new());
    // The question itself finds what it is asked for.
    outside.run("DROP INDEX sessions_by_user").await;
    assert_eq!(outside.texts(without_index).await, ["sessions.sessions_tenant_id_user_id_fkey"]);
}

/// So that the tables can be split by tenant. The others are looked up before the tenant is known.
#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_leads_every_key_but_those_that_come_before_it() {
    let before_the_tenant = [
        "attempts",
        "audit_cutoffs",
        "imported_costs",
        "login_names",
        "request_outcomes",
        "service_tokens",
        "signing_keys",
        "tenants",
    ];
    let others: Vec<_> =
        tables().into_iter().filter(|table| table.key[0] != "tenant_id").map(|table| table.name).collect();
    let others: BTreeSet<_> = others.into_iter().collect();
    assert_eq!(others, before_the_tenant.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_point_in_time_depends_on_the_time_zone_of_a_session() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut outside = fixture.outside().await;
    let without_zone = "
        SELECT table_name || '.' || column_name AS cell FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_diesel%'
          AND data_type IN ('timestamp without time zone', 'date', 'time without time zone')";
    assert_eq!(outside.texts(without_zone).await, Vec::<String>::new());
    outside.run("ALTER TABLE tenants ADD COLUMN at timestamp").await;
    assert_eq!(outside.texts(without_zone).await, ["tenants.at"]);
}

#[test]
fn the_reader_of_the_schema_file_sees_keys_columns_and_null() {
    let source = "table! {\n    users (tenant_id, id) {\n        tenant_id -> Id,\n        at -> Nullable<Instant>,\n    }\n}\n\
                  table! {\n    __diesel_x (version) {\n        version -> Text,\n    }\n}\n";
    let columns = vec![
        Column { name: "tenant_id", kind: "Id", nullable: false },
        Column { name: "at", kind: "Instant", nullable: true },
    ];
    assert_eq!(parse(source), [Table { name: "users", key: vec!["tenant_id", "id"], columns }]);
    assert_eq!(tables().len(), 12);
}

/// Operators use the sqlite3 of their distribution, which may be years older than the bundled SQLite.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_sqlite_call_only_functions_that_all_its_versions_have() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let sql = "SELECT sql AS cell FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'";
    let definitions = fixture.outside().await.texts(sql).await;
    let mut called = BTreeSet::new();
    for definition in &definitions {
        for (before, _) in definition.match_indices('(') {
            let words = definition[..before].rsplit(|c: char| !c.is_alphanumeric() && c != '_');
            called.extend(words.take(1).map(str::to_ascii_lowercase));
        }
    }
    // Before the other parentheses there is a space.
    called.remove("");
    let known = ["cast", "coalesce", "length", "max", "raise"].map(str::to_owned);
    assert_eq!(called, BTreeSet::from(known));
}
