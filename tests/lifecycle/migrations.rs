//! `identity migrate`, and a server that may not migrate, on both databases.

use super::clients::{soon, variables};
use crate::support::process::{Process, identity};
use crate::support::service::{Engine, TestDatabase, on_both_databases};

on_both_databases!(
    migrations_run_once_are_listed_and_taken_back,
    a_server_that_may_not_migrate_refuses_an_old_schema_and_says_what_to_do,
);

async fn migrate(database: &TestDatabase, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["migrate"], arguments].concat();
    let (code, out, err) =
        soon("the command ends", identity(&arguments, &[("DATABASE_URL", &database.url)])).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
    out.lines().map(str::to_owned).collect()
}

/// The folders' names, as both databases share them.
fn known() -> Vec<String> {
    let folders = std::fs::read_dir("migrations/postgres").unwrap();
    let mut names: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn migrations_run_once_are_listed_and_taken_back(engine: Engine) {
    let database = TestDatabase::empty(engine);
    let each = |word: &str| known().iter().map(|name| format!("{word} {name}")).collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(migrate(&database, &["status"]).await, each("pending"));
    }
    assert_eq!(migrate(&database, &["run"]).await, each("ran"));
    assert_eq!(migrate(&database, &["run"]).await, ["nothing to run"]);
    for _ in 0..2 {
        assert_eq!(migrate(&database, &["status"]).await, each("applied"));
    }
    // Nobody can be asked here.
    let variables = [("DATABASE_URL", database.url.as_str())];
    let (code, out, err) = soon("the command ends", identity(&["migrate", "revert"], &variables)).await;
    assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
    assert!(err.contains("--yes"), "{err}");
    assert_eq!(migrate(&database, &["status"]).await, each("applied"));
    let mut reverted = each("reverted");
    reverted.reverse();
    assert_eq!(migrate(&database, &["revert", "--yes"]).await, reverted[..1]);
    let rest = migrate(&database, &["revert", "--steps", "1000", "--yes"]).await;
    let nothing = ["nothing to revert".to_owned()];
    assert_eq!(rest, if reverted.len() > 1 { &reverted[1..] } else { &nothing });
    assert_eq!(migrate(&database, &["revert", "--yes"]).await, nothing);
    assert_eq!(migrate(&database, &["status"]).await, each("pending"));
    assert_eq!(migrate(&database, &["run"]).await, each("ran"));
}

async fn a_server_that_may_not_migrate_refuses_an_old_schema_and_says_what_to_do(engine: Engine) {
    let database = TestDatabase::empty(engine);
    let variables = variables(&database.url, &[("IDENTITY_MIGRATE", "check")]);
    let (code, _, err) = soon("the start ends", identity(&["serve"], &variables)).await;
    assert_eq!(code, Some(1), "{err}");
    let told = err.lines().find(|line| line.starts_with("identity: the database lacks ")).expect(&err);
    assert!(told.contains("`identity migrate run`"), "{err}");

    migrate(&database, &["run"]).await;
    let mut process = Process::start(variables).await;
    soon("the server is ready", process.examples()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_right_to_create_tables_starts_where_all_are_there() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let inside = database.postgres.as_ref().unwrap();
    // Roles belong to the whole cluster.
    let role = format!("reader_of_{}", inside.name());
    inside.admin(&format!(
        "CREATE ROLE {role} LOGIN;
         REVOKE CREATE ON SCHEMA public FROM PUBLIC;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let url = database.url.replacen("//identity@", &format!("//{role}@"), 1);
    assert_ne!(url, database.url);
    for mode in ["check", "auto"] {
        let mut process = Process::start(variables(&url, &[("IDENTITY_MIGRATE", mode)])).await;
        soon("the server is ready", process.examples()).await;
    }
}
