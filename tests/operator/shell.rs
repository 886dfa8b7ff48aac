//! What these tests run, and what they ask of the database.

use std::process::Stdio;
use std::time::Duration;

use identity::domain::{LoggedEvent, TenantId};
use identity::storage::audit::EventFilter;
use identity::storage::{LaneSizes, Storage, StorageSettings, audit};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::service::{MASTER_KEY, PASSWORD, PATIENT_STATEMENTS, TestDatabase};

/// The account that runs the commands.
pub(crate) const OPERATOR: &str = "grace";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// What was printed, which is JSON where no terminal is.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Asserts that nothing was printed but a line on standard error, which is returned.
    pub(crate) fn refused(&self, code: i32) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        assert!(!self.err.contains(PASSWORD), "{self:?}");
        &self.err
    }
}

/// Runs commands on a database.
pub(crate) struct Shell {
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Shell {
    pub(crate) fn at(database: &TestDatabase) -> Self {
        let (patience, limit) = PATIENT_STATEMENTS;
        let variables = [
            ("DATABASE_URL", database.url.as_str()),
            ("IDENTITY_BCRYPT_COST", "4"),
            ("IDENTITY_MASTER_KEY", MASTER_KEY),
            (patience, limit),
            ("USER", OPERATOR),
        ];
        Self { variables: variables.map(|(name, value)| (name, value.to_owned())).to_vec() }
    }

    /// Runs a command, the words of which are parted by spaces, without input.
    pub(crate) async fn run(&self, command: &str) -> Ended {
        self.run_with(&command.split(' ').collect::<Vec<_>>(), "").await
    }

    /// Runs a command that reads `input`.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_identity"))
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // One that reads nothing may have ended already.
        _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let ended = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// A new tenant's id.
    pub(crate) async fn tenant(&self, name: &str) -> String {
        let made = self.run_with(&["tenant", "create", "--name", name], "").await.json();
        made["id"].as_str().unwrap().to_owned()
    }

    /// Creates a user with this password.
    pub(crate) async fn create(&self, tenant: &str, email: &str, role: &str, password: &str) -> Ended {
        let arguments = ["user", "create", "--tenant", tenant, "--email", email, "--role", role];
        let names = ["--first-name", "Ada", "--last-name", "Lovelace"];
        self.run_with(&[&arguments[..], &names].concat(), &format!("{password}\n")).await
    }

    /// A new user with the usual password.
    pub(crate) async fn user(&self, tenant: &str, email: &str, role: &str) -> Value {
        self.create(tenant, email, role, PASSWORD).await.json()
    }
}

/// The database as the program uses it.
pub(crate) fn storage(database: &TestDatabase) -> Storage {
    let settings = StorageSettings {
        url: database.parsed(),
        connections: LaneSizes::MIN,
        statement_limit: Duration::from_secs(60),
        queue_limit: Duration::from_secs(60),
    };
    Storage::new(&settings).unwrap()
}

/// Kind and name of who did it.
pub(crate) fn actor(event: &LoggedEvent) -> (&str, Option<&str>) {
    (&event.actor_kind, event.actor_name.as_deref())
}

/// The events of a tenant, or of none, the oldest first.
pub(crate) async fn events(database: &TestDatabase, tenant: Option<&str>) -> Vec<LoggedEvent> {
    let tenant_id = tenant.map(|id| TenantId::parse(id).unwrap());
    let filter = EventFilter { tenant_id, ..EventFilter::default() };
    let storage = storage(database);
    let mut events =
        audit::list(&mut storage.read().await.unwrap(), &filter, None, 10_000, 10_000).await.unwrap().events;
    events.reverse();
    events
}
