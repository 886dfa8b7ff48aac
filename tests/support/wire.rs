//! A proxy in front of PostgreSQL that counts what a client asks, and that plays a broken network.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::port;

/// What clients asked for since the last look, over all connections in the order of arrival.
///
/// A connection's own set-up counts too: warm the client up, throw that trace away, then measure.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// How often a client waited for the server: simple queries and `Sync` messages, but for those that were
    /// sent while an earlier one was unanswered, and for those `Sync` that follow nothing but `Close`, for which
    /// no client waits.
    pub(crate) round_trips: usize,
    /// The SQL of each execution, `BEGIN` and `COMMIT` included.
    pub(crate) statements: Vec<String>,
    /// Explicit transactions that began, and statements executed outside of one.
    pub(crate) transactions: usize,
}

/// A TCP proxy that reads along with the PostgreSQL protocol, version 3, in the clear.
///
/// Counting happens before a message is passed on: when a client has its answer, the trace has the
/// question. Ends, with all connections, when dropped.
pub(crate) struct CountingProxy {
    addr: SocketAddr,
    upstream: SocketAddr,
    /// How long an answer takes.
    delay: Duration,
    trace: Arc<Mutex<Trace>>,
    /// Which bytes may pass.
    flow: watch::Sender<Flow>,
    /// How many connections were accepted.
    accepted: Arc<AtomicUsize>,
    /// How many connections are open at either end.
    open: Arc<AtomicUsize>,
    /// `None` while cut.
    listening: Mutex<Option<Listening>>,
}

/// Which bytes may pass.
#[derive(Clone, Copy)]
struct Flow {
    frozen: bool,
    /// The number of the first connection that is not stranded.
    afloat: usize,
}

struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl CountingProxy {
    /// Starts a proxy to `upstream`. Wants to be called within a tokio runtime.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::start_with_delay(upstream, Duration::ZERO)
    }

    /// As [`CountingProxy::start`], with answers that take `delay` longer: so what a client sends without waiting
    /// for them is seen to be sent before.
    pub(crate) fn start_with_delay(upstream: SocketAddr, delay: Duration) -> Self {
        let listener = port::bind();
        let proxy = Self {
            addr: listener.local_addr().expect("a bound listener has an address"),
            upstream,
            delay,
            trace: Arc::default(),
            flow: watch::Sender::new(Flow { frozen: false, afloat: 0 }),
            accepted: Arc::default(),
            open: Arc::default(),
            listening: Mutex::default(),
        };
        proxy.listen(listener);
        proxy
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections are open. One that the server has closed counts until its client has
    /// closed it as well.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// What was asked since the last call.
    pub(crate) fn take(&self) -> Trace {
        std::mem::take(&mut *lock(&self.trace))
    }

    /// Closes all connections and refuses new ones until `restore`.
    pub(crate) async fn cut(&self) {
        let Some(listening) = lock(&self.listening).take() else { return };
        // Fails when the task has ended already, which is what is wanted.
        let _ = listening.stop.send(());
        listening.task.await.expect("the proxy does not panic");
    }

    /// Accepts connections and forwards nothing, in neither direction, until `restore`: the server has
    /// dropped off the network. What is sent meanwhile arrives after it.
    pub(crate) fn freeze(&self) {
        self.flow.send_modify(|flow| flow.frozen = true);
    }

    /// Forwards nothing more on the connections that are open now, for good: whoever held their other
    /// ends has forgotten them. New ones work.
    pub(crate) fn strand(&self) {
        let accepted = self.accepted.load(Ordering::SeqCst);
        self.flow.send_modify(|flow| flow.afloat = accepted);
    }

    /// Ends a cut, a freeze or both.
    pub(crate) fn restore(&self) {
        self.flow.send_modify(|flow| flow.frozen = false);
        if lock(&self.listening).is_none() {
            self.listen(StdListener::bind(self.addr).expect("the port of the proxy stays free"));
        }
    }

    fn listen(&self, listener: StdListener) {
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let listener = TcpListener::from_std(listener).expect("the runtime takes the socket");
        let (stop, stopped) = oneshot::channel();
        let link = Link {
            upstream: self.upstream,
            delay: self.delay,
            trace: self.trace.clone(),
            flow: self.flow.subscribe(),
            accepted: self.accepted.clone(),
            open: self.open.clone(),
            number: 0,
        };
        let task = tokio::spawn(serve(listener, link, stopped));
        *lock(&self.listening) = Some(Listening { stop, task });
    }
}

/// What a connection of the proxy needs.
#[derive(Clone)]
struct Link {
    upstream: SocketAddr,
    delay: Duration,
    trace: Arc<Mutex<Trace>>,
    flow: watch::Receiver<Flow>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    number: usize,
}

