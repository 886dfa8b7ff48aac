//! How messages are read from and written to the wire.

/// Protobuf.
pub type Codec<T, U> = tonic_prost::ProstCodec<T, U>;
