//! Migrations: forwards, backwards, and many processes at once.

use identity::storage::migrate::{self, MigrationStatus};
use identity::storage::{DatabaseUrl, StorageError};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, LONG, open, user};
use crate::rules::{good, insert};
use crate::schema::tables;
use crate::sql::Outside;
use crate::support::service::{Engine, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    migrations_run_revert_and_run_again,
    a_reverted_migration_leaves_nothing,
    of_many_that_migrate_at_once_one_does_the_work,
    a_migration_of_a_newer_program_is_shown_and_does_not_keep_this_one_from_starting,
    a_migration_of_a_newer_program_cannot_be_reverted,
    a_running_storage_survives_that_others_migrate,
    a_database_without_tables_lacks_every_migration,
    a_record_of_migrations_that_cannot_be_read_is_not_taken_for_none,
    users_from_before_external_ids_have_none,
);

/// The migration that gives users external ids.
const EXTERNAL_IDS: &str = "2026-11-28-070000_external_ids";

/// The folders' names, oldest first.
fn names() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn all(applied: bool) -> Vec<MigrationStatus> {
    names().into_iter().map(|name| MigrationStatus { name, applied }).collect()
}

async fn migrations_run_revert_and_run_again(engine: Engine) {
    let database = TestDatabase::empty(engine);
    let url = database.parsed();
    let newest_first: Vec<_> = names().into_iter().rev().collect();
    for _ in 0..2 {
        assert_eq!(migrate::status(&url, LONG).await.unwrap(), all(false));
        assert_eq!(migrate::run(&url, LONG).await.unwrap(), names());
        assert_eq!(migrate::status(&url, LONG).await.unwrap(), all(true));
        assert_eq!(migrate::run(&url, LONG).await.unwrap(), Vec::<String>::new());
        assert_eq!(migrate::revert(&url, LONG, 0).await.unwrap(), Vec::<String>::new());
        // More than there are: all of them.
        assert_eq!(migrate::revert(&url, LONG, names().len() + 1).await.unwrap(), newest_first);
    }
    migrate::run(&url, LONG).await.unwrap();
    let storage = open(&database, 2);
    let mut tx = storage.begin("test").await.unwrap();
    crate::fixture::register(&mut tx, &user(1)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_reverted_migration_leaves_nothing(engine: Engine) {
    let database = TestDatabase::empty(engine);
    migrate::run(&database.parsed(), LONG).await.unwrap();
    let storage = open(&database, 2);
    let mut tx = storage.begin("test").await.unwrap();
    crate::fixture::register(&mut tx, &user(1)).await.unwrap();
    tx.commit().await.unwrap();
    drop(storage);
    migrate::revert(&database.parsed(), LONG, names().len()).await.unwrap();
    let objects = match engine {
        Engine::Sqlite => "SELECT name AS cell FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'",
        Engine::Postgres => {
            "SELECT relname AS cell FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
             WHERE nspname = 'public' AND relkind <> 'i'"
        }
    };
    let left = Outside::connect(&database).await.texts(objects).await;
    assert_eq!(left, ["__diesel_schema_migrations"]);
}

async fn of_many_that_migrate_at_once_one_does_the_work(engine: Engine) {
    let database = TestDatabase::empty(engine);
    let mut migrating = JoinSet::new();
    for _ in 0..8 {
        let url = database.parsed();
        migrating.spawn(async move { migrate::run(&url, LONG).await });
    }
    let outcomes: Vec<_> = migrating.join_all().await.into_iter().map(Result::unwrap).collect();
    let worked: Vec<_> = outcomes.iter().filter(|ran| !ran.is_empty()).collect();
    assert_eq!(worked, [&names()]);
    assert_eq!(migrate::status(&database.parsed(), LONG).await.unwrap(), all(true));
}

/// Adds the record of a migration that this program does not know.
async fn migrate_by_newer_program(database: &TestDatabase) -> Vec<MigrationStatus> {
    let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')";
    Outside::connect(database).await.run(sql).await;
    let newer = MigrationStatus { name: "29991231000000".to_owned(), applied: true };
    all(true).into_iter().chain([newer]).collect()
}

async fn a_migration_of_a_newer_program_is_shown_and_does_not_keep_this_one_from_starting(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let expected = migrate_by_newer_program(&database).await;
    assert_eq!(migrate::status(&database.parsed(), LONG).await.unwrap(), expected);
    for mode in ["auto", "check"] {
        // A start panics here when the server does not become ready.
        let url =
            TestDatabase { url: database.url.clone(), folder: tempfile::tempdir().unwrap(), postgres: None };
        let service = TestService::start_with(url, &[("IDENTITY_MIGRATE", mode)]).await;
        service.stop().await;
    }
    assert_eq!(migrate::status(&database.parsed(), LONG).await.unwrap(), expected);
}

async fn a_migration_of_a_newer_program_cannot_be_reverted(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let expected = migrate_by_newer_program(&database).await;
    let refused = migrate::revert(&database.parsed(), LONG, 2).await.unwrap_err();
    assert!(matches!(&refused, StorageError::Refused(why) if why.contains("29991231000000")), "{refused}");
    assert_eq!(migrate::status(&database.parsed(), LONG).await.unwrap(), expected);
}

async fn a_running_storage_survives_that_others_migrate(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.register(&user(1)).await;
    let url: DatabaseUrl = fixture.database.parsed();
    assert_eq!(migrate::run(&url, LONG).await.unwrap(), Vec::<String>::new());
    migrate::status(&url, LONG).await.unwrap();
    assert!(fixture.can_log_in(&user(1)).await);
    fixture.register(&user(2)).await;
    // What migrating leaves foreign keys as is its own connection's business.
    let mut tx = fixture.begin().await;
    let mut orphan = user(3);
    orphan.tenant.id = user(4).tenant.id;
    let inserted = identity::storage::users::insert(&mut tx, &orphan).await;
    assert!(inserted.and(tx.flush().await).is_err());
}

async fn a_database_without_tables_lacks_every_migration(engine: Engine) {
    let database = TestDatabase::empty(engine);
    assert_eq!(migrate::pending(&database.parsed()).await.unwrap(), names());
    // A file, or a schema, in which nothing of ours is.
    Outside::connect(&database).await.run("CREATE TABLE other (a int)").await;
    assert_eq!(migrate::pending(&database.parsed()).await.unwrap(), names());
}

async fn a_record_of_migrations_that_cannot_be_read_is_not_taken_for_none(engine: Engine) {
    let database = TestDatabase::empty(engine);
    Outside::connect(&database).await.run("CREATE TABLE __diesel_schema_migrations (other int)").await;
    for outcome in [migrate::pending(&database.parsed()).await, migrate::run(&database.parsed(), LONG).await]
    {
        let Err(StorageError::Refused(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("version"), "{why}");
    }
}

#[test]
fn both_databases_have_migrations_of_the_same_names() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut sqlite: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    sqlite.sort();
    assert_eq!(sqlite, names());
    for engine in ["postgres", "sqlite"] {
        for name in names() {
            for file in ["up.sql", "down.sql"] {
                let path = format!("{}/migrations/{engine}/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
                assert!(std::fs::metadata(&path).unwrap().len() > 0, "{path}");
            }
        }
    }
}

/// Every row of the tables, in a notation that tells all values apart, but for the columns of `EXTERNAL_IDS`.
async fn rows(outside: &mut Outside) -> Vec<String> {
    let mut rows = Vec::new();
    for table in tables() {
        let columns = table.columns.iter().filter(|column| column.name != "external_id");
        let columns: Vec<_> = columns.map(|column| format!("quote({})", column.name)).collect();
        let sql = format!("SELECT {} AS cell FROM {}", columns.join(" || ', ' || "), table.name);
        rows.extend(outside.texts(&sql).await.into_iter().map(|row| format!("{}: {row}", table.name)));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_sqlite_rebuilds_keep_their_rows() {
    let database = TestDatabase::empty(Engine::Sqlite);
    let url = database.parsed();
    let rebuilds = "2026-11-28-052300_octet_length";
    std::fs::write(url.sqlite_path().unwrap(), "").unwrap();
    let mut outside = Outside::connect(&database).await;
    let record = "CREATE TABLE __diesel_schema_migrations
        (version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";
    outside.run(record).await;
    // What comes later and alters a rebuilt table cannot have been there before.
    for name in names().iter().filter(|name| ![rebuilds, EXTERNAL_IDS].contains(&name.as_str())) {
        let up = format!("{}/migrations/sqlite/{name}/up.sql", env!("CARGO_MANIFEST_DIR"));
        outside.run(&std::fs::read_to_string(up).unwrap()).await;
        let version = name.split('_').next().unwrap().replace('-', "");
        outside.run(&format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')")).await;
    }
    for n in [1, 2] {
        for (table, mut row) in good(n) {
            row.retain(|(column, _)| *column != "external_id");
            outside.run(&insert(Engine::Sqlite, table, &row)).await;
        }
    }
    let before = rows(&mut outside).await;
    assert_eq!(migrate::run(&url, LONG).await.unwrap(), [rebuilds, EXTERNAL_IDS]);
    assert_eq!(rows(&mut outside).await, before);
    assert_eq!(before.len(), 2 * tables().len());
    for pragma in ["integrity_check", "foreign_key_check"] {
        let sql = format!("SELECT count(*) || '' AS cell FROM pragma_{pragma}");
        let expected = if pragma == "integrity_check" { "1" } else { "0" };
        assert_eq!(outside.texts(&sql).await, [expected], "{pragma}");
    }
}

/// SHA-256 of every migration that has shipped. Add those of a release with it; never change one.
const SHIPPED: &[(&str, &str, &str)] = &[
    (
        "postgres",
        "2026-11-23-000000_initial",
        "29d13f7782a67d4c74e8b45616ad24b5d8eda1a5087893bf3062ed2a890fc93e",
    ),
    (
        "postgres",
        "2026-11-24-000000_service_tokens",
        "d7080d83e45759bfc41b6040d360c6d5743cceea94dc274f612f143584d9eeb6",
    ),
    (
        "postgres",
        "2026-11-24-010000_attempts",
        "2a5f415b80ad2ccb8fb1f0042027f4ad283601cd98e5756c87ce059b94dd444c",
    ),
    (
        "postgres",
        "2026-11-24-020000_directory",
        "a88c1e970cde2c4507d1206f23d4feb56b7c923ea625c204d176adaf82aaff60",
    ),
    (
        "postgres",
        "2026-11-28-000000_bounded_lists",
        "bfccbcf2668ba274fe1c737f2051588d57d840273f7ef1dc0d57232a131eb910",
    ),
    (
        "postgres",
        "2026-11-28-010000_checksums",
        "4c9415b9295a2e67d1efe34dc1b9c1ea867181306913d978a10d2c846b41667b",
    ),
    (
        "postgres",
        "2026-11-28-052300_octet_length",
        "962539e3d10e0de1a8597e614e7d87dad3dfad41a8197f6dbdacae190d55451d",
    ),
    (
        "sqlite",
        "2026-11-23-000000_initial",
        "257026a11bef33614fd667136d2114786682782860fbce07d365562d5f193bd9",
    ),
    (
        "sqlite",
        "2026-11-24-000000_service_tokens",
        "8af8c99315acc85e18f8da9aeac25b8cf2a81bf4e4b1334dd42020d4ebdec82a",
    ),
    (
        "sqlite",
        "2026-11-24-010000_attempts",
        "703e732a1a6834902ea8a55e4d5c6ba454fba9463eb544d4d8a90bf6eb2f883d",
    ),
    (
        "sqlite",
        "2026-11-24-020000_directory",
        "1714e23c540dc293aed7333dc6c013d22a365d1959722a632f3f5fb1e244aeaf",
    ),
    (
        "sqlite",
        "2026-11-28-000000_bounded_lists",
        "b9ce8ba481c945342cf9b1c95fa6863df6280734a2af9e035dff7c1f56a320fd",
    ),
    (
        "sqlite",
        "2026-11-28-010000_checksums",
        "7f844aef40a5e2b9bbaa372968da4afc3983a42faa1dac441210a0f73622099b",
    ),
    (
        "sqlite",
        "2026-11-28-052300_octet_length",
        "54de2092cd5e6802c2d042bc37575c0782306e8a64112991a7be8b8b249305ca",
    ),
];

#[test]
fn a_migration_that_has_shipped_is_never_edited() {
    use aws_lc_rs::digest::{SHA256, digest};
    for (engine, name, expected) in SHIPPED {
        let path = format!("{}/migrations/{engine}/{name}/up.sql", env!("CARGO_MANIFEST_DIR"));
        let found = digest(&SHA256, &std::fs::read(&path).unwrap());
        let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, *expected, "{path} has shipped: write another migration instead");
    }
}

async fn users_from_before_external_ids_have_none(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let later = names().into_iter().skip_while(|name| name != EXTERNAL_IDS).count();
    migrate::revert(&database.parsed(), LONG, later).await.unwrap();
    let mut outside = Outside::connect(&database).await;
    // As the release before writes them.
    let write = async |outside: &mut Outside, n| {
        for (table, mut row) in good(n).into_iter().filter(|(table, _)| matches!(*table, "tenants" | "users"))
        {
            row.retain(|(column, _)| *column != "external_id");
            outside.run(&insert(engine, table, &row)).await;
        }
    };
    write(&mut outside, 1).await;
    if engine == Engine::Postgres {
        // As somebody does who has very many users.
        outside.run("ALTER TABLE users ADD COLUMN external_id text").await;
        let index = "CREATE UNIQUE INDEX CONCURRENTLY users_by_external_id ON users (tenant_id, external_id) \
            WHERE external_id IS NOT NULL";
        outside.run(index).await;
    }
    migrate::run(&database.parsed(), LONG).await.unwrap();
    // It may still run.
    write(&mut outside, 2).await;
    let storage = open(&database, 2);
    let mut conn = storage.read().await.unwrap();
    let users = identity::storage::snapshot::list_users(&mut conn, None, 9).await.unwrap();
    assert_eq!(users.len(), 2);
    assert!(users.iter().all(|user| user.row.external_id.is_none()));
}
