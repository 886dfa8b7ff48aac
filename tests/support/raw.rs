//! A client that speaks HTTP/2 and nothing above it, for what no gRPC library would send.

use std::collections::HashMap;
use std::net::SocketAddr;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::proto::v1::{GetUserRequest, GetUserResponse, User};
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
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

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        self.try_send(request).await.unwrap()
    }

    /// As [`RawClient::send`], over a connection that may break.
    pub(crate) async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        let (head, body) = self.0.send_request(request).await?.into_parts();
        let collected = body.collect().await?;
        let mut metadata = head.headers;
        metadata.extend(collected.trailers().cloned().unwrap_or_default());
        Ok(Reply { http_status: head.status, metadata, body: collected.to_bytes() })
    }

    /// Calls GetUser with `headers` on top of those that gRPC demands.
    pub(crate) async fn get_user(&mut self, user_id: &str, headers: &[(&'static str, &str)]) -> Reply {
        self.send(get_user(user_id, headers)).await
    }
}

/// A call of GetUser, as [`RawClient::get_user`] makes it.
pub(crate) fn get_user(user_id: &str, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let message = GetUserRequest { user_id: user_id.to_owned(), ..GetUserRequest::default() };
    grpc(GET_USER, headers, frame(&message.encode_to_vec()))
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
