//! A private PostgreSQL for the tests: real server, fresh cluster, fresh databases.
//!
//! A cluster ends with the process that started it, even one that was killed: a small shell script
//! (`postgres.sh`) supervises the server and sees the end of a pipe that the process holds open.
//! Every function here blocks for some tens of milliseconds and may be called with or without a
//! runtime.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::port;

const SUPERVISOR: &str = include_str!("postgres.sh");

/// Whom the server runs as when the tests run as root, which PostgreSQL refuses to be.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];

/// How often another free port is tried when somebody else was faster.
const START_ATTEMPTS: u32 = 5;

static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// Rows of a query, each value in PostgreSQL's text form, `None` for NULL.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// A PostgreSQL server of its own, superuser `identity`, no password, listening on 127.0.0.1.
pub(crate) struct Cluster {
    supervisor: Mutex<Supervisor>,
    folder: PathBuf,
    port: u16,
    databases: AtomicU32,
    paused: AtomicBool,
}

/// The script that keeps the server, and the pipes to it.
struct Supervisor {
    process: Child,
    /// `None` once the cluster is to end.
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// The server's process, `None` while it is stopped.
    server: Option<Pid>,
}

impl Cluster {
    /// The cluster that all tests of this process share, started by the first one that asks.
    /// Nobody may stop or pause it.
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    /// A cluster for a test that takes the database away. Ends when dropped.
    ///
    /// # Panics
    ///
    /// When there is no PostgreSQL server on this machine, or it does not start.
    pub(crate) fn start() -> Self {
        Self::start_as(&[])
    }

    /// As [`Cluster::start`], with a log that standbys can follow.
    pub(crate) fn start_primary() -> Self {
        Self::start_as(&["primary"])
    }

    /// A standby of a cluster that [`Cluster::start_primary`] started: it has the same databases, follows every
    /// change, and can only be read.
    pub(crate) fn start_standby(&self) -> Self {
        Self::start_as(&["standby", &self.port.to_string()])
    }

    /// Makes a standby a primary, and returns when it takes writes.
    pub(crate) fn promote(&self) {
        let promoted = self.admin("SELECT pg_promote()");
        assert_eq!(promoted[0][0].as_deref(), Some("t"), "{}", log(&self.folder));
    }

