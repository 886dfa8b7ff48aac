//! `identity serve`: runs the server until a signal to stop.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::config::{Resolved, Settings};
use crate::domain::SystemClock;
use crate::server::{Server, Sockets, Stopped, listener};
use crate::telemetry::logs;

/// Serves with the resolved settings until SIGTERM or SIGINT, then stops in order. A second signal
/// ends the process at once.
///
/// # Errors
/// What keeps the server from starting, or a stop that had to cut off calls or writes.
pub(super) fn run(resolved: Resolved<Settings>) -> Outcome {
    let Resolved { settings, warnings } = resolved;
    logs::init(&settings.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("rpc").build()?;
    let outcome = runtime.block_on(serve(settings));
    // What still runs now is what the drain gave up.
    runtime.shutdown_background();
    outcome
}

/// Takes as many file descriptors as the system allows without asking: each connection is one, and
/// the usual limit is kept low for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(error = %error, "the limit of open files stays as it is");
    }
}

async fn serve(settings: Settings) -> Outcome {
    let mut signals = Signals::listen()?;
    let database = settings.database.url.to_string();
    let shows_examples = settings.server.reflection;
    let sockets = Sockets {
        grpc: bind("IDENTITY_LISTEN", settings.server.listen)?,
        http: settings.server.http_listen.map(|address| bind("IDENTITY_HTTP_LISTEN", address)).transpose()?,
    };
    let stop = CancellationToken::new();
    let server = Server::start(settings, sockets, Arc::new(SystemClock), stop.clone())?;
    let address = server.address();
    let metrics = server.http_address().map(|http| format!(", metrics on http://{http}/metrics"));
    let (version, metrics) = (env!("CARGO_PKG_VERSION"), metrics.unwrap_or_default());
    say(&format!("identity {version} is listening on {address}, with {database}{metrics}\n"));

    tokio::select! {
        ready = server.ready() => {
            if ready {
                tracing::info!(server.address = %address, database.url = %database, "ready to serve");
                if shows_examples {
                    say(&examples(address));
                }
                signals.next().await;
            }
        }
        () = signals.next() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    tokio::select! {
        stopped = server.stopped() => tell(stopped?),
        () = signals.next() => Err("stopped by a second signal, before the calls in flight had ended".into()),
    }
}

fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, String> {
    listener::bind(address).map_err(|error| format!("cannot listen on {address} ({variable}): {error}"))
}

fn tell(stopped: Stopped) -> Outcome {
    if stopped.cut_off > 0 {
        tracing::warn!(calls = stopped.cut_off, "the time to drain was over before these calls ended");
    }
    if !stopped.writes_finished {
        return Err("the time to drain was over before all writes had ended".into());
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that ask the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Writes to standard output at once. That nobody reads it is no reason not to serve.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Calls to paste into a shell.
fn examples(address: SocketAddr) -> String {
    // From the same machine, a server that listens everywhere is reached on loopback.
    let target = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    };
    format!(
        r#"
Try it:

  grpcurl -plaintext -d '{{"email": "ada@example.com", "password": "correct horse battery", "first_name": "Ada", "last_name": "Lovelace", "tenant_name": "Analytical Engines"}}' {target} identity.v1.IdentityService/Register

  TOKEN=$(grpcurl -plaintext -d '{{"email": "ada@example.com", "password": "correct horse battery"}}' {target} identity.v1.IdentityService/Login | sed -n 's/.*"accessToken": "\([^"]*\)".*/\1/p')

  grpcurl -plaintext -H "authorization: Bearer $TOKEN" {target} identity.v1.IdentityService/GetUser

"#
    )
}
