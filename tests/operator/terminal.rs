//! The commands on a terminal: what is asked and shown there.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::shell::Shell;
use crate::support::service::{Engine, PASSWORD, TestDatabase};

/// A command on a terminal of its own.
struct Session {
    keyboard: File,
    terminal: File,
    child: Child,
    /// What was shown since the last expectation was met.
    shown: String,
}

impl Session {
    fn start(shell: &Shell, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let end = || terminal.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_identity"))
            .args(arguments)
            .env_clear()
            .envs(shell.variables.iter().map(|(name, value)| (name, value)))
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self { keyboard: File::from(master), terminal, child, shown: String::new() }
    }

    /// Waits until `text` is shown; everything up to its end comes back.
    fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let mut some = [0; 1024];
            let length = self.keyboard.read(&mut some).unwrap();
            self.shown += &String::from_utf8_lossy(&some[..length]);
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end; exit code, and what else was shown.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        assert!(tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ISIG));
        self.terminal.write_all(b"\x04").unwrap();
        (code, self.expect("\x04"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = self.child.kill();
    }
}

const CREATE: [&str; 8] = [
    "user",
    "create",
    "--email",
    "ada@example.com",
    "--first-name",
    "Z\u{eb}lda",
    "--last-name",
    "\u{65e5}\u{672c}",
];

async fn shell() -> (TestDatabase, Shell, String) {
    let database = TestDatabase::migrated(Engine::Sqlite).await;
    let shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    (database, shell, tenant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_twice_and_not_shown() {
    let (_database, shell, tenant) = shell().await;
    let create = [&CREATE[..], &["--tenant", &tenant, "--role", "owner"]].concat();
    for (second, code, text) in
        [("another password", 1, "the two passwords are not the same"), (PASSWORD, 0, "Z\u{eb}lda")]
    {
        let mut session = Session::start(&shell, &create);
        session.expect("Password: ");
        session.type_in(&format!("{PASSWORD}\n"));
        let between = session.expect("again: ");
        session.type_in(&format!("{second}\n"));
        let (ended, rest) = session.ended();
        assert!(ended == Some(code) && rest.contains(text), "{ended:?} {rest}");
        assert!(!between.contains(PASSWORD) && !rest.contains(second), "{between} {rest}");
    }
    let mut session = Session::start(&shell, &["user", "set-password", "ada@example.com"]);
    session.expect("Password: ");
    session.type_in("corr\u{3}");
    let (code, rest) = session.ended();
    assert!(code == Some(1) && rest.contains("interrupted") && !rest.contains("corr"), "{code:?} {rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_a_table_whose_columns_are_aligned() {
    let (_database, shell, tenant) = shell().await;
    for (email, last_name) in [("b@example.com", "Lovelace"), ("a@example.com", "\u{65e5}\u{672c}")] {
        let names = ["--email", email, "--first-name", "Z\u{eb}lda", "--last-name", last_name];
        let create = [&["user", "create", "--tenant", &tenant][..], &names].concat();
        shell.run_with(&create, PASSWORD).await.json();
    }
    let (code, shown) = Session::start(&shell, &["user", "list", "--tenant", &tenant]).ended();
    assert_eq!(code, Some(0), "{shown}");
    let rows: Vec<_> = shown.lines().filter(|line| line.contains("  ")).map(str::trim_end).collect();
    assert_eq!(rows.len(), 3, "{shown}");
    assert!(rows[0].contains("e-mail         first name  last name  role"), "{shown}");
    assert!(rows[1].contains("a@example.com  Z\u{eb}lda       \u{65e5}\u{672c}       member"), "{shown}");
    assert!(rows[2].contains("b@example.com  Z\u{eb}lda       Lovelace   member"), "{shown}");

    let (_, shown) = Session::start(&shell, &["user", "list", "--tenant", &tenant, "--json"]).ended();
    assert!(shown.trim_start().starts_with('['), "{shown}");
    let (_, shown) = Session::start(&shell, &["user", "show", "b@example.com"]).ended();
    assert!(shown.contains(&format!("tenant       {tenant} Analytical Engines")), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_service_tokens_are_listed_as_users_are() {
    let (_database, shell, _) = shell().await;
    let none = shell.run("keys list").await.json();
    assert_eq!(none, shell.run("service-token list").await.json());
    assert_eq!(none, serde_json::json!([]));
    assert_eq!(shell.run("keys rotate").await.code, Some(0));
    let create = "service-token create --name billing --allow GetUser";
    let token = shell.run(create).await.out;
    assert_eq!(shell.run(&format!("{create} --expires never")).await.code, Some(0));

    for (command, columns, cells) in [
        (
            "keys list",
            ["kid ", "algorithm ", "state ", "signs from ", "published until"],
            ["EdDSA", "signing", "-"],
        ),
        (
            "service-token list",
            ["id ", "name ", "state ", "expires ", "may call"],
            ["billing", "active", "GetUser"],
        ),
    ] {
        let arguments: Vec<_> = command.split(' ').collect();
        let (code, table) = Session::start(&shell, &arguments).ended();
        assert_eq!(code, Some(0), "{table}");
        let rows: Vec<_> = table.lines().filter(|line| line.contains("  ")).map(str::trim_end).collect();
        let json = shell.run(command).await.json();
        assert_eq!(rows.len(), json.as_array().unwrap().len() + 1, "{table}");
        for column in columns {
            assert!(rows[0].contains(column), "{table}");
        }
        for (row, entry) in rows[1..].iter().zip(json.as_array().unwrap()) {
            // Under its name, wherever that is.
            let state = rows[0].find("state").unwrap();
            assert!(row[state..].starts_with(entry["state"].as_str().unwrap()), "{table}");
            assert!(cells.iter().all(|cell| row.contains(cell)), "{table}");
        }
        assert!(!table.contains(token.trim()), "{table}");
        // As everywhere, programs may ask for JSON on a terminal.
        let (_, shown) = Session::start(&shell, &[&arguments[..], &["--json"]].concat()).ended();
        assert!(shown.trim_start().starts_with('['), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_asks_first() {
    let (_database, shell, tenant) = shell().await;
    for (answer, code, text) in
        [("yes", 1, "nothing was deleted"), ("Analytical Engines", 0, "have been deleted")]
    {
        let mut session = Session::start(&shell, &["tenant", "delete", &tenant]);
        session.expect("with its 0 users. Type Analytical Engines to go on: ");
        session.type_in(&format!("{answer}\n"));
        let (ended, rest) = session.ended();
        assert!(ended == Some(code) && rest.contains(text), "{ended:?} {rest}");
    }
    let mut session = Session::start(&shell, &["audit", "prune", "--older-than", "90d"]);
    session.expect("Type yes to go on: ");
    session.type_in("\n");
    assert_eq!(session.ended().0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_migrations_back_asks_first() {
    let (_database, shell, _) = shell().await;
    let newest =
        std::fs::read_dir("migrations/sqlite").unwrap().map(|entry| entry.unwrap().file_name()).max();
    let newest = newest.unwrap().into_string().unwrap();
    for (answer, code, text) in [("no", 1, "nothing was deleted"), ("yes", 0, "reverted ")] {
        let mut session = Session::start(&shell, &["migrate", "revert"]);
        let shown = session.expect("Type yes to go on: ");
        assert!(shown.contains(&newest) && shown.contains("identity.db"), "{shown}");
        session.type_in(&format!("{answer}\n"));
        let (ended, rest) = session.ended();
        assert!(ended == Some(code) && rest.contains(text), "{ended:?} {rest}");
    }
}