    fn start_as(kind: &[&str]) -> Self {
        let mut supervisor = Supervisor::spawn(kind);
        let reply = supervisor.reply();
        let Some(folder) = reply.strip_prefix("folder ").map(PathBuf::from) else {
            assert_ne!(
                reply, "missing",
                "no PostgreSQL server found (initdb is neither in PATH nor in /usr/lib/postgresql): \
                 run scripts/test, which installs it"
            );
            panic!("PostgreSQL {reply}");
        };
        let port = (0..START_ATTEMPTS)
            .find_map(|_| {
                let port = port::free();
                supervisor.start(port).then_some(port)
            })
            .unwrap_or_else(|| panic!("PostgreSQL does not start: {}", log(&folder)));
        Self {
            supervisor: Mutex::new(supervisor),
            folder,
            port,
            databases: AtomicU32::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// Where the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where the server keeps its files, its log among them.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A fresh, empty database.
    pub(crate) fn create_database(&self) -> Database {
        self.create_database_from("template0")
    }

    /// A fresh copy of the database `template`, which must have no connection open.
    pub(crate) fn create_database_from(&self, template: &str) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.admin(&format!("CREATE DATABASE {name} TEMPLATE {template}"));
        self.database(&name)
    }

    /// A database that exists, such as a standby's copy.
    pub(crate) fn database(&self, name: &str) -> Database {
        Database { url: self.url(name), name: name.to_owned(), maintenance_url: self.maintenance_url() }
    }

    /// Runs SQL as superuser in the database `postgres`; returns the rows of the last statement.
    pub(crate) fn admin(&self, sql: &str) -> Rows {
        run(&self.maintenance_url(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Shuts the server down: open transactions are rolled back, connections are told so and closed,
    /// new ones are refused.
    pub(crate) fn stop(&self) {
        self.supervisor().stop("stop");
    }

    /// Ends the server at once, as a crash would: the next start recovers from the log.
    pub(crate) fn crash(&self) {
        self.supervisor().stop("crash");
    }

    /// Starts the server again, on the same port with the same data.
    pub(crate) fn restart(&self) {
        assert!(self.supervisor().start(self.port), "PostgreSQL does not start: {}", log(&self.folder));
    }

    /// Stops all processes of the server from running: connections open (the kernel does that) and
    /// stay, nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Signals the server first, so that it starts no further process meanwhile, then its children.
    fn signal(&self, signal: Signal) {
        let server = self.supervisor().server.expect("the server runs");
        kill_process(server, signal).expect("the server runs");
        for child in children(server) {
            // A child may have ended since it was listed.
            let _ = kill_process(child, signal);
        }
    }

    fn supervisor(&self) -> impl std::ops::DerefMut<Target = Supervisor> {
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://identity@{}/{database}", self.addr())
    }

    fn maintenance_url(&self) -> String {
        self.url("postgres")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.paused.load(Ordering::Relaxed) {
            // Otherwise the server would wait for its children, which could not obey the shutdown.
            self.resume();
        }
        let mut supervisor = self.supervisor();
        supervisor.commands = None;
        // Nothing is left to be told to: a drop has no result.
        let _ = supervisor.process.wait();
    }
}

impl Supervisor {
    fn spawn(kind: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "postgres.sh"])
            .args(kind)
            // The server's user may not enter the folder that the tests run in.
            .current_dir("/")
            // What a terminal sends to the tests is not meant for the supervisor.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if geteuid().is_root() {
            let (user, group) = UNPRIVILEGED_USERS
                .into_iter()
                .find_map(|name| Some((id("-u", name)?, id("-g", name)?)))
                .expect("root has a user postgres or nobody to run PostgreSQL as");
            command.uid(user).gid(group);
        }
        let mut process = command.spawn().expect("sh starts");
        let commands = process.stdin.take();
        let replies = BufReader::new(process.stdout.take().expect("standard output is a pipe"));
        Self { process, commands, replies, server: None }
    }

    fn start(&mut self, port: u16) -> bool {
        assert!(self.server.is_none(), "PostgreSQL runs already");
        let reply = self.ask(&format!("start {port}"));
        self.server = reply
            .strip_prefix("started ")
            .map(|pid| pid.parse().ok().and_then(Pid::from_raw).expect("a process id"));
        self.server.is_some()
    }

    fn stop(&mut self, how: &str) {
        assert!(self.server.take().is_some(), "PostgreSQL is stopped already");
        let reply = self.ask(how);
        assert_eq!(reply, "stopped");
    }

    fn ask(&mut self, command: &str) -> String {
        let pipe = self.commands.as_mut().expect("the pipe is open until the drop");
        writeln!(pipe, "{command}").expect("the supervisor reads");
        self.reply()
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).expect("the supervisor answers");
        line.trim_end().to_owned()
    }
}

/// A database of one test, dropped with this value, connections or not.
#[must_use = "the database goes away with this value"]
pub(crate) struct Database {
    /// `postgres://identity@127.0.0.1:PORT/NAME`
    pub(crate) url: String,
    name: String,
    maintenance_url: String,
}

impl Database {
    /// What the server calls it, as `Cluster::create_database_from` wants it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The URL for reaching this database through a proxy at `addr`.
    pub(crate) fn url_via(&self, addr: SocketAddr) -> String {
        format!("postgres://identity@{addr}/{}", self.name)
    }

    /// Runs SQL as superuser; returns the rows of the last statement.
    pub(crate) fn admin(&self, sql: &str) -> Rows {
        run(&self.url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let url = self.maintenance_url.clone();
        // In the background, and without caring for the outcome: it only saves disk space, and the
        // server may be away.
        thread::spawn(move || run(&url, &sql));
    }
}

/// Runs SQL on a connection of its own, in a thread and runtime of its own, so that tests may call it
/// from theirs.
fn run(url: &str, sql: &str) -> Result<Rows, tokio_postgres::Error> {
    thread::scope(|scope| scope.spawn(|| run_here(url, sql)).join().expect("the query does not panic"))
}

fn run_here(url: &str, sql: &str) -> Result<Rows, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs a file descriptor or two");
    runtime.block_on(async {
        let mut config: tokio_postgres::Config = url.parse()?;
        config.connect_timeout(Duration::from_secs(10));
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await?;
        drop(client);
        // The server has said goodbye when this ends, so that a template is free to be copied.
        let _ = connection.await;
        Ok(last_rows(messages))
    })
}

fn last_rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let mut rows = Rows::new();
    for message in messages {
        if let SimpleQueryMessage::RowDescription(_) = message {
            rows.clear();
        } else if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
        }
    }
    rows
}

/// The number of a user or of its group, `None` when there is no such user.
fn id(what: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([what, user]).output().expect("id starts");
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The processes that `parent` started.
fn children(parent: Pid) -> Vec<Pid> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps starts");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().map(|column| column.parse().ok());
            let pid = columns.next()??;
            (columns.next()?? == parent.as_raw_nonzero().get()).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// What the server said last.
fn log(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
