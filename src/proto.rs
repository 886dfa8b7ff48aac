//! The wire contract, generated from `proto/` by the build script.

/// Messages and services of the package `identity.v1`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("identity.v1");
}

/// The encoded descriptor set of `identity.v1` and what it imports, for server reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/identity_descriptor.bin"));

/// Messages that hold secrets say no more than their name; the build script leaves them without the
/// `Debug` that it derives for all others.
macro_rules! silent {
    ($($message:ident),*) => {$(
        impl std::fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(…)"))
            }
        }
    )*};
}

silent!(
    RegisterRequest,
    RegisterResponse,
    LoginRequest,
    LoginResponse,
    RefreshSessionRequest,
    RefreshSessionResponse,
    LogoutRequest,
    ChangePasswordRequest,
    VerifyTokenRequest,
    CreateUserRequest,
    SetPasswordRequest
);
