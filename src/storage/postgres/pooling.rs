//! Finds out whether a pooler lends out connections for one transaction at a time.
//!
//! The service prepares statements, sets time limits for its sessions and holds a lock of a session while it
//! migrates. Behind such a pooler all of that ends up on connections that others use next.

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::endpoint::{self, Endpoint};
use super::{ConnectError, Connector, ServerErrors};

/// How often an idle session is asked whether it still has the same process.
const QUESTIONS: usize = 3;

impl Connector {
    /// Whether sessions share the server's processes. Two sessions are opened: one of them in a transaction, which
    /// keeps its process, while the other one asks for its own.
    ///
    /// # Errors
    /// [`ConnectError`] when not even one session can be opened. One that does not get a second one, or no answer
    /// on it, is told that nothing is shared.
    pub async fn shares_backends(&self) -> Result<bool, ConnectError> {
        let (endpoint, idle) = self.log_in_anywhere().await?;
        let comparing = async {
            let other = self.log_in(&endpoint, &ServerErrors::default()).await?;
            is_shared(&idle, &other).await.map_err(ConnectError::from_driver)
        };
        // Whoever has only one connection to give, or none to spare, gives each session its own.
        Ok(matches!(timeout(self.target.connect_timeout(), comparing).await, Ok(Ok(true))))
    }

    async fn log_in_anywhere(&self) -> Result<(Endpoint, Client), ConnectError> {
        let mut failure = ConnectError::Timeout;
        for endpoint in endpoint::resolve(&self.target).await? {
            let errors = ServerErrors::default();
            let attempt = timeout(self.target.connect_timeout(), self.log_in(&endpoint, &errors)).await;
            match attempt.unwrap_or(Err(ConnectError::Timeout)) {
                Ok(client) => return Ok((endpoint, client)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn is_shared(idle: &Client, other: &Client) -> Result<bool, tokio_postgres::Error> {
    let process = process_of(idle).await?;
    // A pooler that lends connections out for single statements refuses this.
    if other.simple_query("BEGIN").await.is_err_and(|error| error.as_db_error().is_some()) {
        return Ok(true);
    }
    if process_of(other).await? == process {
        return Ok(true);
    }
    for _ in 0..QUESTIONS {
        if process_of(idle).await? != process {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server's process behind a session. Asked without preparing a statement, which such a pooler may lose.
async fn process_of(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let answer = client.simple_query("SELECT pg_backend_pid()").await?;
    Ok(answer.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    }))
}
