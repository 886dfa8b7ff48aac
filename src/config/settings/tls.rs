//! TLS, and what may be listened on without it.

use std::net::SocketAddr;

use crate::config::declared::{
    IDENTITY_LISTEN, IDENTITY_PLAINTEXT, IDENTITY_TLS_CERT, IDENTITY_TLS_CLIENT_CA, IDENTITY_TLS_KEY,
};
use crate::config::read::Reader;
use crate::crypto::tls::{TlsFile, TlsFileError, TlsFiles};

/// Whether passwords and tokens may come in plaintext from beyond this machine.
#[derive(Clone, Copy)]
pub(in crate::config) enum Plaintext {
    Refuse,
    Allow,
}

/// The files of TLS, if it is spoken; the address to `listen` on has to be loopback without it.
pub(super) fn read(reader: &mut Reader<'_>, listen: SocketAddr) -> Option<TlsFiles> {
    let certificate = reader.given(&IDENTITY_TLS_CERT);
    let key = reader.given(&IDENTITY_TLS_KEY);
    let client_authorities = reader.given(&IDENTITY_TLS_CLIENT_CA);
    let plaintext = reader.get(&IDENTITY_PLAINTEXT);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate, key, client_authorities };
            check(reader, &files);
            return Some(files);
        }
        (Some(_), None) => reader.fault(
            &IDENTITY_TLS_CERT, "must be set together with IDENTITY_TLS_KEY (--tls-key)"),
        (None, Some(_)) => reader.fault(
            &IDENTITY_TLS_KEY, "must be set together with IDENTITY_TLS_CERT (--tls-cert)"),
        (None, None) if client_authorities.is_some() => {
            reader.fault(&IDENTITY_TLS_CLIENT_CA, "must be set together with IDENTITY_TLS_CERT and IDENTITY_TLS_KEY");
        }
        (None, None) if listen.ip().to_canonical().is_loopback() => {}
        (None, None) => match plaintext {
            Plaintext::Allow => reader.warn(
                &IDENTITY_LISTEN,
                "passwords and tokens reach this address in plaintext; let something in front of it speak TLS",
            ),
            Plaintext::Refuse => reader.fault(
                &IDENTITY_LISTEN,
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
        let setting = match file {
            TlsFile::Certificate => &IDENTITY_TLS_CERT,
            TlsFile::Key => &IDENTITY_TLS_KEY,
            TlsFile::ClientAuthorities => &IDENTITY_TLS_CLIENT_CA,
        };
        reader.fault(setting, format_args!("must name a file {problem}"));
    }
    if files.key_is_exposed() {
        let warning = "every user of the machine can read the file; chmod 640 or stricter keeps them out";
        reader.warn(&IDENTITY_TLS_KEY, warning);
    }
}
