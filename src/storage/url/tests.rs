use std::time::Duration;

use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::*;

fn parse(text: &str) -> (PostgresTarget, Vec<String>) {
    match DatabaseUrl::parse(text) {
        Ok((DatabaseUrl::Postgres(target), warnings)) => (*target, warnings),
        other => panic!("{text}: {other:?}"),
    }
}

fn refusal(text: &str) -> InvalidDatabaseUrl {
    DatabaseUrl::parse(text).unwrap_err()
}

fn sqlite(text: &str) -> String {
    DatabaseUrl::parse(text).unwrap().0.sqlite_path().unwrap().display().to_string()
}

#[test]
fn an_sqlite_path_is_what_follows_the_scheme() {
    assert_eq!(sqlite("sqlite:identity.db"), "identity.db");
    assert_eq!(sqlite("sqlite:/var/lib/identity.db"), "/var/lib/identity.db");
    assert_eq!(sqlite("sqlite://identity.db"), "identity.db");
    assert_eq!(sqlite("sqlite:///var/lib/identity.db"), "/var/lib/identity.db");
    assert_eq!(sqlite("SQLite:a%20b.db"), "a%20b.db");
    assert_eq!(sqlite("file:./dev.db"), "./dev.db");
    assert_eq!(sqlite("sqlite:file:dev.db"), "dev.db");
}

#[test]
fn an_sqlite_parameter_is_dropped_with_a_warning() {
    let (_, warnings) = DatabaseUrl::parse("file:./dev.db?connection_limit=1").unwrap();
    assert_eq!(warnings, ["parameter `connection_limit` is ignored on SQLite"]);
}

#[test]
fn an_sqlite_database_that_would_not_last_is_refused() {
    for text in ["sqlite::memory:", "sqlite://:memory:", "sqlite:file::memory:", "sqlite:x?mode=memory"] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::InMemory, "{text}");
    }
    for text in ["sqlite:", "sqlite://", "file:", "sqlite:folder/", "sqlite:?mode=rwc", "sqlite::other:"] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::NoFile, "{text}");
    }
}

#[test]
fn another_scheme_is_refused() {
    for text in ["identity.db", "mysql://u:secret@h/d", "postgres:h/d", "http://h"] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::Scheme, "{text}");
    }
}

