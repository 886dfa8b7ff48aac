//! A server of keys that counts who asks, and answers what a test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::tokens::Signer;

#[derive(Clone)]
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answer: Mutex<String>,
    /// The requests up to now.
    requests: watch::Sender<Vec<String>>,
    /// Whether answers are sent.
    answering: watch::Sender<bool>,
}

impl KeyServer {
    pub(crate) async fn start(keys: &[&Signer]) -> Self {
        Self::start_with(keys, None).await
    }

    pub(crate) async fn start_with(keys: &[&Signer], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: Mutex::default(),
            requests: watch::channel(Vec::new()).0,
            answering: watch::channel(true).0,
        });
        let server = Self { address, state };
        server.publish(keys);
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (accepting.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            // A client that does not trust the certificate hangs up.
                            if let Ok(stream) = tls.accept(stream).await {
                                server.exchange(stream).await;
                            }
                        }
                        None => server.exchange(stream).await,
                    }
                });
            }
        });
        server
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.address)
    }

    /// Answers with these keys from now on.
    pub(crate) fn publish(&self, keys: &[&Signer]) {
        self.publish_for(keys, "max-age=3600");
    }

    pub(crate) fn publish_for(&self, keys: &[&Signer], cache_control: &str) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer("200 OK", cache_control, &json!({"keys": keys}).to_string());
    }

    pub(crate) fn answer(&self, status: &str, cache_control: &str, body: &str) {
        let head =
            format!("HTTP/1.1 {status}\r\nCache-Control: public, {cache_control}\r\nETag: \"one\"\r\n");
        let length = if status.starts_with("304") { String::new() } else { length(body) };
        *self.state.answer.lock().unwrap() = format!("{head}{length}\r\n{body}");
    }

    /// Lets whoever asks wait until [`KeyServer::go_on`].
    pub(crate) fn wait(&self) {
        self.state.answering.send_replace(false);
    }

    pub(crate) fn go_on(&self) {
        self.state.answering.send_replace(true);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.state.requests.borrow().len()
    }

    /// Waits until this many have asked, and returns the last request.
    pub(crate) async fn fetched(&self, times: usize) -> String {
        let mut requests = self.state.requests.subscribe();
        let requests = requests.wait_for(|requests| requests.len() >= times).await.unwrap();
        requests.last().unwrap().clone()
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        self.state.requests.send_modify(|requests| requests.push(request));
        self.state.answering.subscribe().wait_for(|answering| *answering).await.unwrap();
        let answer = self.state.answer.lock().unwrap().clone();
        // A client that has read enough hangs up.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn length(body: &str) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
}
