//! Tells clients such as grpcurl which services there are and what their messages look like.

use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use crate::proto;

/// The largest question that is read, in bytes: the name of a symbol or a file.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// Adds server reflection, v1 and v1alpha, to `routes`. It describes the package `identity.v1`, the
/// health service and itself.
///
/// # Errors
/// Only when an embedded descriptor set is broken, which no input can cause.
pub fn register(routes: &mut RoutesBuilder) -> Result<(), Error> {
    routes.add_service(describing().build_v1()?.max_decoding_message_size(MAX_MESSAGE_BYTES));
    // Still the only version that many clients know.
    routes.add_service(describing().build_v1alpha()?.max_decoding_message_size(MAX_MESSAGE_BYTES));
    Ok(())
}

fn describing() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of errors, which clients could not print otherwise.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
