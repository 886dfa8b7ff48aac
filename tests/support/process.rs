//! The real binary, as an operator runs it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A running `identity serve`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    pub(crate) address: SocketAddr,
    http_address: Option<SocketAddr>,
    health_address: Option<SocketAddr>,
}

impl Process {
    /// Starts the binary with `variables` as its whole environment, on a free port, and waits until it
    /// says where it listens.
    pub(crate) async fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_identity")), Stdio::piped(), variables).await
    }

    /// As [`Process::start`], with standard error somewhere else, so that [`Process::log`] stays empty.
    pub(crate) async fn with_errors_to<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        errors: impl Into<Stdio>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_identity")), errors.into(), variables).await
    }

    /// As [`Process::start`], with so many open files at most.
    pub(crate) async fn with_open_files<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        limit: u32,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::in_shell(&format!("ulimit -n {limit}"), variables).await
    }

    /// As [`Process::start`], with the limit of [`Process::limit_file_size`] from the start, which can be raised.
    pub(crate) async fn with_file_size<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        blocks: u32,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::in_shell(&format!("ulimit -S -f {blocks}"), variables).await
    }

    /// Lets the process write into no file beyond so many bytes; `None` takes the limit away. Pipes have none.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};

        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())).unwrap();
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(id), Resource::Fsize, limit).unwrap();
    }

    /// As [`Process::start`], after a shell has run `first`.
    async fn in_shell<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        first: &str,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{first} && exec \"$0\""), env!("CARGO_BIN_EXE_identity")]);
        Self::spawn(shell, Stdio::piped(), variables).await
    }

    async fn spawn<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut command: Command,
        errors: Stdio,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut child = command
            .env_clear()
            .env("IDENTITY_LISTEN", "127.0.0.1:0")
            .env("IDENTITY_HTTP_LISTEN", "127.0.0.1:0")
            .envs(variables)
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Keeps the test's own end of a pipe, which the child would never see closed.
        drop(command);
        let log = Arc::<Mutex<String>>::default();
        let reader = tokio::spawn(read(child.stderr.take(), Arc::clone(&log)));
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = out.next_line().await.unwrap() else {
            reader.await.unwrap();
            panic!("the server ended: {}", text(&log));
        };
        let (_, rest) = line.split_once("listening on ").unwrap();
        let address = rest.split(',').next().unwrap().parse().unwrap();
        let http_address =
            rest.split_once("http://").map(|(_, http)| http.split('/').next().unwrap().parse().unwrap());
        let health_address = rest.split_once("health alone on ").map(|(_, health)| health.parse().unwrap());
        Self { child, out, log, reader, address, http_address, health_address }
    }

    /// Where its side port is.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http_address.expect("the side port is not off")
    }

    /// Where it answers for its health alone.
    pub(crate) fn health(&self) -> SocketAddr {
        self.health_address.expect("the port for health is on")
    }

    /// Whether it says that it has a side port.
    pub(crate) fn has_http(&self) -> bool {
        self.http_address.is_some()
    }

    /// Waits for the calls to paste that follow when the server is ready, and returns them.
    pub(crate) async fn examples(&mut self) -> Vec<String> {
        let mut examples = Vec::new();
        while examples.len() < 3 {
            let line = self.out.next_line().await.unwrap().expect("the server goes on");
            if line.contains("grpcurl") {
                examples.push(line.trim().to_owned());
            }
        }
        examples
    }

    /// What was written to standard error up to now.
    pub(crate) fn log(&self) -> String {
        text(&self.log)
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Sends several signals, one right after the other.
    pub(crate) fn signals(&self, names: &[&str]) {
        let id = self.child.id().unwrap();
        let kills: String = names.iter().map(|name| format!("kill -s {name} {id} && ")).collect();
        let status = std::process::Command::new("/bin/sh").args(["-c", &(kills + "exit")]).status().unwrap();
        assert!(status.success());
    }

    /// Sends SIGINT until the process ends, which takes signals that come at once for one. Returns as
    /// [`Process::ended`].
    pub(crate) async fn interrupted(mut self) -> (ExitStatus, String) {
        loop {
            self.signal("INT");
            if timeout(Duration::from_millis(100), self.child.wait()).await.is_ok() {
                return self.ended().await;
            }
        }
    }

    /// Waits for the end; what was written to standard error comes with it.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().await.unwrap();
        self.reader.await.unwrap();
        (status, text(&self.log))
    }
}

/// Runs the binary to its end, with `variables` as its whole environment.
pub(crate) async fn identity(
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_identity"))
        .args(arguments)
        .env_clear()
        .env("IDENTITY_LISTEN", "127.0.0.1:0")
        .env("IDENTITY_HTTP_LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Reads along, so that a process that says much is not held up.
async fn read(errors: Option<ChildStderr>, log: Arc<Mutex<String>>) {
    let Some(errors) = errors else { return };
    let mut lines = BufReader::new(errors).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

fn text(log: &Mutex<String>) -> String {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
