use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;

/// Far above what any test here takes.
const NEVER: Duration = Duration::from_secs(600);

/// Passes while a test waits for it.
const SOON: Duration = Duration::from_millis(100);

const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nhost: identity\r\n\r\n";

/// More than the buffers of a loopback connection take.
const LARGE: usize = 64 * 1024 * 1024;

struct SidePort {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl SidePort {
    async fn start(connections: usize, exchange: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/small", get(async || "small"))
            .route("/large", get(async || "x".repeat(LARGE)));
        let shutdown = CancellationToken::new();
        let limits = Limits { connections, exchange };
        let served = tokio::spawn(accept(listener, routes, limits, shutdown.clone()));
        Self { address, shutdown, served }
    }

    /// Sends `bytes` on a new connection.
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Waits until a request is answered. A busy machine may take longer for one than its time limit.
    async fn serves(&self) {
        while !rest(self.send(REQUEST).await).await.ends_with("small") {}
    }
}

/// Everything that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_connection_is_closed_after_one_answer() {
    let port = SidePort::start(2, NEVER).await;
    let answers = rest(port.send(&REQUEST.repeat(2)).await).await;
    assert!(answers.starts_with("HTTP/1.1 200 OK\r\n") && answers.ends_with("\r\n\r\nsmall"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
}

#[tokio::test]
async fn a_client_that_is_silent_or_stops_in_the_middle_is_cut_off() {
    let port = SidePort::start(2, SOON).await;
    for bytes in [&b""[..], b"G", b"GET /small HTTP/1.1\r\nhost: ident", &REQUEST[..REQUEST.len() - 1]] {
        assert_eq!(rest(port.send(bytes).await).await, "", "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_byte_by_byte_is_cut_off_all_the_same() {
    let port = SidePort::start(2, SOON).await;
    let (mut replies, mut requests) = port.send(b"GET /small HTTP/1.1\r\nx: ").await.into_split();
    let trickle = async {
        // Slow enough to stay below what is read of a head.
        while requests.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut reply = Vec::new();
    tokio::select! {
        () = trickle => {}
        _ = replies.read_to_end(&mut reply) => {}
    }
    assert_eq!(reply, b"");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_reply_is_cut_off() {
    let port = SidePort::start(1, SOON).await;
    let mute = port.send(b"GET /large HTTP/1.1\r\nhost: identity\r\n\r\n").await;
    // The only connection that may be open is this one then.
    port.serves().await;
    assert!(rest(mute).await.len() < LARGE);
}

#[tokio::test]
async fn whoever_is_silent_gives_way_to_the_next_when_no_more_connections_may_be_open() {
    let port = SidePort::start(1, SOON).await;
    let silent = port.send(b"").await;
    port.serves().await;
    assert_eq!(rest(silent).await, "");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let port = SidePort::start(2, NEVER).await;
    let long = format!("GET /small HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES));
    let many = format!("GET /small HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
    for head in [long, many] {
        let reply = rest(port.send(head.as_bytes()).await).await;
        assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
    }
}

#[tokio::test]
async fn the_end_waits_for_nobody() {
    let port = SidePort::start(2, NEVER).await;
    let silent = port.send(b"GET").await;
    // Its reply means that the one before it has been accepted.
    rest(port.send(REQUEST).await).await;
    port.shutdown.cancel();
    port.served.await.unwrap();
    assert_eq!(rest(silent).await, "");
    assert!(TcpStream::connect(port.address).await.is_err());
}
