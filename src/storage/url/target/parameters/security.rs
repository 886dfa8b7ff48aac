//! The parameters that protect the connection: what they mean together, and what is refused.

use std::path::PathBuf;

use tokio_postgres::config::{ChannelBinding, Host, SslNegotiation};

use super::super::{MinTlsVersion, TlsMode};
use super::{Draft, InvalidDatabaseUrl, wrong};

impl Draft {
    /// Applies a parameter that asks for security. What cannot be honoured is refused, and so is what is not
    /// known: nobody would notice that it has no effect.
    pub(super) fn apply_security(&mut self, name: &str, value: &str) -> Result<(), InvalidDatabaseUrl> {
        match name {
            "channel_binding" | "channelbinding" => {
                _ = self.config.channel_binding(channel_binding(value)?);
            }
            "sslnegotiation" => _ = self.config.ssl_negotiation(negotiation(value)?),
            "sslmode" => self.tls_mode(tls_mode(value)?)?,
            "ssl" if is_on("ssl", value)? => self.is_tls_required = true,
            "requiressl" if is_on("requiressl", value)? => self.is_tls_required = true,
            "ssl" | "requiressl" => {
                self.warn(format!("parameter `{name}` is ignored: `sslmode=disable` switches TLS off"));
            }
            "ssl_min_protocol_version" | "sslminprotocolversion" => {
                self.min_tls = Some(min_tls_version(value)?);
                self.needs_tls = Some(name.to_owned());
            }
            "sslrootcert" => {
                self.system_roots = value == "system";
                self.root_certificates =
                    (value != "system" && !value.is_empty()).then(|| PathBuf::from(value));
            }
            "sslcert" => self.ssl_cert = Some(value.to_owned()),
            "sslaccept" => self.strict = Some(ssl_accept(value)?),
            "sslidentity" | "sslpassword" | "sslkey" => {
                self.needs_tls = Some(name.to_owned());
                self.warn(format!("parameter `{name}` is ignored: client certificates are not supported"));
            }
            "gssencmode" | "sslcertmode" if value != "require" => {}
            "gssdelegation"
            | "gsslib"
            | "ssl_max_protocol_version"
            | "sslcompression"
            | "sslkeylogfile"
            | "sslsni" => self.warn(format!("parameter `{name}` is ignored: it is not supported")),
            _ => return unsupported(name),
        }
        Ok(())
    }

    /// Sets `sslmode`. Given twice, it says the same.
    fn tls_mode(&mut self, mode: TlsMode) -> Result<(), InvalidDatabaseUrl> {
        match self.tls.replace(mode) {
            Some(other) if other != mode => wrong("sslmode", "given once"),
            Some(_) | None => Ok(()),
        }
    }

    /// `sslcert` is the client's certificate to libpq and the authority's to Prisma; only Prisma's
    /// `sslaccept` beside it tells which is meant.
    pub(super) fn settle_roots(&mut self) {
        let Some(path) = self.ssl_cert.take() else { return };
        if self.strict.is_none() {
            self.needs_tls = Some("sslcert".to_owned());
            self.warn("parameter `sslcert` is ignored: client certificates are not supported, and the authority's certificate is `sslrootcert`");
        } else if self.root_certificates.is_none() && !self.system_roots {
            self.root_certificates = Some(PathBuf::from(path));
        }
    }

