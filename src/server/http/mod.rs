//! The side port: `/metrics`, `/livez` and `/readyz` over HTTP/1.1, for those who speak no gRPC.
//!
//! It tells nothing about users and takes nothing in. It is answered from the first moment to the
//! last, and holds up nothing: neither the exit nor, with its bounds, anything else.

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
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::health::HealthHandle;
use super::listener;
use crate::crypto::hasher::Hasher;
use metrics::Metrics;

/// Connections at once: some scrapers and a probe or two. Further ones wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send a request's head, an idle connection's next one included:
/// longer than scrapers pause, or they connect anew.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// How much of a request's head is read.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What scrapers of OpenMetrics expect, and Prometheus understands.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on `listener` until `shutdown`, and then closes every connection at once.
pub(super) async fn serve(
    listener: TcpListener,
    health: HealthHandle,
    hasher: Hasher,
    shutdown: CancellationToken,
) {
    let routes = routes(health, hasher);
    let accepted = listener::accept_all(listener, MAX_CONNECTIONS, |stream, peer, slot| {
        let (routes, shutdown) = (routes.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _ = shutdown.run_until_cancelled(connection(stream, peer, routes)).await;
            drop(slot);
        });
    });
    shutdown.run_until_cancelled(accepted).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = connection.await {
        tracing::debug!(peer.address = %peer, error = %error, "HTTP connection broke");
    }
}

fn routes(health: HealthHandle, hasher: Hasher) -> Router {
    let metrics = Arc::new(Metrics::new(health.clone(), hasher));
    Router::new()
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
