//! TLS on the port for gRPC: handshakes, who the client is, and certificates that are renewed.
//!
//! Reading the files is left to [`crypto::tls`](crate::crypto::tls), bounding the handshake in time to
//! the connection.

mod svid;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::crypto::tls::{Fingerprint, TlsFileError, TlsFiles};
use crate::domain::SpiffeId;
use svid::BrokenSvid;

/// TLS as the files have it. All clones speak with the same certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<TlsFiles>,
    current: watch::Sender<Current>,
    /// Told to read the files now.
    reload: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

/// What a client's certificate says. Without one, nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// The service that it names, if it names one.
    pub(super) service: Option<SpiffeId>,
    /// For how long it is still valid.
    pub(super) valid_for: Option<Duration>,
}

/// Why a connection did not become one that is served.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTls {
    /// The handshake failed, or the client's certificate is not accepted.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// The certificate is accepted, and names a service in a way that the standard forbids.
    #[error(transparent)]
    Svid(#[from] BrokenSvid),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFileError`] when they cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsFileError> {
        let material = files.read()?;
        let current =
            Current { config: Arc::new(material.server_config()?), fingerprint: material.fingerprint() };
        Ok(Self { files: Arc::new(files), current: watch::Sender::new(current), reload: Arc::default() })
    }

    /// Makes [`Tls::follow_files`] read the files now.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Shakes hands with a client, without a bound in time, and says what its certificate says.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), NoTls> {
        let config = Arc::clone(&self.current.borrow().config);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        // Without authorities no certificate is asked for, so what is there was verified.
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = match leaf {
            // By the clock that has found it valid.
            Some(leaf) => svid::read(leaf, Duration::from_secs(UnixTime::now().as_secs()))?,
            None => Peer::default(),
        };
        Ok((stream, peer))
    }

    /// Reads the files again every `period` and after [`Tls::reload`], and takes a new content for the connections to come. One
    /// that is of no use is told once, and the old one stays. Never returns.
    ///
    /// The content is compared, not watched for: whoever renews a certificate may replace a file, write
    /// into it, or swap the folder that it is in.
    pub async fn follow_files(&self, period: Duration) -> Infallible {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = Complaint::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.reload.notified() => {}
            }
            let (files, known) = (Arc::clone(&self.files), self.current.borrow().fingerprint);
            match spawn_blocking(move || read_if_changed(&files, known)).await {
                Ok(Ok(None)) => complaint.over(),
                Ok(Ok(Some(renewed))) => {
                    complaint.over();
                    self.current.send_replace(renewed);
                    tracing::info!("the TLS files have changed: new connections use what they hold now");
                }
                Ok(Err(error)) => {
                    if complaint.is_due(&error) {
                        tracing::warn!(%error, "the TLS files have changed and are of no use: what they held before is used on");
                    }
                }
                Err(error) => tracing::error!(%error, "the TLS files could not be looked at"),
            }
        }
    }
}

fn read_if_changed(files: &TlsFiles, known: Fingerprint) -> Result<Option<Current>, TlsFileError> {
    let material = files.read()?;
    let fingerprint = material.fingerprint();
    if fingerprint == known {
        return Ok(None);
    }
    Ok(Some(Current { config: Arc::new(material.server_config()?), fingerprint }))
}

/// Tells a fault once, and only when it was met twice in a row: whoever replaces certificate and key one
/// after the other leaves a pair that does not fit for a moment.
#[derive(Debug, Default)]
struct Complaint {
    met: Option<TlsFileError>,
    told: Option<TlsFileError>,
}

impl Complaint {
    fn is_due(&mut self, error: &TlsFileError) -> bool {
        let is_due = self.met.as_ref() == Some(error) && self.told.as_ref() != Some(error);
        self.met = Some(error.clone());
        if is_due {
            self.told = Some(error.clone());
        }
        is_due
    }

    fn over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tls::TlsFile;

    #[test]
    fn a_fault_is_told_when_it_lasts_and_told_once() {
        let fault = |problem: &str| TlsFileError { file: TlsFile::Key, problem: problem.to_owned() };
        let mut complaint = Complaint::default();
        let told: Vec<bool> =
            ["a", "a", "a", "b", "b", "a"].map(|problem| complaint.is_due(&fault(problem))).into();
        assert_eq!(told, [false, true, false, false, true, false]);
        complaint.over();
        assert_eq!([(); 2].map(|()| complaint.is_due(&fault("a"))), [false, true]);
    }
}
