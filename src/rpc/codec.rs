//! How messages are read from and written to the wire: protobuf.
//!
//! tonic-prost's codec answers INTERNAL to a message that cannot be decoded, which blames the
//! service for what the caller sent. This one answers INVALID_ARGUMENT.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::status;

/// The buffer that a call starts with, in bytes. Requests and replies have a few hundred; tonic's
/// default of 8 KiB, twice a call, would be most of the memory of a call in flight.
const BUFFER_BYTES: usize = 1024;

/// How many bytes a stream gathers before it sends them: tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Protobuf that sends `T` and receives `U`.
#[derive(Clone, Copy, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Reads one protobuf message of type `U`.
///
/// # Errors
/// INVALID_ARGUMENT, reason MALFORMED_MESSAGE, for bytes that are no such message or a `string`
/// field that is not UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct MessageDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // prost's own text names fields and may quote nothing useful to a caller; it stays here.
        U::decode(buffer).map(Some).map_err(|_| status::malformed_message())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
