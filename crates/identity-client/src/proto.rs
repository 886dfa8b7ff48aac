//! The wire contract, generated from `proto/` by the build script. It stays within this crate: some messages
//! would show a password or a token to whoever prints them.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

tonic::include_proto!("identity.v1");
