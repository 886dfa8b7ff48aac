//! A client that speaks as much HTTP/2 as an attack needs, with connections that cost little: for what no gRPC
//! library would send.

mod frames;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::target::{CONNECT_TIMEOUT, Origin, Target};

use frames::{
    ACK, END_STREAM, GOAWAY, HEADER_BYTES, HEADERS, Header, MAX_FRAME_BYTES, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};
pub(crate) use frames::{Call, Frames};

/// What a client may send on a new connection before the peer says more (RFC 9113, 6.9.2).
const FIRST_WINDOW: usize = 65_535;

/// Writes that may wait for the one before them.
const WRITES_AHEAD: usize = 4;

/// Enough for what the peer of an idle connection sends.
const READ_BUFFER_BYTES: usize = 1_024;

/// How long a write may wait for a peer that reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The peer ended the connection, or reads nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended")]
pub(crate) struct Ended;

/// An open connection, which answers SETTINGS and PING by itself. Closed when dropped.
pub(crate) struct Connection {
    writes: mpsc::Sender<Vec<u8>>,
    peer: Arc<Peer>,
    last_stream: Option<u32>,
}

/// What the peer did.
struct Peer {
    /// It sent its settings.
    greeted: AtomicBool,
    /// How many streams it ended, by a reset or with its reply.
    streams_ended: AtomicU64,
    /// How many bytes it takes on the connection; closed when the connection ended.
    window: Semaphore,
}

impl Connection {
    /// Connects from `origin`. The peer may send `window` bytes on each stream; 65,535 if it is not told.
    ///
    /// # Errors
    /// Nobody listens, or `origin` has no port left.
    pub(crate) async fn open(target: Target, origin: Origin, window: Option<u32>) -> io::Result<Self> {
        let socket = if target.0.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((origin.0, 0).into())?;
        let stream = timeout(CONNECT_TIMEOUT, socket.connect(target.0)).await??;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (writes, outgoing) = mpsc::channel(WRITES_AHEAD);
        let peer = Arc::new(Peer {
            greeted: AtomicBool::new(false),
            streams_ended: AtomicU64::new(0),
            window: Semaphore::new(FIRST_WINDOW),
        });
        let (reading, replies) = (Arc::clone(&peer), writes.downgrade());
        tokio::spawn(async move {
            tokio::select! {
                _ = reading.read(BufReader::with_capacity(READ_BUFFER_BYTES, read), replies) => {}
                _ = write_all(write, outgoing) => {}
            }
            reading.window.close();
        });
        let connection = Self { writes, peer, last_stream: None };
        let begun = connection.write(Frames::preface(window)).await;
        begun.map_err(|Ended| io::Error::from(io::ErrorKind::ConnectionReset))?;
        Ok(connection)
    }

    /// Whether the peer has sent its settings.
    pub(crate) fn is_greeted(&self) -> bool {
        self.peer.greeted.load(Relaxed)
    }

    /// Whether the peer has ended the connection.
    pub(crate) fn has_ended(&self) -> bool {
        self.writes.is_closed()
    }

    /// How many streams the peer has ended.
    pub(crate) fn streams_ended(&self) -> u64 {
        self.peer.streams_ended.load(Relaxed)
    }

    /// Makes all these calls at once, and returns their streams.
    pub(crate) async fn open_streams(&mut self, calls: &[Call]) -> Result<Vec<u32>, Ended> {
        let mut frames = Frames::default();
        let mut streams = Vec::with_capacity(calls.len());
        let bytes = calls.iter().map(Call::window).sum();
        self.peer.window.acquire_many(bytes).await.map_err(|_| Ended)?.forget();
        for call in calls {
            let stream = self.last_stream.map_or(Some(1), |last| last.checked_add(2)).ok_or(Ended)?;
            self.last_stream = Some(stream);
            frames.call(stream, call);
            streams.push(stream);
        }
        self.write(frames).await?;
        Ok(streams)
    }

    /// Gives those streams up.
    pub(crate) async fn reset(&self, streams: &[u32]) -> Result<(), Ended> {
        let mut frames = Frames::default();
        streams.iter().for_each(|stream| frames.reset(*stream));
        self.write(frames).await
    }

    async fn write(&self, frames: Frames) -> Result<(), Ended> {
        self.writes.send(frames.into_bytes()).await.map_err(|_| Ended)
    }
}

async fn write_all(mut stream: OwnedWriteHalf, mut writes: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(bytes) = writes.recv().await {
        timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await??;
    }
    Ok(())
}