    pub(super) fn settle_tls(&mut self) -> Result<TlsMode, InvalidDatabaseUrl> {
        if self.hosts.iter().all(|host| matches!(host, Host::Unix(_))) {
            // As in libpq: PostgreSQL offers no TLS on a Unix socket.
            return Ok(TlsMode::Disable);
        }
        self.settle_tls_switch()?;
        let mode = match self.tls {
            Some(TlsMode::Disable) if self.strict == Some(true) => {
                return wrong("sslmode", "something else than disable with sslaccept=strict");
            }
            Some(mode @ (TlsMode::VerifyCa | TlsMode::VerifyFull)) if self.strict == Some(false) => {
                self.warn("parameter `sslaccept` is ignored: `sslmode` asks for a valid certificate");
                mode
            }
            Some(TlsMode::Disable) => TlsMode::Disable,
            // Prisma's word for a certificate that is valid for the host.
            _ if self.strict == Some(true) => TlsMode::VerifyFull,
            Some(mode) if self.system_roots && mode != TlsMode::VerifyFull => {
                return Err(InvalidDatabaseUrl::Parameter {
                    name: "sslmode",
                    rule: "verify-full with sslrootcert=system",
                });
            }
            None if self.system_roots => TlsMode::VerifyFull,
            // libpq checks the certificate as soon as it has an authority to check it with.
            None | Some(TlsMode::Require) if self.root_certificates.is_some() && self.strict.is_none() => {
                TlsMode::VerifyCa
            }
            None => TlsMode::Prefer,
            Some(mode) => mode,
        };
        if mode == TlsMode::Prefer && self.root_certificates.is_some() && self.strict.is_none() {
            self.warn("parameter `sslrootcert` is ignored: `sslmode` does not ask for a valid certificate");
        }
        let direct = self.config.get_ssl_negotiation() == SslNegotiation::Direct;
        if direct && matches!(mode, TlsMode::Disable | TlsMode::Prefer) {
            return Err(InvalidDatabaseUrl::Parameter {
                name: "sslmode",
                rule: "require, verify-ca or verify-full with sslnegotiation=direct",
            });
        }
        if let Some(name) = self.needs_tls.take()
            && matches!(mode, TlsMode::Disable | TlsMode::Prefer)
        {
            let reason = "it has no effect without TLS, so sslmode must be require, verify-ca or verify-full";
            return Err(InvalidDatabaseUrl::Unsupported { name, reason });
        }
        Ok(mode)
    }

    /// `ssl=true` and `requiressl=1` mean `sslmode=require`, beside a mode that asks for more that one.
    fn settle_tls_switch(&mut self) -> Result<(), InvalidDatabaseUrl> {
        if !self.is_tls_required {
            return Ok(());
        }
        match self.tls {
            Some(TlsMode::Disable) => {
                wrong("sslmode", "something else than disable with ssl=true or requiressl=1")
            }
            None | Some(TlsMode::Prefer) => {
                self.tls = Some(TlsMode::Require);
                Ok(())
            }
            Some(TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) => Ok(()),
        }
    }
}

/// Whether a parameter, known or not, is there to protect the connection, by its name.
pub(super) fn is_about_security(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["auth", "binding", "cert", "crl", "encrypt", "gss", "requirepeer", "secur", "ssl", "tls"];
    WORDS.iter().any(|word| name.contains(word))
}

fn unsupported<T>(name: &str) -> Result<T, InvalidDatabaseUrl> {
    let reason = match name {
        "gssencmode" => "GSSAPI encryption is not supported; sslmode=require encrypts with TLS",
        "require_auth" | "requireauth" => "the method of authentication cannot be required",
        "requirepeer" => "the owner of a socket is not checked",
        "sslcrl" | "sslcrldir" => "revocation lists are not read",
        "sslcertmode" => "client certificates are not supported",
        _ => "it asks for security in a way that is not known; sslmode is known",
    };
    Err(InvalidDatabaseUrl::Unsupported { name: name.to_owned(), reason })
}

fn is_on(name: &'static str, value: &str) -> Result<bool, InvalidDatabaseUrl> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => wrong(name, "true or false"),
    }
}

fn min_tls_version(value: &str) -> Result<MinTlsVersion, InvalidDatabaseUrl> {
    match value {
        "TLSv1" | "TLSv1.1" | "TLSv1.2" => Ok(MinTlsVersion::Tls12),
        "TLSv1.3" => Ok(MinTlsVersion::Tls13),
        _ => wrong("ssl_min_protocol_version", "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"),
    }
}

fn tls_mode(value: &str) -> Result<TlsMode, InvalidDatabaseUrl> {
    match value {
        "disable" => Ok(TlsMode::Disable),
        "allow" | "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        "verify-ca" => Ok(TlsMode::VerifyCa),
        "verify-full" => Ok(TlsMode::VerifyFull),
        _ => wrong("sslmode", "disable, allow, prefer, require, verify-ca or verify-full"),
    }
}

fn ssl_accept(value: &str) -> Result<bool, InvalidDatabaseUrl> {
    match value {
        "strict" => Ok(true),
        "accept_invalid_certs" => Ok(false),
        _ => wrong("sslaccept", "strict or accept_invalid_certs"),
    }
}

fn channel_binding(value: &str) -> Result<ChannelBinding, InvalidDatabaseUrl> {
    match value {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => wrong("channel_binding", "disable, prefer or require"),
    }
}

fn negotiation(value: &str) -> Result<SslNegotiation, InvalidDatabaseUrl> {
    match value {
        "postgres" => Ok(SslNegotiation::Postgres),
        "direct" => Ok(SslNegotiation::Direct),
        _ => wrong("sslnegotiation", "postgres or direct"),
    }
}