#[test]
fn the_defaults_notice_a_dead_server_soon() {
    let (target, warnings) = parse("postgres://ada@db.example/identity");
    let config = target.config();
    assert_eq!(config.get_application_name(), Some("identity"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(2)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(config.get_ports(), [5432]);
    assert_eq!(target.tls(), TlsMode::Prefer);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn an_encoded_password_is_decoded() {
    let (target, _) = parse("postgresql://a%40b:p%2Fq%3A%40%23%25+@[::1]:6000/my%20db");
    assert_eq!(target.config().get_user(), Some("a@b"));
    assert_eq!(target.config().get_password(), Some(&b"p/q:@#%+"[..]));
    assert_eq!(target.config().get_hosts(), [Host::Tcp("::1".to_owned())]);
    assert_eq!(target.config().get_ports(), [6000]);
    assert_eq!(target.config().get_dbname(), Some("my db"));
}

#[test]
fn no_form_of_a_url_shows_the_password() {
    let (url, warnings) = DatabaseUrl::parse(
        "postgres://ada:hunter2@h:1/d?sslmode=require&sslpassword=hunter2&x=hunter2&schema=s",
    )
    .unwrap();
    assert_eq!(url.to_string(), "postgres://ada@h:1/d");
    let shown = format!("{url:?} {:?} {warnings:?}", parse("postgres://ada:hunter2@h:1/d").0);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_password_that_was_not_encoded_is_refused_without_showing_it() {
    for text in [
        "postgres://ada:hun/ter2@h/d",
        "postgres://ada:12/ter2@h/d",
        "postgres://ada:hun?ter2@h/d",
        "postgres://ada:12?a=ter2@h/d",
        "postgres://ada:hun#ter2@h/d",
        "postgres://ada:h@un/ter2@h/d",
        "postgres://ada:h@un/ter2/d",
        "postgres://ada:h@un?hun/ter2=x",
    ] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::Reserved, "{text}");
    }
    // Only the last @ can be the one in front of the host.
    let (target, _) = parse("postgres://ada:hun@ter2@h/d");
    assert_eq!(target.to_string(), "postgres://ada@h:5432/d");
    assert_eq!(target.config().get_password(), Some(&b"hun@ter2"[..]));
}

#[test]
fn what_prisma_adds_is_translated_or_dropped() {
    let (target, warnings) = parse(
        "postgres://h/d?schema=My-App&connection_limit=5&connect_timeout=7&pool_timeout=3&socket_timeout=4\
         &statement_cache_size=0&pgbouncer=true",
    );
    assert_eq!(target.schema(), Some("My-App"));
    // PgBouncer refuses options.
    assert_eq!(target.config().get_options(), None);
    assert_eq!(target.connection_limit().map(std::num::NonZeroU32::get), Some(5));
    assert_eq!(target.connect_timeout(), Duration::from_secs(7));
    let names: Vec<_> = warnings.iter().map(|warning| warning.split('`').nth(1).unwrap()).collect();
    assert_eq!(names, ["pool_timeout", "socket_timeout", "statement_cache_size", "pgbouncer"]);
}

#[test]
fn a_schema_cannot_smuggle_in_other_settings() {
    for schema in ["", "a%22b", "a b", "a%5Cb", &"a".repeat(64)] {
        let refused = refusal(&format!("postgres://h/d?schema={schema}"));
        assert!(
            matches!(refused, InvalidDatabaseUrl::Parameter { name: "schema", .. }),
            "{schema}: {refused}"
        );
    }
}

#[test]
fn the_tls_mode_follows_libpq_and_prisma() {
    let modes = [
        ("sslmode=disable", TlsMode::Disable),
        ("sslmode=allow", TlsMode::Prefer),
        ("sslmode=prefer", TlsMode::Prefer),
        ("sslmode=require", TlsMode::Require),
        ("sslmode=verify-ca", TlsMode::VerifyCa),
        ("sslmode=verify-full", TlsMode::VerifyFull),
        ("sslmode=require&sslrootcert=ca.pem", TlsMode::VerifyCa),
        ("sslrootcert=ca.pem", TlsMode::VerifyCa),
        ("sslmode=prefer&sslrootcert=ca.pem", TlsMode::Prefer),
        ("sslrootcert=system", TlsMode::VerifyFull),
        ("sslaccept=strict", TlsMode::VerifyFull),
        ("sslmode=require&sslaccept=strict", TlsMode::VerifyFull),
        ("sslmode=require&sslaccept=accept_invalid_certs", TlsMode::Require),
        ("sslmode=verify-ca&sslaccept=accept_invalid_certs", TlsMode::VerifyCa),
        ("ssl=true", TlsMode::Require),
        ("ssl=TRUE", TlsMode::Require),
        ("ssl=1&sslmode=prefer", TlsMode::Require),
        ("sslmode=verify-full&ssl=true", TlsMode::VerifyFull),
        ("ssl=true&sslrootcert=ca.pem", TlsMode::VerifyCa),
        ("ssl=true&sslaccept=strict", TlsMode::VerifyFull),
        ("ssl=false", TlsMode::Prefer),
        ("ssl=false&sslmode=require", TlsMode::Require),
        ("requiressl=1", TlsMode::Require),
        ("requiressl=0", TlsMode::Prefer),
        ("sslMode=require", TlsMode::Require),
        ("SSLMODE=verify-full", TlsMode::VerifyFull),
        ("sslMode=require&sslmode=require", TlsMode::Require),
        ("sslmode=require&ssl_min_protocol_version=TLSv1.3", TlsMode::Require),
        ("sslmode=verify-full&host=/run/postgresql", TlsMode::Disable),
    ];
    for (query, mode) in modes {
        assert_eq!(parse(&format!("postgres://h/d?{query}")).0.tls(), mode, "{query}");
    }
    for query in [
        "sslmode=require&sslrootcert=system",
        "sslnegotiation=direct",
        "sslmode=on",
        "sslmode=disable&ssl=true",
        "requiressl=1&sslmode=disable",
        "sslmode=disable&sslaccept=strict",
        "sslmode=require&sslMode=disable",
    ] {
        let refused = refusal(&format!("postgres://h/d?{query}"));
        assert!(
            matches!(refused, InvalidDatabaseUrl::Parameter { name: "sslmode", .. }),
            "{query}: {refused}"
        );
    }
}

#[test]
fn sslcert_is_an_authority_to_prisma_only() {
    let (target, _) = parse("postgres://h/d?sslaccept=strict&sslcert=ca.pem");
    assert_eq!(target.root_certificates(), Some(Path::new("ca.pem")));
    let (target, warnings) = parse("postgres://h/d?sslmode=require&sslcert=client.pem&sslkey=client.key");
    assert_eq!(target.root_certificates(), None);
    assert_eq!(warnings.len(), 2);
}

#[test]
fn what_asks_for_security_that_there_is_not_is_refused() {
    for (query, parameter) in [
        ("gssencmode=require", "gssencmode"),
        ("gssEncMode=require", "gssencmode"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("requirepeer=postgres", "requirepeer"),
        ("sslmode=verify-full&sslcrl=crl.pem", "sslcrl"),
        ("sslcrldir=crls", "sslcrldir"),
        ("sslmode=require&sslcertmode=require", "sslcertmode"),
        // Without TLS, these would have no effect.
        ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
        ("sslmode=prefer&ssl_min_protocol_version=TLSv1.2", "ssl_min_protocol_version"),
        ("sslcert=client.pem", "sslcert"),
        ("sslmode=disable&sslkey=client.key", "sslkey"),
        ("sslidentity=client.p12", "sslidentity"),
        // What is not known is not passed over.
        ("tls=true", "tls"),
        ("useSSL=true", "usessl"),
        ("ssl_mode=require", "ssl_mode"),
        ("sslfactory=x", "sslfactory"),
        ("encrypt=true", "encrypt"),
        ("trustServerCertificate=false", "trustservercertificate"),
    ] {
        let refused = refusal(&format!("postgres://h/d?{query}"));
        assert!(
            matches!(&refused, InvalidDatabaseUrl::Unsupported { name, .. } if name == parameter),
            "{query}: {refused}"
        );
    }
    for (query, parameter) in [
        ("ssl=maybe", "ssl"),
        ("ssl=", "ssl"),
        ("requiressl=yes", "requiressl"),
        ("sslmode=require&ssl_min_protocol_version=1.3", "ssl_min_protocol_version"),
        ("channelBinding=always", "channel_binding"),
    ] {
        let refused = refusal(&format!("postgres://h/d?{query}"));
        assert!(
            matches!(&refused, InvalidDatabaseUrl::Parameter { name, .. } if *name == parameter),
            "{query}: {refused}"
        );
    }
    for text in ["sqlite:identity.db?key=hunter2", "file:./dev.db?cipher=sqlcipher"] {
        let refused = refusal(text);
        assert!(matches!(refused, InvalidDatabaseUrl::Unsupported { .. }), "{text}");
        assert!(!refused.to_string().contains("hunter2"));
    }
}

#[test]
fn the_oldest_version_of_tls_is_what_the_url_says() {
    let min_tls = |query: &str| parse(&format!("postgres://h/d?sslmode=require{query}")).0.min_tls();
    assert_eq!(min_tls(""), MinTlsVersion::Tls12);
    assert_eq!(min_tls("&ssl_min_protocol_version=TLSv1"), MinTlsVersion::Tls12);
    assert_eq!(min_tls("&ssl_min_protocol_version=TLSv1.3"), MinTlsVersion::Tls13);
}

#[test]
fn an_empty_url_is_refused() {
    assert_eq!(refusal(""), InvalidDatabaseUrl::Empty);
}

#[test]
fn white_space_that_would_name_another_database_is_refused() {
    for text in ["postgres://h/identity", "sqlite:identity.db"] {
        for end in ["\n", "\r\n", "\r", " ", "\t", "\u{a0}"] {
            assert_eq!(refusal(&format!("{text}{end}")), InvalidDatabaseUrl::WhiteSpace, "{end:?}");
            assert_eq!(refusal(&format!("{end}{text}")), InvalidDatabaseUrl::WhiteSpace, "{end:?}");
        }
    }
    for text in [
        " ",
        "sqlite: identity.db",
        "sqlite:identity.db ?mode=rwc",
        "postgres://h/identity%20",
        "postgres://h/%20identity?schema=s",
        "postgres://ada%20@h/d",
        "postgres://h%20/d",
        "postgres://h/d?dbname=e%20",
        "postgres://h/d?user=%20ada",
        "postgres://h/d?host=a,b%20",
    ] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::WhiteSpace, "{text}");
    }
}

#[test]
fn control_characters_are_refused() {
    for text in [
        "postgres://h/a\nb",
        "sqlite:a\rb.db",
        "sqlite:a\0b.db",
        "postgres://h/a%0Ab",
        "postgres://h/d%0D",
        "postgres://h/d?application_name=a%7Fb",
        "postgres://h/d?options=-c%20a%0Ab",
    ] {
        assert_eq!(refusal(text), InvalidDatabaseUrl::Control, "{text:?}");
    }
}

#[test]
fn a_line_end_of_the_password_is_warned_of() {
    for text in ["postgres://ada:hunter2%0A@h/d", "postgres://ada@h/d?password=hunter2%0a"] {
        let (target, warnings) = parse(text);
        assert_eq!(target.config().get_password(), Some(&b"hunter2\n"[..]));
        assert_eq!(warnings, ["the password ends with a line end, which is sent as a part of it"]);
    }
}

#[test]
fn the_parameters_of_libpq_pass_through() {
    let (target, warnings) = parse(
        "postgres://h1,h2:6000/d?application_name=x&options=-c%20geqo%3Doff&keepalives_idle=9&keepalives_count=2\
         &target_session_attrs=read-write&hostaddr=10.0.0.1,10.0.0.2&tcp_user_timeout=1500&schema=s",
    );
    let config = target.config();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.get_application_name(), Some("x"));
    assert_eq!(config.get_options(), Some("-c geqo=off"));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(9));
    assert_eq!(config.get_keepalives_retries(), Some(2));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_hostaddrs().len(), 2);
    assert_eq!(target.to_string(), "postgres://h1:5432,h2:6000/d");
}