impl Peer {
    /// Reads what the peer sends until it ends the connection.
    async fn read(
        &self,
        mut stream: impl AsyncRead + Unpin,
        replies: mpsc::WeakSender<Vec<u8>>,
    ) -> io::Result<()> {
        let mut payload = vec![];
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header).await?;
            let Header { length, kind, flags, stream: number } = Header::parse(header);
            if length > MAX_FRAME_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            payload.resize(length, 0);
            stream.read_exact(&mut payload).await?;
            let reply = match kind {
                GOAWAY => return Ok(()),
                SETTINGS if flags & ACK == 0 => {
                    self.greeted.store(true, Relaxed);
                    Frames::settings_ack()
                }
                PING if flags & ACK == 0 => Frames::ping_ack(&payload),
                WINDOW_UPDATE if number == 0 => {
                    let bytes = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    self.window.add_permits((bytes & 0x7fff_ffff) as usize);
                    continue;
                }
                _ => {
                    let ended = kind == RST_STREAM || (kind == HEADERS && flags & END_STREAM != 0);
                    self.streams_ended.fetch_add(ended.into(), Relaxed);
                    continue;
                }
            };
            let Some(replies) = replies.upgrade() else { return Ok(()) };
            if replies.send(reply.into_bytes()).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection, and what its peer reads and writes, which has read what a client begins with.
    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let connection = Connection::open(target, "127.0.0.2".parse().unwrap(), None).await.unwrap();
        let (mut peer, address) = listener.accept().await.unwrap();
        assert_eq!(address.ip().to_string(), "127.0.0.2");
        read_as(&mut peer, &Frames::preface(None).into_bytes()).await;
        (connection, peer)
    }

    async fn read_as(peer: &mut TcpStream, wanted: &[u8]) {
        let mut bytes = vec![0; wanted.len()];
        timeout(Duration::from_secs(5), peer.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert_eq!(bytes, wanted);
    }

    async fn say(peer: &mut TcpStream, kind: u8, stream: u8, payload: &[u8]) {
        let header = [0, 0, payload.len() as u8, kind, 0, 0, 0, 0, stream];
        peer.write_all(&[header.as_slice(), payload].concat()).await.unwrap();
    }

    #[tokio::test]
    async fn settings_and_pings_are_answered_and_the_end_of_a_stream_counts() {
        let (connection, mut peer) = connected().await;
        assert!(!connection.is_greeted());
        say(&mut peer, RST_STREAM, 1, &[0; 4]).await;
        say(&mut peer, SETTINGS, 0, &[]).await;
        read_as(&mut peer, &Frames::settings_ack().into_bytes()).await;
        say(&mut peer, PING, 0, b"whatever").await;
        read_as(&mut peer, &Frames::ping_ack(b"whatever").into_bytes()).await;
        assert!(connection.is_greeted() && !connection.has_ended());
        assert_eq!(connection.streams_ended(), 1);
    }

    #[tokio::test]
    async fn streams_are_opened_and_reset_by_their_numbers() {
        let (mut connection, mut peer) = connected().await;
        let calls = vec![Call::new("/path", &[], b"message"); 2];
        assert_eq!(connection.open_streams(&calls).await, Ok(vec![1, 3]));
        connection.reset(&[1, 3]).await.unwrap();
        let mut wanted = Frames::default();
        calls.iter().zip([1, 3]).for_each(|(call, stream)| wanted.call(stream, call));
        [1, 3].iter().for_each(|stream| wanted.reset(*stream));
        read_as(&mut peer, &wanted.into_bytes()).await;
        assert_eq!(connection.open_streams(&calls[..1]).await, Ok(vec![5]));
    }

    #[tokio::test]
    async fn no_more_is_sent_than_the_peer_takes() {
        let (mut connection, mut peer) = connected().await;
        let calls = vec![Call::new("/path", &[], &[7; 16_000]); 5];
        assert!(timeout(Duration::from_millis(50), connection.open_streams(&calls)).await.is_err());
        say(&mut peer, WINDOW_UPDATE, 0, &20_000_u32.to_be_bytes()).await;
        let opened = timeout(Duration::from_secs(5), connection.open_streams(&calls)).await.unwrap();
        assert_eq!(opened.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_ends_opens_no_more_streams() {
        let (mut connection, mut peer) = connected().await;
        say(&mut peer, GOAWAY, 0, &[0; 8]).await;
        timeout(Duration::from_secs(5), connection.writes.closed()).await.unwrap();
        assert!(connection.has_ended());
        assert_eq!(connection.open_streams(&[Call::new("/path", &[], &[])]).await, Err(Ended));
    }
}
