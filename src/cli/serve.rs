//! `identity serve`: runs the server until a signal to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::reload::{LogLevelFile, Reloads};
use crate::config::{Resolved, Settings};
use crate::domain::SystemClock;
use crate::server::{Server, Sockets, Stopped, listener};
use crate::telemetry::lines::LineWriter;
use crate::telemetry::logs::{self, Log};

/// Two signals within this time are one: a terminal and a process manager may both send theirs when
/// somebody presses Ctrl-C, and a container's init may pass one on that its group got as well.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// Serves with the resolved settings until SIGTERM or SIGINT, then stops in order. A second signal
/// ends the process at once. SIGHUP reads files again.
///
/// # Errors
/// What keeps the server from starting, or a stop that had to cut off calls or writes.
pub(super) fn run(resolved: Resolved<Settings>) -> Outcome {
    let Resolved { settings, warnings } = resolved;
    let log = logs::init(&settings.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("rpc").build()?;
    let outcome = runtime.block_on(serve(settings, &log));
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

/// Has a write beyond the allowed size of a file (`ulimit -f`) fail, as on a full disk, instead of ending the process.
fn survive_file_limit() -> io::Result<()> {
    // The handler stays when nobody listens.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

async fn serve(settings: Settings, log: &Log) -> Outcome {
    let mut signals = Signals::listen()?;
    survive_file_limit()?;
    let hangups = signal(SignalKind::hangup())?;
    // On a thread of its own: a full pipe must not stop the server.
    let out = LineWriter::start(io::stdout(), drop)?;
    let database = settings.database.url.to_string();
    let shows_examples = settings.server.reflection;
    let transport = Transport::of(&settings);
    let sockets = Sockets {
        grpc: bind("IDENTITY_LISTEN", settings.server.listen)?,
        http: settings.server.http_listen.map(|address| bind("IDENTITY_HTTP_LISTEN", address)).transpose()?,
        health: settings
            .server
            .health_listen
            .map(|address| bind("IDENTITY_HEALTH_LISTEN", address))
            .transpose()?,
    };
    let stop = CancellationToken::new();
    let log_level = settings.log.filter_file.clone().map(|path| LogLevelFile { path, filter: log.filter() });
    let server = Server::start(settings, sockets, Arc::new(SystemClock), log.dropped(), stop.clone())?;
    tokio::spawn(Reloads::of(&server, log_level).follow(hangups));
    let address = server.address();
    let metrics = server.http_address().map(|http| format!(", metrics on http://{http}/metrics"));
    let health = server.health_address().map(|health| format!(", health alone on {health}"));
    let (version, tls) = (env!("CARGO_PKG_VERSION"), transport.shown());
    let (metrics, health) = (metrics.unwrap_or_default(), health.unwrap_or_default());
    let listening =
        format!("identity {version} is listening on {address}{tls}, with {database}{metrics}{health}\n");
    out.push(listening.as_bytes());

    tokio::select! {
        ready = server.ready() => {
            if ready {
                tracing::info!(server.address = %address, server.tls = transport.logged(), database.url = %database, "ready to serve");
                if shows_examples {
                    out.push(examples(address, transport).as_bytes());
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
        () = signals.second() => Err("stopped by a second signal, before the calls in flight had ended".into()),
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

    /// The next one after the first, which those within [`ONE_SIGNAL`] belong to.
    async fn second(&mut self) {
        let pause = sleep(ONE_SIGNAL);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = &mut pause => return self.next().await,
                () = self.next() => {}
            }
        }
    }
}

/// How clients reach the port for gRPC.
#[derive(Clone, Copy)]
enum Transport {
    Plaintext,
    Tls,
    /// TLS, and clients have to show a certificate.
    MutualTls,
}

impl Transport {
    fn of(settings: &Settings) -> Self {
        match &settings.server.tls {
            None => Self::Plaintext,
            Some(files) if files.client_authorities.is_none() => Self::Tls,
            Some(_) => Self::MutualTls,
        }
    }

    /// What the line says that tells where the server listens.
    const fn shown(self) -> &'static str {
        match self {
            Self::Plaintext => "",
            Self::Tls => ", over TLS",
            Self::MutualTls => ", over TLS with client certificates",
        }
    }

    const fn logged(self) -> &'static str {
        match self {
            Self::Plaintext => "off",
            Self::Tls => "on",
            Self::MutualTls => "on, with client certificates",
        }
    }

    /// What grpcurl has to be told, and which files that takes.
    const fn of_grpcurl(self) -> (&'static str, &'static str) {
        match self {
            Self::Plaintext => ("-plaintext", ""),
            Self::Tls => (
                "-cacert ca.pem",
                ", with ca.pem, which has the authority of the server's certificate, and with a name that the \
                 certificate has in place of the address",
            ),
            Self::MutualTls => (
                "-cacert ca.pem -cert client.pem -key client.key",
                ", with ca.pem, which has the authority of the server's certificate, with client.pem and \
                 client.key, a client's certificate and key, and with a name that the server's certificate has \
                 in place of the address",
            ),
        }
    }
}

/// Calls to paste into a shell.
fn examples(address: SocketAddr, transport: Transport) -> String {
    let (tls, files) = transport.of_grpcurl();
    // From the same machine, a server that listens everywhere is reached on loopback.
    let target = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    };
    format!(
        r#"
Try it{files}:

  grpcurl {tls} -d '{{"email": "ada@example.com", "password": "correct horse battery", "first_name": "Ada", "last_name": "Lovelace", "tenant_name": "Analytical Engines"}}' {target} identity.v1.IdentityService/Register

  TOKEN=$(grpcurl {tls} -d '{{"email": "ada@example.com", "password": "correct horse battery"}}' {target} identity.v1.IdentityService/Login | sed -n 's/.*"accessToken": "\([^"]*\)".*/\1/p')

  grpcurl {tls} -H "authorization: Bearer $TOKEN" {target} identity.v1.IdentityService/GetUser

"#
    )
}
