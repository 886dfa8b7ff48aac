//! The real binary, as an operator runs it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running `identity serve`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the binary with `variables` as its whole environment, on a free port, and waits until it
    /// says where it listens.
    pub(crate) async fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_identity"))
            .env_clear()
            .env("IDENTITY_LISTEN", "127.0.0.1:0")
            .envs(variables)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = out.next_line().await.unwrap() else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
            panic!("the server ended: {errors}");
        };
        let (_, rest) = line.split_once("listening on ").unwrap();
        let address = rest.split(',').next().unwrap().parse().unwrap();
        Self { child, out, address }
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

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; what was written to standard error comes with it.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        (self.child.wait().await.unwrap(), errors)
    }
}
