//! Connecting to PostgreSQL in each TLS mode, against servers of its own: one with TLS, one without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use identity::storage::postgres::{ConnectError, connect};
use identity::storage::url::{DatabaseUrl, PostgresTarget};
use tempfile::TempDir;

#[path = "support/port.rs"]
mod port;

/// How often another free port is tried when somebody else was faster.
const START_ATTEMPTS: u32 = 5;

const PASSWORD: &str = "p/ss@w:rd?";
const ENCODED_PASSWORD: &str = "p%2Fss%40w%3Ard%3F";

const OPENSSL: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost
";

/// A PostgreSQL server with a certificate for `localhost`, its authority's in `ca.pem`, and that of
/// an authority that has nothing to do with it in `other.pem`.
struct Cluster {
    folder: TempDir,
    port: u16,
}

impl Cluster {
    fn start(ssl: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut cluster = Self { folder, port: 0 };
        cluster.make_certificates();
        fs::write(cluster.path("password"), PASSWORD).unwrap();
        if let Some(user) = server_user() {
            run(Command::new("chown").arg("-R").arg(user).arg(cluster.folder.path()));
        }
        let data = cluster.path("data");
        run(cluster.server_command("initdb").arg("-D").arg(&data).args([
            "--username=ada",
            "--auth=scram-sha-256",
            "--no-sync",
            &format!("--pwfile={}", cluster.path("password").display()),
        ]));
        for attempt in 1.. {
            cluster.port = port::free();
            match cluster.serve(ssl) {
                Ok(()) => break,
                // Somebody else may have taken the port.
                Err(why) => assert!(attempt < START_ATTEMPTS, "{why}"),
            }
        }
        cluster
    }

    fn serve(&self, ssl: &str) -> Result<(), String> {
        let options = format!(
            "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off \
             -c ssl={ssl} -c ssl_cert_file={folder}/server.pem -c ssl_key_file={folder}/server.key",
            port = self.port,
            folder = self.folder.path().display(),
        );
        try_run(
            self.server_command("pg_ctl")
                .args(["start", "-w", "-o", &options, "-D"])
                .arg(self.path("data"))
                .arg("-l")
                .arg(self.path("log")),
        )
    }

    fn make_certificates(&self) {
        fs::write(self.path("openssl.cnf"), OPENSSL).unwrap();
        for (name, extensions, authority) in
            [("ca", "authority", None), ("other", "authority", None), ("server", "server", Some("ca"))]
        {
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-config", "openssl.cnf", "-newkey", "ec", "-nodes", "-days", "2"])
                .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-extensions", extensions])
                .args(["-subj", &format!("/CN={name}")])
                .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
                .current_dir(self.folder.path());
            if let Some(authority) = authority {
                command.args(["-CA", &format!("{authority}.pem"), "-CAkey", &format!("{authority}.key")]);
            }
            run(&mut command);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of PostgreSQL's programs, as a user that the server accepts: it refuses to run as root.
    fn server_command(&self, program: &str) -> Command {
        let program = programs().join(program);
        let mut command = match server_user() {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.folder.path());
        command
    }

    /// The server's URL; `{folder}` in `rest`, which follows the host, stands for the server's.
    fn target(&self, host: &str, rest: &str) -> PostgresTarget {
        let rest = rest.replace("{folder}", &self.folder.path().display().to_string());
        target(&format!("postgres://ada:{ENCODED_PASSWORD}@{host}:{}/{rest}", self.port))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whatever goes wrong here must not hide why a test failed.
        _ = self
            .server_command("pg_ctl")
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(self.path("data"))
            .status();
    }
}

fn run(command: &mut Command) {
    try_run(command).unwrap();
}

/// Runs a command; what it said when it failed.
fn try_run(command: &mut Command) -> Result<(), String> {
    // A daemon that kept a pipe open would keep its reader waiting, so only files are its output.
    let log = tempfile::tempfile().unwrap();
    let mut read = log.try_clone().unwrap();
    let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    if status.success() {
        return Ok(());
    }
    use std::io::{Read as _, Seek as _};
    let mut output = String::new();
    read.rewind().and_then(|()| read.read_to_string(&mut output)).unwrap();
    Err(format!("{command:?}: {output}"))
}

/// Debian's folder of PostgreSQL's programs, the newest version's.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    Path::new("/usr/lib/postgresql").join(newest.unwrap().to_string()).join("bin")
}

/// Who runs the server when the tests run as root.
fn server_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("postgres")
}

fn target(url: &str) -> PostgresTarget {
    match DatabaseUrl::parse(url).unwrap().0 {
        DatabaseUrl::Postgres(target) => *target,
        other => panic!("{other}"),
    }
}

async fn is_encrypted(connection: &mut AsyncPgConnection) -> bool {
    let query = "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())";
    diesel::select(diesel::dsl::sql::<Bool>(query)).get_result(connection).await.unwrap()
}

