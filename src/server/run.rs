//! A running server: what is started, in which order, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService as _;
use tonic::service::RoutesBuilder;

use crate::config::{ConnectionSettings, Settings};
use crate::domain::{Clock, Timestamp};
use crate::proto::v1::audit_service_server::AuditServiceServer;
use crate::proto::v1::directory_service_server::DirectoryServiceServer;
use crate::proto::v1::identity_service_server::IdentityServiceServer;
use crate::rpc::{AuditRpc, Backend, DirectoryRpc, IdentityRpc};
use crate::service::access::AccessTable;
use crate::service::{Due, UnitsOfWork};
use crate::storage::{DatabaseUrl, LaneSizes, Storage};
use crate::telemetry::lines::DroppedLines;

use super::admission::Admission;
use super::budgets::{BudgetSettings, Budgets};
use super::clocks::{ClockDifference, ClockWatch};
use super::descriptors;
use super::drain::Drained;
use super::edge::{self, CallCounts, EdgeSettings};
use super::hash_costs::HashCosts;
use super::health::{self, HealthHandle, ProbeSettings};
use super::http::{self, Watched};
use super::janitor::Janitor;
use super::listener::{self, ListenerSettings};
use super::master_key::MasterKeyFile;
use super::reflection;
use super::startup::{Foundations, StartError};
use super::tls::Tls;

/// How long closing the database's connections may take, once nothing uses them any more: SQLite
/// writes its log back.
const CLOSING: Duration = Duration::from_secs(2);

/// How often the files of TLS are looked at: those of a certificate that is renewed hours before its end,
/// and of an authority that shall be trusted no longer.
const TLS_FILES_PERIOD: Duration = Duration::from_secs(5);

/// How old connections to the port for health alone may become: whoever opens all of them, and answers pings, would keep the probes out for ever.
const MAX_HEALTH_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// Told when what the build put into the binary cannot be read.
const BROKEN_DESCRIPTORS: StartError = StartError::Setting("the embedded descriptors are broken");

/// How a server that started ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that were still running when the time to drain was over.
    pub cut_off: usize,
    /// Whether every write that had begun came to its end.
    pub writes_finished: bool,
}

/// Where a server listens.
pub struct Sockets {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For the side port, if there is one.
    pub http: Option<TcpListener>,
    /// For health alone, in plaintext, if that is wanted.
    pub health: Option<TcpListener>,
}

/// A server that listens.
pub struct Server {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    health_address: Option<SocketAddr>,
    tls: Option<Tls>,
    master_key_file: Option<MasterKeyFile>,
    ready: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<Result<Stopped, StartError>>,
}

impl Server {
    /// Starts to serve on `sockets` until `stop` is cancelled. The server listens, and `liveness`
    /// is SERVING, when this returns; the database is reached after that. `dropped_lines` is for the metrics.
    ///
    /// # Errors
    /// [`StartError`] when something is wrong that can be told without the database.
    pub fn start(
        settings: Settings,
        sockets: Sockets,
        clock: Arc<dyn Clock>,
        dropped_lines: DroppedLines,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        Self::start_with_access(settings, sockets, clock, dropped_lines, stop, AccessTable::default())
    }

    /// As [`Server::start`], with another table of who may call which RPC.
    ///
    /// # Errors
    /// As there.
    pub fn start_with_access(
        settings: Settings,
        sockets: Sockets,
        clock: Arc<dyn Clock>,
        dropped_lines: DroppedLines,
        stop: CancellationToken,
        access: AccessTable,
    ) -> Result<Self, StartError> {
        let address = address_of(&sockets.grpc)?;
        let http_address = sockets.http.as_ref().map(address_of).transpose()?;
        let health_address = sockets.health.as_ref().map(address_of).transpose()?;
        let tls = settings.server.tls.clone().map(Tls::load).transpose()?;
        let database = &settings.database;
        let storage = Storage::new(&database.storage(LaneSizes::of(database.connections)))?;
        let units = UnitsOfWork::new();
        let foundations =
            Foundations::lay(settings.clone(), access, storage.clone(), Arc::clone(&clock), units.clone())?;
        let master_key_file = MasterKeyFile::of(&settings.master_key);
        let (ready_sender, ready) = watch::channel(false);
        let started = clock.now();
        let run = Run {
            settings,
            tls: tls.clone(),
            master_key_file: master_key_file.clone(),
            storage,
            units,
            clock,
            dropped_lines,
            started,
            stop,
            ready: ready_sender,
        };
        let task = tokio::spawn(run.serve(sockets, foundations));
        Ok(Self { address, http_address, health_address, tls, master_key_file, ready, task })
    }

