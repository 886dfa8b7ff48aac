//! A database to move into, and the command line in a folder of its own.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::sql::Outside;
use crate::support::service::{Engine, TestDatabase};

/// bcrypt of "a" at cost 4.
pub(crate) const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuMFdJu9yVgmagVAIC24fOZkaFqd3s9JC";

pub(crate) const HEADER: &str = r#"{"type":"identity-export","version":1}"#;

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Standard output of a command that went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// A database to move into or out of. Commands run in its folder.
pub(crate) struct Place {
    pub(crate) database: TestDatabase,
}

impl Place {
    pub(crate) async fn new(engine: Engine) -> Self {
        Self { database: TestDatabase::migrated(engine).await }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_identity"));
        command
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &self.database.url)
            .env("USER", "grace")
            .current_dir(self.database.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Run {
        let Output { status, stdout, stderr } = self.command(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Runs with `input` on standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A command that ends early does not read everything.
        tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
        let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Imports these lines, after the header.
    pub(crate) async fn import_lines(&self, lines: &[Value]) -> Run {
        self.run_with(&["import", "jsonl", "-"], &file(lines)).await
    }

    pub(crate) async fn export(&self) -> String {
        self.run(&["export"]).await.ok()
    }

    pub(crate) async fn outside(&self) -> Outside {
        Outside::connect(&self.database).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.database.folder.path().join(name)
    }

    /// The lines of a report.
    pub(crate) fn report(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Position, kind and reason of each refused row.
    pub(crate) fn refused(&self) -> Vec<(u64, String, String)> {
        let word = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
        self.report("identity-import-refused.jsonl")
            .iter()
            .map(|line| (line["position"].as_u64().unwrap(), word(line, "type"), word(line, "reason")))
            .collect()
    }
}

/// The lines of an export that are rows.
pub(crate) fn rows(export: &str) -> Vec<&str> {
    let lines: Vec<_> = export.lines().collect();
    let [header, rows @ .., end] = &lines[..] else { panic!("{export}") };
    assert_eq!((*header, *end), (HEADER, end_of(rows.len()).as_str()));
    rows.to_vec()
}

/// The last line of an export of so many rows.
pub(crate) fn end_of(rows: usize) -> String {
    format!(r#"{{"type":"identity-export-end","rows":{rows}}}"#)
}

/// The header and these lines.
pub(crate) fn file(lines: &[Value]) -> String {
    std::iter::once(HEADER.to_owned())
        .chain(lines.iter().map(Value::to_string))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) fn tenant_id(n: usize) -> String {
    format!("01890000-0000-7000-8000-{n:012}")
}

pub(crate) fn user_id(n: usize) -> String {
    format!("01890000-0000-7000-9000-{n:012}")
}

/// The `n`th tenant.
pub(crate) fn tenant(n: usize) -> Value {
    json!({
        "type": "tenant", "id": tenant_id(n), "name": format!("Tenant {n}"),
        "created_at": "2021-01-01T00:00:00.123456Z", "updated_at": "2021-01-01T00:00:00.123456Z",
    })
}

/// The `n`th user, of the tenant `of`, without a role.
pub(crate) fn user(n: usize, of: usize) -> Value {
    json!({
        "type": "user", "id": user_id(n), "tenant_id": tenant_id(of), "email": format!("user{n}@example.com"),
        "first_name": "Ada", "last_name": "Lovelace", "created_at": "2021-01-02T00:00:00.000001Z",
        "updated_at": "2021-01-03T00:00:00Z", "password_hash": HASH,
    })
}

/// `value` with a field of another value.
pub(crate) fn with(mut value: Value, field: &str, other: impl Into<Value>) -> Value {
    value[field] = other.into();
    value
}

/// `value` without a field.
pub(crate) fn without(mut value: Value, field: &str) -> Value {
    value.as_object_mut().unwrap().remove(field);
    value
}
