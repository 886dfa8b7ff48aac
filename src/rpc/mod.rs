//! The gRPC edge: decode a message, call one method of `service`, encode what it returns.

pub mod codec;
pub mod status;
