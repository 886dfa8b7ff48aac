//! Compiles `proto/` with protox, so that no `protoc` is needed, and keeps the encoded descriptor
//! set for server reflection. Lists the texts of the migrations, whose checksums are recorded.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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
    let texts = ["postgres", "sqlite"].map(migration_texts);
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("identity_descriptor.bin"), descriptors.encode_to_vec())?;
    let [postgres, sqlite] = texts;
    fs::write(out.join("migration_texts.rs"), postgres? + &sqlite?)?;
    tonic_prost_build::configure()
        .build_client(true)
        .codec_path("crate::rpc::codec::Codec")
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(descriptors)?;
    Ok(())
}

/// A constant with the names of an engine's migrations and the texts of their `up.sql`, oldest first.
fn migration_texts(engine: &str) -> Result<String, Box<dyn error::Error>> {
    let folder = Path::new("migrations").join(engine);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        names.push(entry?.file_name().into_string().map_err(|name| format!("{name:?} is no UTF-8"))?);
    }
    names.sort();
    let mut code = format!("const {}_TEXTS: &[(&str, &str)] = &[\n", engine.to_uppercase());
    for name in names {
        let text = fs::read_to_string(folder.join(&name).join("up.sql"))?;
        writeln!(code, "    ({name:?}, {text:?}),")?;
    }
    Ok(code + "];\n")
}
