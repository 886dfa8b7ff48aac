//! A pooler that lends one connection to PostgreSQL out for a transaction at a time, as PgBouncer does with
//! `pool_mode = transaction`. Like PgBouncer, it refuses the start-up parameter `options`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::port;

/// Ends, with all connections, when dropped.
pub(crate) struct Pooler {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

/// A connection to the server on which somebody has logged in.
type Server = Arc<Mutex<TcpStream>>;

/// What a client is told when it logs in: that it is in, and that the session is idle.
const WELCOME: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I";

/// The error for a client whose start-up parameters the pooler does not pass on.
const UNSUPPORTED: &[u8] = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";

/// A request for TLS, after its length.
const TLS_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2f];

impl Pooler {
    /// In front of the database `name` of the server at `upstream`.
    pub(crate) async fn start(upstream: SocketAddr, name: &str) -> Self {
        let server = Arc::new(Mutex::new(log_in(upstream, name).await.unwrap()));
        let listener = port::bind();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // How a connection ended matters to its client only.
                clients.spawn(serve(client, Arc::clone(&server)));
            }
        });
        Self { addr, task }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn log_in(upstream: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(upstream).await?;
    let parameters = format!("user\0identity\0database\0{name}\0\0");
    let length = u32::try_from(parameters.len() + 8).unwrap();
    server.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat()).await?;
    while read_message(&mut server).await?.0 != b'Z' {}
    Ok(server)
}

/// The type of the next message, and all of it.
async fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    message.resize(1 + usize::try_from(length).unwrap(), 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok((message[0], message))
}

async fn serve(mut client: TcpStream, server: Server) -> io::Result<()> {
    welcome(&mut client).await?;
    loop {
        // Lent from here on, until the session is idle again.
        let mut first = Some(read_message(&mut client).await?);
        let mut server = server.lock().await;
        loop {
            let (kind, message) = match first.take() {
                Some(message) => message,
                None => read_message(&mut client).await?,
            };
            if kind == b'X' {
                return Ok(());
            }
            server.write_all(&message).await?;
            // Whoever has said one of these waits for an answer.
            if matches!(kind, b'Q' | b'S') && answer(&mut server, &mut client).await? == b'I' {
                break;
            }
        }
    }
}

async fn welcome(client: &mut TcpStream) -> io::Result<()> {
    loop {
        let length = client.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        client.read_exact(&mut body).await?;
        if body.starts_with(&TLS_REQUEST) {
            client.write_all(b"N").await?;
        } else if body.split(|byte| *byte == 0).any(|text| text == b"options") {
            let length = u32::try_from(UNSUPPORTED.len() + 4).unwrap();
            client.write_all(&[b"E", &length.to_be_bytes()[..], UNSUPPORTED].concat()).await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        } else {
            return client.write_all(WELCOME).await;
        }
    }
}

/// Passes on what the server says until it is ready for more, and returns the state of the session.
async fn answer(server: &mut TcpStream, client: &mut TcpStream) -> io::Result<u8> {
    loop {
        let (kind, message) = read_message(server).await?;
        client.write_all(&message).await?;
        if kind == b'Z' {
            return Ok(message[5]);
        }
    }
}