/// Accepts until `stopped` is told or its sender is dropped, then closes every connection.
async fn serve(listener: TcpListener, link: Link, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("the proxy has file descriptors left");
                // How a connection ended matters to its two ends only.
                let number = link.accepted.fetch_add(1, Ordering::SeqCst);
                let link = Link { number, ..link.clone() };
                let counted = Counted::new(&link.open);
                connections.spawn(async move {
                    let _counted = counted;
                    link.connect(client).await.ok()
                });
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// One more, for as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Link {
    async fn connect(mut self, client: TcpStream) -> io::Result<()> {
        self.pass().await;
        let server = TcpStream::connect(self.upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let unanswered = Unanswered::default();
        let mut frontend = Frontend::new(self.trace.clone(), unanswered.clone());
        let mut backend = Backend { unanswered, started: false, pending: Vec::new() };
        let delay = self.delay;
        // The end of one direction closes that half only: the server answers a Terminate by closing.
        tokio::try_join!(
            self.clone().pump(from_client, to_server, Duration::ZERO, |bytes| frontend.feed(bytes)),
            self.pump(from_server, to_client, delay, |bytes| backend.feed(bytes)),
        )?;
        Ok(())
    }

    /// Passes bytes on, each time after `seen` has seen them.
    async fn pump(
        mut self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        delay: Duration,
        mut seen: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            self.pass().await;
            if read == 0 {
                return to.shutdown().await;
            }
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            seen(&buffer[..read]);
            to.write_all(&buffer[..read]).await?;
        }
    }

    /// Waits until bytes may pass.
    async fn pass(&mut self) {
        let number = self.number;
        if self.flow.wait_for(|flow| !flow.frozen && number >= flow.afloat).await.is_err() {
            // The proxy is gone and this task about to be.
            std::future::pending().await
        }
    }
}

/// The questions of one client that have no answer yet, and whether it waits for one.
type Unanswered = Arc<Mutex<VecDeque<bool>>>;

/// What the server has said to one client so far.
struct Backend {
    unanswered: Unanswered,
    /// Whether its first byte has passed.
    started: bool,
    /// Bytes of a message that is not complete.
    pending: Vec<u8>,
}

impl Backend {
    fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        // The answer to a request for encryption is a single byte.
        let mut used = usize::from(!self.started && self.pending.first() == Some(&b'N'));
        self.started = true;
        // A type, and a length that counts itself.
        while let Some([kind, a, b, c, d]) = self.pending.get(used..).and_then(<[u8]>::first_chunk) {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if self.pending.len() - used <= length {
                break;
            }
            used += 1 + length;
            // Ready for the next query.
            if *kind == b'Z' {
                lock(&self.unanswered).pop_front();
            }
        }
        self.pending.drain(..used);
    }
}

/// What one client has said so far.
struct Frontend {
    trace: Arc<Mutex<Trace>>,
    unanswered: Unanswered,
    /// Bytes of a message that is not complete.
    pending: Vec<u8>,
    /// Whether the start-up message has passed, after which messages carry a type.
    started: bool,
    /// SQL by the name of the prepared statement.
    statements: HashMap<Vec<u8>, String>,
    /// SQL by the name of the portal.
    portals: HashMap<Vec<u8>, String>,
    /// Whether the client will wait for the answer to the next `Sync`.
    asked: bool,
    in_transaction: bool,
}

/// The codes that can stand where a protocol version is expected.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;

impl Frontend {
    fn new(trace: Arc<Mutex<Trace>>, unanswered: Unanswered) -> Self {
        Self {
            trace,
            unanswered,
            pending: Vec::new(),
            started: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            asked: false,
            in_transaction: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(used) = self.message(rest) {
            rest = &rest[used..];
        }
        self.pending = rest.to_vec();
    }

    /// Reads one message from the start of `bytes` and returns its length, `None` when it is not
    /// complete.
    fn message(&mut self, bytes: &[u8]) -> Option<usize> {
        // The length counts itself and the body, not the type before it.
        let start = usize::from(self.started);
        let (length, _) = bytes.get(start..)?.split_first_chunk()?;
        let end = start + usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let body = bytes.get(start + length.len()..end)?;
        if self.started {
            self.typed(bytes[0], body);
        } else {
            // The server answers a request for encryption with a single byte, and "no" when it was
            // set up as tests/support/postgres.sh does; then the client goes on in the clear.
            let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
            self.started = !matches!(code, Some(SSL_REQUEST | GSS_ENCRYPTION_REQUEST));
        }
        Some(end)
    }

    fn typed(&mut self, kind: u8, body: &[u8]) {
        let (first, rest) = split_text(body);
        match kind {
            b'P' => {
                self.statements.insert(first.to_vec(), text(split_text(rest).0));
                self.asked = true;
            }
            b'B' => {
                let sql = self.statements.get(split_text(rest).0).cloned();
                self.portals.insert(first.to_vec(), sql.unwrap_or_else(|| "<not prepared>".to_owned()));
                self.asked = true;
            }
            b'E' => {
                let sql = self.portals.get(first).cloned();
                self.execute(sql.unwrap_or_else(|| "<not bound>".to_owned()));
                self.asked = true;
            }
            b'D' => self.asked = true,
            b'S' => {
                let is_waited_for = std::mem::take(&mut self.asked);
                self.ask(is_waited_for);
            }
            b'Q' => {
                self.ask(true);
                self.execute(text(first));
            }
            // Close (the names may be used again later, by another Parse or Bind), Flush, Terminate,
            // passwords, copied data: none is a question of its own.
            _ => {}
        }
    }

    fn ask(&mut self, is_waited_for: bool) {
        let mut unanswered = lock(&self.unanswered);
        let is_round_trip = is_waited_for && !unanswered.contains(&true);
        unanswered.push_back(is_waited_for);
        lock(&self.trace).round_trips += usize::from(is_round_trip);
    }

    fn execute(&mut self, sql: String) {
        let first_word: String =
            sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_uppercase();
        let begins = matches!(first_word.as_str(), "BEGIN" | "START");
        let ends = matches!(first_word.as_str(), "COMMIT" | "END" | "ABORT")
            || first_word == "ROLLBACK" && !sql.to_uppercase().contains(" TO ");
        let mut trace = lock(&self.trace);
        trace.transactions += usize::from(!self.in_transaction && !ends);
        self.in_transaction = !ends && (begins || self.in_transaction);
        trace.statements.push(sql);
    }
}

/// Splits after the zero byte that ends a text of the protocol.
fn split_text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
