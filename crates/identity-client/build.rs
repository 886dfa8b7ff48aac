//! Compiles the client's half of `proto/` with protox, so that no `protoc` is needed.

use std::error;

fn main() -> Result<(), Box<dyn error::Error>> {
    const PROTO: &str = "../../proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let files = ["identity/v1/error_reason.proto", "identity/v1/identity.proto", "identity/v1/types.proto"];
    tonic_prost_build::configure().build_server(false).compile_fds(protox::compile(files, [PROTO])?)?;
    Ok(())
}
