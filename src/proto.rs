//! The wire contract, generated from `proto/` by the build script.

/// Messages and services of the package `identity.v1`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("identity.v1");
}

/// The encoded descriptor set of `identity.v1` and what it imports, for server reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/identity_descriptor.bin"));
