//! A client that speaks HTTP/2 and nothing above it, for what no gRPC library would send.

use std::collections::HashMap;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use identity::proto::v1::{GetUserRequest, GetUserResponse, User};
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) const GET_USER: &str = "/identity.v1.IdentityService/GetUser";

/// A client that sends what no gRPC library would. Clones share its connection.
#[derive(Clone)]
pub(crate) struct RawClient(SendRequest<Full<Bytes>>);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) http_status: StatusCode,
    /// Headers and trailers.
    pub(crate) metadata: HeaderMap,
    pub(crate) body: Bytes,
}

impl RawClient {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap()).await.unwrap()
    }

    /// Speaks over a connection that is open.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, hyper::Error> {
        let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(client))
    }

    /// A client that lets the server send `window` bytes on each stream, and more only for what it has read.
    pub(crate) async fn with_window(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        window: u32,
    ) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(i32::MAX as u32);
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// A client that pings the server all the time.
    pub(crate) async fn pinging(addr: SocketAddr) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_millis(5))
            .keep_alive_while_idle(true);
        let stream = TcpStream::connect(addr).await.unwrap();
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Waits until a new call can be made, or fails when the connection takes none any more.
    pub(crate) async fn ready(&mut self) -> Result<(), hyper::Error> {
        self.0.ready().await
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&mut self) {
        while !self.0.is_closed() {
            // Fails when it is closed, and answers at once before.
            let _ = self.0.ready().await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a request and waits for the head of its reply, whose body is not read.
    pub(crate) async fn head(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.0.send_request(request).await
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        self.try_send(request).await.unwrap()
    }

    /// As [`RawClient::send`], over a connection that may break.
    pub(crate) async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        Reply::read(self.0.send_request(request).await?).await
    }

    /// Calls GetUser with `headers` on top of those that gRPC demands.
    pub(crate) async fn get_user(&mut self, user_id: &str, headers: &[(&'static str, &str)]) -> Reply {
        self.send(get_user(user_id, headers)).await
    }
}

/// A connection to `addr` from an address of one's own, such as 127.0.0.2.
pub(crate) async fn from_source(source: [u8; 4], addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from(source), 0)).unwrap();
    socket.connect(addr).await.unwrap()
}

/// A call of GetUser, as [`RawClient::get_user`] makes it.
pub(crate) fn get_user(user_id: &str, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let message = GetUserRequest { user_id: user_id.to_owned(), ..GetUserRequest::default() };
    grpc(GET_USER, headers, frame(&message.encode_to_vec()))
}

/// Sends `request` over a connection of its own, with `trailers` after its body.
pub(crate) async fn with_trailers(
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
    trailers: &[(&'static str, &str)],
) -> Reply {
    let trailers: HeaderMap = trailers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let request = request.map(|body| body.with_trailers(ready(Some(Ok(trailers)))));
    let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut client, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    Reply::read(client.send_request(request).await.unwrap()).await.unwrap()
}

/// A gRPC request to `path` with `body` as it is.
pub(crate) fn grpc(path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://identity{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// `message` as gRPC frames it: not compressed, its length, itself.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let mut metadata = head.headers;
        metadata.extend(collected.trailers().cloned().unwrap_or_default());
        Ok(Self { http_status: head.status, metadata, body: collected.to_bytes() })
    }

    pub(crate) fn request_id(&self) -> &str {
        self.metadata["x-request-id"].to_str().unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        Status::from_header_map(&self.metadata).expect("a reply has a gRPC status")
    }

    /// The code and the reason of a refusal.
    pub(crate) fn refusal(&self) -> (Code, String) {
        refusal(&self.status())
    }

    pub(crate) fn user(&self) -> User {
        assert_eq!(self.status().code(), Code::Ok, "{self:?}");
        GetUserResponse::decode(&self.body[5..]).unwrap().user.unwrap()
    }
}

/// The code and the reason of a refusal.
pub(crate) fn refusal(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("a refusal has a reason");
    assert_eq!((info.domain.as_str(), info.metadata), ("identity", HashMap::new()));
    (status.code(), info.reason)
}