    /// Where it listens for gRPC.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its side port is, if it has one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where it answers for its health alone, if it does so.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
    }

    /// The files of TLS, if it speaks TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The file that holds the master key, if it is in one.
    pub fn master_key_file(&self) -> Option<&MasterKeyFile> {
        self.master_key_file.as_ref()
    }

    /// Waits until calls are served; false when the server ended before.
    pub async fn ready(&self) -> bool {
        self.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }

    /// Waits until the server has stopped.
    ///
    /// # Errors
    /// [`StartError`] when it ended by itself, since it could not start.
    pub async fn stopped(self) -> Result<Stopped, StartError> {
        match self.task.await {
            Ok(ended) => ended,
            Err(_) => Err(StartError::Setting("the server's task panicked")),
        }
    }
}

fn address_of(socket: &TcpListener) -> Result<SocketAddr, StartError> {
    socket.local_addr().map_err(|_| StartError::Setting("the listening socket has no address"))
}

struct Run {
    settings: Settings,
    tls: Option<Tls>,
    master_key_file: Option<MasterKeyFile>,
    storage: Storage,
    units: UnitsOfWork,
    clock: Arc<dyn Clock>,
    dropped_lines: DroppedLines,
    started: Timestamp,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
}

impl Run {
    async fn serve(self, sockets: Sockets, foundations: Foundations) -> Result<Stopped, StartError> {
        let Sockets { grpc, http, health: health_socket } = sockets;
        let backend = Backend::new();
        let (health, health_service) = health::service([
            IdentityServiceServer::<IdentityRpc>::NAME,
            DirectoryServiceServer::<DirectoryRpc>::NAME,
            AuditServiceServer::<AuditRpc>::NAME,
        ]);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(IdentityRpc::server(backend.clone()))
            .add_service(DirectoryRpc::server(backend.clone()))
            .add_service(AuditRpc::server(backend.clone()))
            .add_service(health_service.clone());
        if self.settings.server.reflection {
            reflection::register(&mut routes).map_err(|_| BROKEN_DESCRIPTORS)?;
        }
        let counts = CallCounts::new().map_err(|_| BROKEN_DESCRIPTORS)?;
        let counts = Arc::new(counts);
        let budgets = Budgets::new(BudgetSettings::of(self.settings.server.connections.call_bytes));
        let admission = Admission::new(descriptors::admission(&self.settings), budgets.clone());
        let health_admission = Admission::new(descriptors::health_admission(), budgets.clone());
        let mut ports = vec![("grpc", admission.clone())];
        if health_socket.is_some() {
            ports.push(("health", health_admission.clone()));
        }
        let clock_difference = ClockDifference::default();
        // Open to the very end: whoever watches a process that stops wants to see it.
        let side_port = CancellationToken::new();
        let _closes_side_port = side_port.clone().drop_guard();
        if let Some(http) = http {
            let watched = Watched {
                connections: ports,
                budgets,
                health: health.clone(),
                hasher: foundations.hasher().clone(),
                refusals: foundations.refusals().clone(),
                calls: Arc::clone(&counts),
                storage: self.storage.clone(),
                clock_difference: clock_difference.clone(),
                dropped_lines: self.dropped_lines.clone(),
                started: self.started,
                keys: backend.clone(),
                keys_max_age: self.settings.signing.propagation.max_age(),
            };
            tokio::spawn(http::serve(http, watched, side_port));
        }
        let repeats_stale = matches!(self.settings.database.url, DatabaseUrl::Postgres(_));
        let edge_settings = EdgeSettings { repeats_stale, ..EdgeSettings::default() };
        let layered = |routes: RoutesBuilder| {
            edge::layer(routes.routes(), edge_settings, Arc::clone(&self.clock), Arc::clone(&counts))
        };
        let drain_timeout = self.settings.server.drain_timeout;
        let ConnectionSettings { idle, max_age, write_timeout, .. } = self.settings.server.connections;
        let limits = ListenerSettings {
            drain_timeout,
            max_idle: Some(idle),
            max_age: Some(max_age),
            write_timeout,
            ..ListenerSettings::default()
        };

        // Cancelled when the listener shall close: after the delay that the settings ask for, or at
        // once when the start failed.
        let closing = CancellationToken::new();
        let serving = listener::serve(
            grpc,
            self.tls.clone(),
            layered(routes),
            limits.clone(),
            admission,
            closing.clone(),
        );
        let serving_health = async {
            let Some(socket) = health_socket else { return };
            let mut health_alone = RoutesBuilder::default();
            health_alone.add_service(health_service);
            let limits = ListenerSettings { max_age: Some(MAX_HEALTH_CONNECTION_AGE), ..limits };
            let service = layered(health_alone);
            // Only a Check is ever waited for here, and nothing is lost with it.
            let _ = listener::serve(socket, None, service, limits, health_admission, closing.clone()).await;
        };
        let starting = self.come_up_and_stay(foundations, backend.clone(), health.clone(), clock_difference);
        let watching = async {
            let outcome = tokio::select! {
                () = self.stop.cancelled() => Ok(()),
                Err(error) = starting => Err(error),
            };
            health.stop();
            if outcome.is_ok() {
                sleep(self.settings.server.drain_delay).await;
            }
            closing.cancel();
            outcome.map(|()| Instant::now() + drain_timeout)
        };
        let following_files = async {
            match &self.tls {
                Some(tls) => tls.follow_files(TLS_FILES_PERIOD).await,
                None => std::future::pending().await,
            }
        };
        let (drained, (), deadline) = tokio::select! {
            ended = async { tokio::join!(serving, serving_health, watching) } => ended,
            never = following_files => match never {},
        };
        let stopped = self.finish_writes(&backend, drained, deadline?).await;
        if stopped.writes_finished && timeout(CLOSING, self.storage.close()).await.is_err() {
            tracing::warn!("the connections to the database were not closed in order");
        }
        Ok(stopped)
    }