#[test]
fn parameters_replace_what_the_address_says() {
    let (target, _) =
        parse("postgres://ada@localhost/d?host=/run/postgresql&port=6000&user=bob&dbname=e&password=p");
    assert_eq!(target.config().get_hosts(), [Host::Unix(PathBuf::from("/run/postgresql"))]);
    assert_eq!(target.to_string(), "postgres://bob@/run/postgresql:6000/e");
    let (target, _) = parse("postgres:///d?hostaddr=::1");
    assert_eq!(target.to_string(), "postgres://[::1]:5432/d");
}

#[test]
fn an_unknown_parameter_is_dropped_and_named() {
    let (_, warnings) = parse("postgres://h/d?krbsrvname=x");
    assert_eq!(warnings, ["parameter `krbsrvname` is ignored: it is not known"]);
    // What asks for nothing that there is not is not worth a word.
    assert_eq!(parse("postgres://h/d?gssencmode=disable&sslcertmode=allow").1, [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    use InvalidDatabaseUrl::{Malformed, NoHost, Uneven};
    let cases = [
        ("postgres://", NoHost),
        ("postgres:///d", NoHost),
        ("postgres://ada@/d", NoHost),
        ("postgres://h:0/d", Malformed),
        ("postgres://h:x/d", Malformed),
        ("postgres://[::1/d", Malformed),
        ("postgres://h/%FF", Malformed),
        ("postgres://h/a%00b", InvalidDatabaseUrl::Control),
        ("postgres://h/d?schema", Malformed),
        ("postgres://h1,h2/d?hostaddr=10.0.0.1", Uneven),
        ("postgres://h1,h2,h3/d?port=1,2", Uneven),
    ];
    for (text, error) in cases {
        assert_eq!(refusal(text), error, "{text}");
    }
}