async fn setting(connection: &mut AsyncPgConnection, name: &str) -> String {
    let query = format!("current_setting('{name}')");
    diesel::select(diesel::dsl::sql::<Text>(&query)).get_result(connection).await.unwrap()
}

/// Whether the connection is encrypted, or why there is none.
async fn attempt(target: &PostgresTarget) -> Result<bool, ConnectError> {
    match connect(target).await {
        Ok(mut connection) => Ok(is_encrypted(&mut connection).await),
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("w:rd"), "{shown}");
            Err(error)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_is_checked_as_the_mode_says() {
    let cluster = Cluster::start("on");
    let stranger = "hostaddr=127.0.0.1&sslmode";
    for (host, query, encrypted) in [
        ("localhost", "sslmode=disable".to_owned(), false),
        ("localhost", String::new(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", "ssl=true".to_owned(), true),
        ("127.0.0.1", "sslmode=require&ssl_min_protocol_version=TLSv1.3".to_owned(), true),
        ("localhost", "sslmode=require&sslrootcert={folder}/ca.pem".to_owned(), true),
        ("db.example", format!("{stranger}=verify-ca&sslrootcert={{folder}}/ca.pem"), true),
        ("localhost", "sslmode=verify-full&sslrootcert={folder}/ca.pem".to_owned(), true),
        ("localhost", "sslaccept=strict&sslcert={folder}/ca.pem".to_owned(), true),
        ("localhost", "sslmode=verify-full&host={folder}".to_owned(), false),
    ] {
        let target = cluster.target(host, &format!("postgres?{query}"));
        assert_eq!(attempt(&target).await.unwrap(), encrypted, "{host} {query}");
    }
    for (host, query) in [
        ("db.example", format!("{stranger}=verify-full&sslrootcert={{folder}}/ca.pem")),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={folder}/ca.pem".to_owned()),
        ("localhost", "sslmode=verify-full&sslrootcert={folder}/other.pem".to_owned()),
        ("localhost", "sslmode=verify-ca&sslrootcert={folder}/other.pem".to_owned()),
        ("localhost", "sslmode=require&sslrootcert={folder}/other.pem".to_owned()),
    ] {
        let error = attempt(&cluster.target(host, &format!("postgres?{query}"))).await.unwrap_err();
        assert!(
            matches!(&error, ConnectError::Tls(cause) if cause.contains("certificate")),
            "{query}: {error}"
        );
    }
    for file in ["absent.pem", "openssl.cnf"] {
        let query = format!("postgres?sslmode=verify-ca&sslrootcert={{folder}}/{file}");
        let error = attempt(&cluster.target("localhost", &query)).await.unwrap_err();
        assert!(matches!(error, ConnectError::RootCertificates(_)), "{file}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_used_only_when_the_mode_allows() {
    let cluster = Cluster::start("off");
    assert!(!attempt(&cluster.target("localhost", "postgres")).await.unwrap());
    for query in ["sslmode=require", "sslMode=require", "ssl=true", "requiressl=1", "ssl=true&sslmode=prefer"]
    {
        let error = attempt(&cluster.target("localhost", &format!("postgres?{query}"))).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls(_)), "{query}: {error}");
    }

    let mut connection = connect(&cluster.target("localhost", "postgres?schema=My-App")).await.unwrap();
    assert_eq!(setting(&mut connection, "search_path").await, "\"My-App\"");
    assert_eq!(setting(&mut connection, "application_name").await, "identity");

    let error = attempt(&cluster.target("localhost", "absent")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoSuchDatabase), "{error}");
    let error = attempt(&cluster.target("localhost", "postgres?password=wrong")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Authentication), "{error}");
    let error = attempt(&cluster.target("localhost", "postgres?target_session_attrs=read-only")).await;
    assert!(matches!(error, Err(ConnectError::SessionAttributes)), "{error:?}");
    let error = attempt(&target(&format!("postgres://ada@localhost:{}/postgres", cluster.port))).await;
    assert!(matches!(error, Err(ConnectError::Authentication)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_only_an_older_tls_than_the_url_allows_is_not_used() {
    let cluster = Cluster::start("on -c ssl_max_protocol_version=TLSv1.2");
    let target = |version| {
        cluster.target("localhost", &format!("postgres?ssl=true&ssl_min_protocol_version={version}"))
    };
    assert!(attempt(&target("TLSv1.2")).await.unwrap());
    let error = attempt(&target("TLSv1.3")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_from_one_that_is_silent() {
    let listener = port::bind();
    let port = listener.local_addr().unwrap().port();
    let silent = target(&format!("postgres://ada@127.0.0.1:{port}/d?connect_timeout=1"));
    let error = attempt(&silent).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout), "{error}");
    drop(listener);
    let error = attempt(&silent).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused), "{error}");
    let error = attempt(&target("postgres://ada@/d?host=/nowhere")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}