    /// Starts the service and makes health follow the database from then on. Ends only when the
    /// start fails, or after [`HealthHandle::stop`].
    async fn come_up_and_stay(
        &self,
        foundations: Foundations,
        backend: Backend,
        health: HealthHandle,
        clock_difference: ClockDifference,
    ) -> Result<std::convert::Infallible, StartError> {
        let (service, keys) = foundations.build().await?;
        drop(foundations);
        let mut janitor = Janitor::new(service.clone());
        let pause = janitor.sweep().await;
        let mut hash_costs = HashCosts::new(service.clone());
        let costs_pause = hash_costs.look().await;
        let mut clocks = ClockWatch::new(self.storage.clone(), Arc::clone(&self.clock), clock_difference);
        clocks.compare().await;
        backend.open(service.clone());
        // The start has just read from the database, so the first probe need not be waited for.
        match self.storage.try_write().await {
            Ok(()) => health.set_ready(true),
            Err(error) => tracing::warn!(%error, "not ready: the database cannot be written to"),
        }
        let announcing = {
            let health = health.clone();
            async move {
                health.ready().await;
                self.ready.send_replace(true);
            }
        };
        let following = health::follow(health, || self.storage.probe(), ProbeSettings::default());
        let outages = service.outages().clone();
        let (offers, offered) = mpsc::channel(1);
        let following_master_key = async {
            match &self.master_key_file {
                Some(file) => file.follow(offers).await,
                None => std::future::pending().await,
            }
        };
        let (never, ..) = tokio::join!(
            janitor.run(pause),
            keys.follow(service, offered),
            following_master_key,
            hash_costs.run(costs_pause),
            clocks.run(),
            outages.follow(),
            announcing,
            following
        );
        Ok(never)
    }

    /// Writes go on when their callers have left; what is left of the time to drain is theirs.
    async fn finish_writes(&self, backend: &Backend, drained: Drained, deadline: Instant) -> Stopped {
        if let Some(service) = backend.opened() {
            service.outages().log();
            match timeout_at(deadline, service.write_refusals(Due::Now)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!("the calls refused in the last minute are missing from the audit log");
                }
            }
        }
        let writes_finished = timeout_at(deadline, self.units.finished()).await.is_ok();
        if timeout_at(deadline, self.units.asides_finished()).await.is_err() {
            tracing::debug!(
                "some outdated password hashes are left for the next login, or some places among checks until they age out"
            );
        }
        Stopped { cut_off: drained.cut_off, writes_finished }
    }
}
