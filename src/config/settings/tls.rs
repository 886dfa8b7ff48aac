//! TLS, and what may be listened on without it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::read::{Name, Reader};
use crate::crypto::tls::{TlsFile, TlsFileError, TlsFiles};

const CERT: Name = Name::with_flag("IDENTITY_TLS_CERT", |flags| flags.tls_cert.as_deref());
const KEY: Name = Name::with_flag("IDENTITY_TLS_KEY", |flags| flags.tls_key.as_deref());
const CLIENT_CA: Name = Name::with_flag("IDENTITY_TLS_CLIENT_CA", |flags| flags.tls_client_ca.as_deref());
const PLAINTEXT: Name = Name::with_flag("IDENTITY_PLAINTEXT", |flags| flags.plaintext.as_deref());
const HEALTH_LISTEN: Name = Name::with_flag("IDENTITY_HEALTH_LISTEN", |flags| flags.health_listen.as_deref());

/// Whether passwords and tokens may come in plaintext from beyond this machine.
#[derive(Clone, Copy)]
enum Plaintext {
    Refuse,
    Allow,
}

/// The files of TLS, if it is spoken; `listen`, which the setting `listen_name` gives, has to be loopback
/// without it.
pub(super) fn tls(reader: &mut Reader<'_>, listen_name: Name, listen: SocketAddr) -> Option<TlsFiles> {
    let [certificate, key, client_authorities] =
        [CERT, KEY, CLIENT_CA].map(|name| reader.text(name).map(PathBuf::from));
    let plaintext = [("refuse", Plaintext::Refuse), ("allow", Plaintext::Allow)];
    let plaintext = reader.choice(PLAINTEXT, &plaintext).unwrap_or(Plaintext::Refuse);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate, key, client_authorities };
            check(reader, &files);
            return Some(files);
        }
        (Some(_), None) => reader.fault(CERT, "must be set together with IDENTITY_TLS_KEY (--tls-key)"),
        (None, Some(_)) => reader.fault(KEY, "must be set together with IDENTITY_TLS_CERT (--tls-cert)"),
        (None, None) if client_authorities.is_some() => {
            reader.fault(CLIENT_CA, "must be set together with IDENTITY_TLS_CERT and IDENTITY_TLS_KEY");
        }
        (None, None) if listen.ip().to_canonical().is_loopback() => {}
        (None, None) => match plaintext {
            Plaintext::Allow => reader.warn(
                listen_name,
                "passwords and tokens reach this address in plaintext; let something in front of it speak TLS",
            ),
            Plaintext::Refuse => reader.fault(
                listen_name,
                "must be a loopback address unless TLS is on, since passwords and tokens would reach it in \
                 plaintext. Set IDENTITY_TLS_CERT and IDENTITY_TLS_KEY, or, where something in front of the \
                 service speaks TLS, IDENTITY_PLAINTEXT=allow (--plaintext allow)",
            ),
        },
    }
    None
}

/// Notes what is wrong with the files, none of which is opened for good here.
fn check(reader: &mut Reader<'_>, files: &TlsFiles) {
    if let Err(TlsFileError { file, problem }) = files.read().and_then(|material| material.server_config()) {
        let name = match file {
            TlsFile::Certificate => CERT,
            TlsFile::Key => KEY,
            TlsFile::ClientAuthorities => CLIENT_CA,
        };
        reader.fault(name, format_args!("must name a file {problem}"));
    }
    if files.key_is_exposed() {
        reader.warn(KEY, "every user of the machine can read the file; chmod 640 or stricter keeps them out");
    }
}

/// Where health alone is answered, in plaintext; `None` for nowhere.
pub(super) fn health_listen(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let example = SocketAddr::from(([0, 0, 0, 0], 50052));
    reader.address_or_off(HEALTH_LISTEN, example).flatten()
}
