//! The side port: `/.well-known/jwks.json`, `/metrics`, `/livez` and `/readyz` over HTTP/1.1, for those
//! who speak no gRPC.
//!
//! It tells nothing about users and takes nothing in. It is answered from the first moment to the
//! last, and holds up nothing: neither the exit nor, with its bounds, anything else. Each connection
//! gets one answer and is closed, all within one time limit: whatever a client leaves undone, be it to
//! send a request or to read the reply, it keeps nobody else out for longer.

mod jwks;
mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::budgets::Budgets;
use super::clocks::ClockDifference;
use super::edge::CallCounts;
use super::health::HealthHandle;
use super::listener::{self, Trouble};
use crate::crypto::hasher::Hasher;
use crate::domain::Timestamp;
use crate::rpc::Backend;
use crate::service::Refusals;
use crate::storage::Storage;
use crate::telemetry::lines::DroppedLines;
use metrics::Metrics;

/// How much of a request's head is read. What comes after it is not.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What the clients of the port can hold.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once. Further ones wait in the kernel's queue.
    connections: usize,
    /// How long one may be open, from accepting it to the end of its reply.
    exchange: Duration,
}

/// Far more connections than some scrapers and a probe or two, and two megabytes of heads at the most;
/// far longer than an answer takes, and half of what Prometheus waits by default.
const LIMITS: Limits = Limits { connections: 128, exchange: Duration::from_secs(5) };

/// What scrapers of OpenMetrics expect, and Prometheus understands.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The connections to the port, and so the descriptors that it takes.
pub(super) const MAX_CONNECTIONS: usize = LIMITS.connections;

/// What the port tells of.
pub(super) struct Watched {
    pub(super) connections: Vec<(&'static str, Admission)>,
    pub(super) budgets: Budgets,
    pub(super) health: HealthHandle,
    pub(super) hasher: Hasher,
    pub(super) refusals: Refusals,
    pub(super) calls: Arc<CallCounts>,
    pub(super) storage: Storage,
    pub(super) clock_difference: ClockDifference,
    pub(super) dropped_lines: DroppedLines,
    /// When the process started.
    pub(super) started: Timestamp,
    /// Who has the keys that others verify tokens with.
    pub(super) keys: Backend,
    /// How long others may keep them.
    pub(super) keys_max_age: Duration,
}

/// Answers on `listener` until `shutdown`, and then closes every connection at once.
pub(super) async fn serve(listener: TcpListener, watched: Watched, shutdown: CancellationToken) {
    accept(listener, routes(watched), LIMITS, shutdown).await;
}

async fn accept(listener: TcpListener, routes: Router, limits: Limits, shutdown: CancellationToken) {
    let accepted = accept_all(listener, limits.connections, |stream, peer, slot| {
        let (routes, shutdown) = (routes.clone(), shutdown.clone());
        tokio::spawn(async move {
            let exchange = timeout(limits.exchange, exchange(stream, peer, routes));
            if let Some(Err(_)) = shutdown.run_until_cancelled(exchange).await {
                tracing::debug!(peer.address = %peer, "HTTP connection closed: its time was up");
            }
            drop(slot);
        });
    });
    shutdown.run_until_cancelled(accepted).await;
}

/// Hands every new connection to `open`, with the slot that it occupies until it drops it. Never
/// returns; the listening socket is closed when the future is dropped.
async fn accept_all(
    listener: TcpListener,
    max_connections: usize,
    open: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let slots = Arc::new(Semaphore::new(max_connections));
    let mut trouble = Trouble::default();
    // Nobody closes the semaphore.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let (stream, peer) = listener::accept(&listener, &mut trouble).await;
        open(stream, peer, slot);
    }
}

/// Reads one request and writes its reply.
async fn exchange(stream: TcpStream, peer: SocketAddr, routes: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        // The limit of the whole exchange is shorter.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = connection.await {
        tracing::debug!(peer.address = %peer, error = %error, "HTTP connection broke");
    }
}

fn routes(watched: Watched) -> Router {
    let health = watched.health.clone();
    let keys = (watched.keys.clone(), watched.keys_max_age);
    let metrics = Arc::new(Metrics::new(watched));
    Router::new()
        .route("/.well-known/jwks.json", get(jwks::answer).with_state(keys))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(scrape).with_state(metrics))
}

async fn readyz(State(health): State<HealthHandle>) -> Response {
    if health.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
