//! What SIGHUP makes a server read again: the files that its settings name.

use std::path::PathBuf;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;

use crate::config::log_filter_in;
use crate::server::Server;
use crate::server::master_key::MasterKeyFile;
use crate::server::tls::Tls;
use crate::telemetry::logs::FilterInUse;

/// The files that are read again. Variables and flags cannot change while a process runs.
pub(super) struct Reloads {
    tls: Option<Tls>,
    master_key: Option<MasterKeyFile>,
    log_level: Option<LogLevelFile>,
}

/// The file with the log level, and the log that follows it.
pub(super) struct LogLevelFile {
    pub(super) path: PathBuf,
    pub(super) filter: FilterInUse,
}

impl Reloads {
    /// Those of `server`, and that of the log level, if there is one.
    pub(super) fn of(server: &Server, log_level: Option<LogLevelFile>) -> Self {
        Self { tls: server.tls().cloned(), master_key: server.master_key_file().cloned(), log_level }
    }

    /// Reads the files at each signal, whose default action would end the process.
    pub(super) async fn follow(self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.reload().await;
        }
    }

    async fn reload(&self) {
        let Self { tls, master_key, log_level } = self;
        let names = [
            tls.as_ref().map(|_| "TLS"),
            master_key.as_ref().map(|_| "the master key"),
            log_level.as_ref().map(|_| "the log level"),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        if names.is_empty() {
            tracing::info!("SIGHUP: no setting names a file to read again");
            return;
        }
        tracing::info!("SIGHUP: reading again the files of {}", names.join(", "));
        if let Some(file) = log_level {
            file.reload().await;
        }
        if let Some(tls) = tls {
            tls.reload();
        }
        if let Some(file) = master_key {
            file.reload();
        }
    }
}

impl LogLevelFile {
    async fn reload(&self) {
        let path = self.path.clone();
        match spawn_blocking(move || log_filter_in(&path)).await {
            Ok(Ok(filter)) => {
                self.filter.exchange(filter);
                tracing::info!("the log level was read from its file");
            }
            Ok(Err(problem)) => {
                tracing::error!("the log level stays as it is: IDENTITY_LOG_LEVEL_FILE {problem}");
            }
            Err(error) => tracing::error!(%error, "the log level file could not be read"),
        }
    }
}
