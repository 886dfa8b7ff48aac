use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use clap::{Args as _, FromArgMatches as _};
use secrecy::ExposeSecret as _;

use super::*;
use crate::config::declared::ALL;
use crate::config::{LogFilter, LogFormat, MapEnvironment, MasterKeySource};
use crate::crypto::MasterKey;
use crate::service::OpenTo;

const SECRET: &str = "correct horse battery staple, twice";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a command line says.
fn flags<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Flags {
    let command = Flags::augment_args(clap::Command::new("identity").no_binary_name(true));
    Flags::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

fn resolve(flags: &Flags, variables: &[(&str, &str)]) -> Result<Resolved<Settings>, Vec<Fault>> {
    Settings::resolve(flags, &variables.iter().copied().collect::<MapEnvironment>())
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    resolve(&Flags::default(), variables).unwrap().settings
}

fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
    resolve(&Flags::default(), variables).unwrap().warnings
}

/// The names of the settings that are refused, and what is said about the last.
fn refused(variables: &[(&str, &str)]) -> (Vec<String>, String) {
    let mut faults = resolve(&Flags::default(), variables).unwrap_err();
    let problem = faults.last_mut().map(|fault| std::mem::take(&mut fault.problem)).unwrap();
    (faults.into_iter().map(|fault| fault.name).collect(), problem)
}

