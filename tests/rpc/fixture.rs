//! A clock, a client that sends any bytes, and ways to look at what came back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;
use identity::domain::{Clock, RequestId, SystemClock, Timestamp};
use identity::proto::v1::RegisterResponse;
use identity::service::access::{Access, AccessTable, Rpc};
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use prost_types::{FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::service::{Client, TestService, reason, registration};

/// A clock that stands still until a test moves it.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    /// Shows the time of its making.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(SystemClock.now().as_unix_micros())))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// As when a clock that was ahead is set right.
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A UUID, as a caller would make one for a request.
pub(crate) fn new_id() -> String {
    RequestId::generate(SystemClock.now()).to_string()
}

/// Registers `email` in a tenant of its own.
pub(crate) async fn registered(service: &TestService, email: &str) -> RegisterResponse {
    service.client().register(registration(email)).await.unwrap()
}

/// Code and reason of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().expect("a refusal has a reason");
    assert_eq!(info.domain, "identity");
    (status.code(), reason(&status))
}

pub(crate) fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

/// All that a caller can see of a refusal, but for the time and the id of the call.
pub(crate) fn visible(status: &Status) -> (Code, String, Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let metadata = status.metadata().iter().map(|entry| match entry {
        KeyAndValueRef::Ascii(key, value) => (key.to_string(), value.as_encoded_bytes().to_vec()),
        KeyAndValueRef::Binary(key, value) => (key.to_string(), value.as_encoded_bytes().to_vec()),
    });
    let metadata = metadata.filter(|(key, _)| !matches!(key.as_str(), "date" | "x-request-id")).collect();
    (status.code(), status.message().to_owned(), status.details().to_vec(), metadata)
}

/// Header and claims of a JWT, its signature not checked.
pub(crate) fn decode_token(token: &str) -> (Value, Value) {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, _signature] = parts[..] else { panic!("a JWT has three parts") };
    let json = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(header), json(claims))
}

/// One claim of an access token.
pub(crate) fn claim(token: &str, name: &str) -> String {
    decode_token(token).1[name].as_str().unwrap().to_owned()
}

/// The row of an RPC in the contract's table.
pub(crate) fn row(rpc: &str) -> Access {
    AccessTable::default().of(Rpc::find(rpc).unwrap())
}

/// All RPCs of the contract, by their full names.
pub(crate) fn rpcs() -> Vec<String> {
    let set = FileDescriptorSet::decode(identity::proto::DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "identity.v1");
    let of = |service: &ServiceDescriptorProto| {
        let name =
            |method: &MethodDescriptorProto| format!("identity.v1.{}/{}", service.name(), method.name());
        service.method.iter().map(name).collect::<Vec<_>>()
    };
    let rpcs: Vec<_> = files.flat_map(|file| &file.service).flat_map(of).collect();
    assert!(!rpcs.is_empty());
    rpcs
}

/// Calls `rpc`, by its full name, with a message of any bytes; returns those of the answer.
pub(crate) async fn call_raw(
    client: &Client,
    rpc: &str,
    message: Vec<u8>,
    metadata: MetadataMap,
) -> Result<Vec<u8>, Status> {
    let path = PathAndQuery::try_from(format!("/{rpc}")).unwrap();
    let request = Request::from_parts(metadata, http::Extensions::new(), message);
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    grpc.unary(request, path, AnyBytes).await.map(Response::into_inner)
}

/// Sends and receives messages as they are.
#[derive(Clone, Copy, Default)]
struct AnyBytes;

impl Codec for AnyBytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AnyBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for AnyBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
