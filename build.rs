//! Compiles `proto/` with protox, so that no `protoc` is needed, and keeps the encoded descriptor
//! set for server reflection.

use std::path::PathBuf;
use std::{env, error, fs};

use prost::Message as _;

const FILES: [&str; 5] = [
    "identity/v1/audit.proto",
    "identity/v1/directory.proto",
    "identity/v1/error_reason.proto",
    "identity/v1/identity.proto",
    "identity/v1/types.proto",
];

/// Messages that hold passwords or tokens. `src/proto.rs` gives them a `Debug` that shows nothing.
const SECRET_MESSAGES: [&str; 11] = [
    ".identity.v1.RegisterRequest",
    ".identity.v1.RegisterResponse",
    ".identity.v1.LoginRequest",
    ".identity.v1.LoginResponse",
    ".identity.v1.RefreshSessionRequest",
    ".identity.v1.RefreshSessionResponse",
    ".identity.v1.LogoutRequest",
    ".identity.v1.ChangePasswordRequest",
    ".identity.v1.VerifyTokenRequest",
    ".identity.v1.CreateUserRequest",
    ".identity.v1.SetPasswordRequest",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script its folder in the environment")]
fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("identity_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .codec_path("crate::rpc::codec::Codec")
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(descriptors)?;
    Ok(())
}