#[test]
fn an_empty_environment_gives_the_defaults() {
    let Resolved { settings, warnings } = resolve(&Flags::default(), &[]).unwrap();
    assert_eq!(settings.database.url.sqlite_path(), Some(Path::new("identity.db")));
    assert_eq!(settings.database.connections.get(), 16);
    assert_eq!(settings.database.statement_limit, Duration::from_millis(1_500));
    assert_eq!(settings.database.migrate, MigrateMode::Auto);
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:50051");
    assert!(settings.server.reflection);
    assert_eq!(settings.server.drain_delay, Duration::ZERO);
    assert_eq!(settings.server.drain_timeout, Duration::from_secs(20));
    let connections = &settings.server.connections;
    assert_eq!((connections.max.get(), connections.share), (10_000, 50));
    assert_eq!((connections.idle, connections.max_age), (5 * MINUTE, 30 * MINUTE));
    assert_eq!(connections.write_timeout, Duration::from_secs(5));
    assert_eq!(connections.call_bytes, 64 * 1024 * 1024);
    assert_eq!(settings.hash.cost.get(), 12);
    assert_eq!(settings.password_policy, PasswordPolicy::new(8));
    assert!(settings.jwt_secret.is_none());
    assert!(
        matches!(&settings.master_key.source, MasterKeySource::BesideDatabase(path) if path == "identity.db.key")
    );
    assert_eq!((&*settings.tokens.issuer, &*settings.tokens.audience), ("identity", "identity"));
    assert_eq!(settings.tokens.access_ttl, Duration::from_secs(900));
    assert_eq!((settings.session.idle, settings.session.max), (14 * DAY, 90 * DAY));
    assert_eq!((settings.signing.algorithm, settings.signing.propagation.delay()), (None, 10 * MINUTE));
    assert!(settings.master_key.previous.is_none());
    assert_eq!(format!("{:?}", settings.log.filter), format!("{:?}", LogFilter::default()));
    assert_eq!(settings.log.format, LogFormat::Auto);
    let registration = RegistrationRules { open_to: OpenTo::Anybody, hourly: None };
    assert_eq!(settings.registration, registration);
    assert_eq!(settings.audit_retention, None);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_value_counts_as_none() {
    let cost = |flag: Option<&str>, variable: &str| {
        let flags = flags(flag.iter().flat_map(|cost| ["--bcrypt-cost", *cost]));
        resolve(&flags, &[("IDENTITY_BCRYPT_COST", variable)]).unwrap().settings.hash.cost.get()
    };
    assert_eq!(cost(Some("14"), "11"), 14);
    assert_eq!(cost(Some(""), "11"), 11);
    assert_eq!(cost(None, "11"), 11);
    assert_eq!(cost(None, ""), 12);
    // A flag that is right keeps a variable that is wrong from mattering.
    assert_eq!(cost(Some("14"), "x"), 14);
}

#[test]
fn a_flag_is_named_as_its_variable() {
    let mut flags = 0;
    for (flag, variable) in ALL.iter().filter_map(|one| Some((one.flag()?.0, one.variable()))) {
        let name = variable.strip_prefix("IDENTITY_").unwrap_or(variable);
        assert_eq!(flag, name.to_ascii_lowercase().replace('_', "-"));
        flags += 1;
    }
    assert!(flags > 40, "{flags}");
}

#[test]
fn every_fault_is_reported_at_once() {
    let faults = resolve(
        &flags(["--bcrypt-cost", "3"]),
        &[
            ("DATABASE_URL", "mysql://u:hunter2@h/d"),
            ("JWT_SECRET", "hunter2"),
            ("IDENTITY_MASTER_KEY", "hunter2"),
            ("IDENTITY_DATABASE_CONNECTIONS", "0"),
            ("IDENTITY_STATEMENT_TIMEOUT", "0s"),
            ("IDENTITY_MIGRATE", "never"),
            ("IDENTITY_LISTEN", "localhost"),
            ("IDENTITY_REFLECTION", "yes"),
            ("IDENTITY_DRAIN_DELAY", "20"),
            ("IDENTITY_DRAIN_TIMEOUT", "2h"),
            ("IDENTITY_HASH_THREADS", "0"),
            ("IDENTITY_PASSWORD_MIN_LENGTH", "7"),
            ("IDENTITY_MASTER_KEY_PREVIOUS", "hunter2"),
            ("IDENTITY_TOKEN_ALGORITHM", "none"),
            ("IDENTITY_KEY_PROPAGATION", "0s"),
            ("IDENTITY_ISSUER", "a b"),
            ("IDENTITY_AUDIENCE", "a\nb"),
            ("IDENTITY_ACCESS_TTL", "59s"),
            ("IDENTITY_SESSION_IDLE", "1s"),
            ("IDENTITY_SESSION_MAX", "forever"),
            ("IDENTITY_AUDIT_RETENTION", "1d"),
            ("IDENTITY_LOG", "loud=very"),
            ("IDENTITY_LOG_FORMAT", "xml"),
            ("IDENTITY_LOG_LEVEL_FILE", "hunter2"),
        ],
    )
    .unwrap_err();
    let names: Vec<_> = faults.iter().map(|fault| fault.name.split(' ').next().unwrap()).collect();
    assert_eq!(names.len(), 25, "{names:?}");
    let shown = format!("{faults:?}");
    assert!(shown.contains("IDENTITY_BCRYPT_COST (--bcrypt-cost)"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_log_level_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("level");
    let file = ("IDENTITY_LOG_LEVEL_FILE", path.to_str().unwrap());
    assert!(refused(&[file]).1.contains("No such file"));
    std::fs::write(&path, " warn,identity::rpc=debug\n").unwrap();
    let log = settings(&[file]).log;
    assert_eq!(
        format!("{:?}", log.filter),
        format!("{:?}", "warn,identity::rpc=debug".parse::<LogFilter>().unwrap())
    );
    assert_eq!(log.filter_file, Some(path.clone()));
    assert!(refused(&[file, ("IDENTITY_LOG", "info")]).1.contains("together with IDENTITY_LOG"));
    for content in [&b"hunter2"[..], b"", b"\xff", &[b'x'; 8192]] {
        std::fs::write(&path, content).unwrap();
        let (_, problem) = refused(&[file]);
        assert!(
            problem.contains("must name a file with error, warn") && !problem.contains("hunter2"),
            "{problem}"
        );
    }
}

#[test]
fn limits_are_included() {
    let at = |name, value| resolve(&Flags::default(), &[(name, value)]).is_ok();
    for (name, inside, outside) in [
        ("IDENTITY_BCRYPT_COST", ["4", "16"], ["3", "17"]),
        ("IDENTITY_PASSWORD_MIN_LENGTH", ["8", "64"], ["7", "65"]),
        ("IDENTITY_ACCESS_TTL", ["1m", "24h"], ["59s", "24h 1s"]),
        ("IDENTITY_STATEMENT_TIMEOUT", ["100ms", "1m"], ["99ms", "61s"]),
        ("IDENTITY_KEY_PROPAGATION", ["1s", "24h"], ["999ms", "24h 1s"]),
        ("IDENTITY_TOKEN_ALGORITHM", ["EdDSA", "RS256"], ["HS256", "eddsa"]),
        ("IDENTITY_DRAIN_TIMEOUT", ["0s", "1h"], ["-1s", "61m"]),
        ("IDENTITY_DATABASE_CONNECTIONS", ["4", "1000"], ["3", "1001"]),
        ("IDENTITY_MIGRATION_WAIT", ["1s", "24h"], ["999ms", "24h 1s"]),
        ("IDENTITY_QUEUE_TIMEOUT", ["100ms", "1m"], ["99ms", "61s"]),
        ("IDENTITY_CHANGE_BURST", ["1", "1000000"], ["0", "1000001"]),
        ("IDENTITY_CHANGE_RATE", ["1", "100000"], ["0", "100001"]),
        ("IDENTITY_CONNECTION_LIMIT", ["1", "1000000"], ["0", "1000001"]),
        ("IDENTITY_CONNECTION_SHARE", ["1", "100"], ["0", "101"]),
        ("IDENTITY_CONNECTION_IDLE", ["1s", "1d"], ["999ms", "25h"]),
        ("IDENTITY_CONNECTION_MAX_AGE", ["1s", "1d"], ["999ms", "25h"]),
        ("IDENTITY_WRITE_TIMEOUT", ["100ms", "1m"], ["99ms", "61s"]),
        ("IDENTITY_CALL_MEMORY", ["16", "16384"], ["15", "16385"]),
        ("IDENTITY_AUDIT_RETENTION", ["30d", "36500d"], ["29d", "36501d"]),
    ] {
        assert!(inside.iter().all(|value| at(name, value)), "{name}");
        assert!(!outside.iter().any(|value| at(name, value)), "{name}");
    }
}

#[test]
fn an_idle_time_beyond_the_maximum_is_refused_but_the_default_gives_way() {
    let (_, problem) = refused(&[("IDENTITY_SESSION_IDLE", "100d")]);
    assert!(problem.contains("IDENTITY_SESSION_MAX"), "{problem}");
    assert_eq!(settings(&[("IDENTITY_SESSION_MAX", "1d")]).session.idle, DAY);
}

#[test]
fn a_short_jwt_secret_is_refused_with_what_to_do() {
    let (_, problem) = refused(&[("JWT_SECRET", &SECRET[..31])]);
    assert!(problem.contains("openssl rand -base64 48"), "{problem}");
    assert_eq!(settings(&[("JWT_SECRET", SECRET)]).jwt_secret.unwrap().expose_secret(), SECRET);
}

#[test]
fn the_master_key_comes_from_one_place() {
    const POSTGRES: (&str, &str) = ("DATABASE_URL", "postgres://h/d");
    let inline = ("IDENTITY_MASTER_KEY", KEY);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let written = MasterKey::load_or_create(&path).unwrap();
    let file = ("IDENTITY_MASTER_KEY_FILE", path.to_str().unwrap());
    let jwt = ("JWT_SECRET", SECRET);
    let source = |variable| settings(&[POSTGRES, variable, jwt]).master_key.source;
    assert!(matches!(source(inline), MasterKeySource::Given(key) if *key.to_base64() == KEY));
    assert!(matches!(source(file), MasterKeySource::InFile { key, .. } if key.is(&written)));
    assert_eq!(source(file).file(), Some(path.as_path()));
    assert!(matches!(settings(&[POSTGRES, jwt]).master_key.source, MasterKeySource::FromJwtSecret));
    let beside = settings(&[jwt]).master_key.source;
    assert!(matches!(beside, MasterKeySource::BesideDatabase(_)));
    assert_eq!(beside.file(), Some(Path::new("identity.db.key")));
    assert!(refused(&[inline, file]).1.contains("together"));
    assert!(refused(&[POSTGRES]).1.contains("identity keys master"));
    for key in ["AAEC", &KEY[1..], &KEY[..42], "?"] {
        assert!(refused(&[("IDENTITY_MASTER_KEY", key)]).1.contains("identity keys master"), "{key}");
    }
}

#[test]
fn the_urls_pool_size_counts_unless_the_setting_says_otherwise() {
    const JWT: (&str, &str) = ("JWT_SECRET", SECRET);
    let url = ("DATABASE_URL", "postgres://h/d?connection_limit=5");
    assert_eq!(settings(&[JWT, url]).database.connections.get(), 5);
    let both = [JWT, url, ("IDENTITY_DATABASE_CONNECTIONS", "6")];
    assert_eq!(settings(&both).database.connections.get(), 6);
    // Each kind of work has a connection of its own.
    let few = ("DATABASE_URL", "postgres://h/d?connection_limit=3");
    assert_eq!(settings(&[JWT, few]).database.connections.get(), 4);
    assert!(warnings(&[JWT, few])[0].contains("connection_limit below 4"));
    assert!(refused(&[JWT, few, ("IDENTITY_DATABASE_CONNECTIONS", "3")]).1.contains("from 4 to 1000"));
}

#[test]
fn what_is_allowed_but_unwise_is_warned_about() {
    assert!(
        warnings(&[("IDENTITY_BCRYPT_COST", "9")])[0].starts_with("IDENTITY_BCRYPT_COST (--bcrypt-cost): ")
    );
    for address in ["0.0.0.0:50051", "[::]:50051"] {
        let allowed = [("IDENTITY_LISTEN", address), ("IDENTITY_PLAINTEXT", "allow")];
        assert!(warnings(&allowed)[0].contains("plaintext"));
        let (names, problem) = refused(&[("IDENTITY_LISTEN", address)]);
        assert_eq!(names, ["IDENTITY_LISTEN (--listen)"]);
        assert!(problem.contains("IDENTITY_TLS_CERT") && problem.contains("IDENTITY_PLAINTEXT=allow"));
    }
    assert_eq!(warnings(&[("IDENTITY_LISTEN", "[::1]:0")]), [""; 0]);
    assert!(
        warnings(&[("DATABASE_URL", "file:./dev.db?x=1")])[0].starts_with("DATABASE_URL (--database-url): ")
    );
}

#[test]
fn a_database_url_that_is_set_names_a_database() {
    for value in ["", " ", "sqlite:identity.db\n", " postgres://h/d", "postgres://h/d\r\n", "sqlite:a\tb"] {
        let (names, problem) = refused(&[("DATABASE_URL", value), ("JWT_SECRET", SECRET)]);
        assert_eq!(names, ["DATABASE_URL (--database-url)"], "{value:?}");
        assert!(problem.starts_with("must not "), "{problem}");
        // A flag wins, also by what is wrong with it.
        let flags = flags(["--database-url", value]);
        let faults = resolve(&flags, &[("DATABASE_URL", "sqlite:identity.db")]).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
}

#[test]
fn a_line_end_of_a_secret_and_an_empty_one_are_warned_of() {
    let (secret, key) = (format!("{SECRET}\n"), format!("{KEY}\n"));
    let variables = [
        ("JWT_SECRET", secret.as_str()),
        ("IDENTITY_MASTER_KEY", &key),
        ("IDENTITY_MASTER_KEY_PREVIOUS", &key),
    ];
    let Resolved { settings, warnings } = resolve(&Flags::default(), &variables).unwrap();
    let expected = [
        "JWT_SECRET: ends with a line end, which is a part of the secret",
        "IDENTITY_MASTER_KEY_PREVIOUS: ends with a line end, which is no part of the key",
        "IDENTITY_MASTER_KEY: ends with a line end, which is no part of the key",
    ];
    assert_eq!(warnings, expected);
    assert_eq!(settings.jwt_secret.unwrap().expose_secret(), secret);
    assert!(matches!(settings.master_key.source, MasterKeySource::Given(key) if *key.to_base64() == KEY));

    let empty = variables.map(|(name, _)| (name, ""));
    let Resolved { settings, warnings } = resolve(&Flags::default(), &empty).unwrap();
    assert!(settings.jwt_secret.is_none() && settings.master_key.previous.is_none());
    assert_eq!(warnings.len(), 3);
    for warning in warnings {
        assert!(warning.ends_with(": is set but empty, which counts as not set"), "{warning}");
    }
}

#[test]
fn variables_that_are_not_ours_are_ignored() {
    assert_eq!(
        warnings(&[("IDENTITY_PORT", "tcp://10.0.0.1:50051"), ("IDENTITY_SERVICE_HOST", "x")]),
        [""; 0]
    );
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    let environment: MapEnvironment =
        [("IDENTITY_ISSUER", OsString::from_vec(vec![0xff]))].into_iter().collect();
    let faults = Settings::resolve(&Flags::default(), &environment).unwrap_err();
    assert_eq!(faults[0].problem, "must be UTF-8");
}

#[test]
fn debug_shows_no_secret() {
    let flags = flags(["--database-url", "postgres://ada:hunter2@h/d"]);
    let resolved = resolve(&flags, &[("JWT_SECRET", SECRET), ("IDENTITY_MASTER_KEY", KEY)]).unwrap();
    let shown = format!("{flags:?} {resolved:?}");
    for secret in ["hunter2", SECRET, KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_previous_master_key_counts_beside_any_other() {
    let other = MasterKey::generate().to_base64();
    let previous = ("IDENTITY_MASTER_KEY_PREVIOUS", other.as_str());
    for variables in [&[previous][..], &[previous, ("IDENTITY_MASTER_KEY", KEY)]] {
        let settings = settings(variables).master_key;
        assert_eq!(settings.previous.unwrap().to_base64(), other);
    }
}

#[test]
fn commands_for_keys_ask_for_the_keys_too() {
    let environment: MapEnvironment =
        [("DATABASE_URL", "postgres://h/d"), ("IDENTITY_BCRYPT_COST", "x")].into_iter().collect();
    let faults = KeySettings::resolve(&Flags::default(), &environment).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].name == "IDENTITY_MASTER_KEY", "{faults:?}");
}

#[test]
fn maintenance_asks_for_the_database_only() {
    let environment: MapEnvironment =
        [("DATABASE_URL", "postgres://h/d"), ("IDENTITY_BCRYPT_COST", "x")].into_iter().collect();
    let resolved = MaintenanceSettings::resolve(&Flags::default(), &environment).unwrap();
    assert_eq!(resolved.settings.database.url.to_string(), "postgres://h:5432/d");
}

#[test]
fn registration_is_for_whom_the_setting_says_and_as_often() {
    for (text, mode) in IDENTITY_REGISTRATION.values.0.iter().copied() {
        let given = [("IDENTITY_REGISTRATION", text), ("IDENTITY_REGISTRATION_LIMIT", "1000")];
        let registration = settings(&given).registration;
        assert_eq!((registration.open_to, registration.hourly.map(usize::from)), (mode, Some(1000)));
    }
    let (names, problem) = refused(&[("IDENTITY_REGISTRATION", "off"), ("IDENTITY_REGISTRATION_LIMIT", "0")]);
    let expected =
        ["IDENTITY_REGISTRATION (--registration)", "IDENTITY_REGISTRATION_LIMIT (--registration-limit)"];
    assert_eq!(
        (&names[..], &*problem),
        (&expected.map(str::to_owned)[..], "must be a number from 1 to 1000")
    );
}
