//! The command line, as a shell sees it: output and exit codes of the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Runs `identity` in an empty folder with `variables` as its whole environment.
fn identity(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_identity"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn help_explains_flags_and_secrets() {
    let (code, out, err) = identity(&["--help"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    // Wherever a line ends.
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in
        ["--listen <ADDRESS>", "IDENTITY_LISTEN; default: 127.0.0.1:50051", "JWT_SECRET", "keys master"]
    {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert_eq!(identity(&["migrate", "run", "--help"], &[]).0, Some(0));
}

/// The rows of a table in Markdown, a text for each column.
fn rows(document: &str) -> impl Iterator<Item = Vec<String>> {
    let cells = |row: &str| {
        let row = row.replace("\\|", "\0");
        row.split(" | ").map(|cell| cell.trim().replace('\0', "|")).collect()
    };
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(cells)
}

#[test]
fn the_documents_name_every_setting_as_help_does() {
    let document = include_str!("../docs/configuration.md");
    let help = identity(&["--help"], &[]).1;
    let (_, help) = help.split_once("Settings (flag, else variable, else default):").unwrap();
    let (settings, rest) = help.split_once("Secrets have no flag").unwrap();
    let (_, secrets) = rest.split_once(':').unwrap();
    let (secrets, _) = secrets.split_once("Durations are written").unwrap();
    let plain = |name: &str| name.trim_matches('`').to_owned();

    let (mut flags, mut others) = (String::new(), String::new());
    for row in rows(document) {
        match &row[..] {
            [variable, flag, default, meaning] if variable != "variable" => {
                flags += &format!("{} {meaning} [{}; default: {default}]\n", plain(flag), plain(variable));
            }
            [variable, meaning] if variable != "variable" => {
                others += &format!("{} {meaning}\n", plain(variable));
            }
            _ => {}
        }
    }
    // Wherever help ends a line.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let entries = |text: &str| words(text).replace(" --", "\n--");
    assert_eq!(entries(&flags), entries(settings));
    assert_eq!(words(&others), words(secrets));
    assert!(!others.is_empty());
}

#[test]
fn version_names_the_program() {
    let (code, out, _) = identity(&["--version"], &[]);
    assert_eq!((code, out), (Some(0), format!("identity {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_exits_with_usage() {
    for arguments in
        [&["--jwt-secret=hunter2"][..], &["nonsense"], &["migrate"], &["migrate", "revert", "--steps", "0"]]
    {
        let (code, out, err) = identity(arguments, &[]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(!err.is_empty() && !err.contains("hunter2"), "{err}");
    }
}

#[test]
fn every_fault_of_the_configuration_is_listed() {
    let variables = [("JWT_SECRET", "hunter2"), ("DATABASE_URL", "postgres://ada:hunter2@h:x/d")];
    for arguments in
        [&["--bcrypt-cost", "3"][..], &["--bcrypt-cost=3", "serve"], &["serve", "--bcrypt-cost", "3"]]
    {
        let (code, out, err) = identity(arguments, &variables);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        let lines: Vec<_> = err.lines().collect();
        assert_eq!(lines.len(), 4, "{err}");
        assert_eq!(lines[0], "identity: the configuration has 3 faults");
        assert!(lines[1].starts_with("  JWT_SECRET: must have at least 32 bytes"), "{err}");
        assert!(lines[2].starts_with("  DATABASE_URL (--database-url): must "), "{err}");
        assert_eq!(lines[3], "  IDENTITY_BCRYPT_COST (--bcrypt-cost): must be a number from 4 to 16");
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn a_database_url_that_cannot_be_meant_starts_nothing() {
    for url in [
        "",
        "sqlite:identity.db\r",
        "postgres://ada:hunter2@127.0.0.1:1/identity\n",
        "postgres://ada:hunter2@127.0.0.1:1/identity?gssencmode=require",
        "postgres://ada:hunter2@127.0.0.1:1/identity?require_auth=scram-sha-256",
        "postgres://ada:hunter2@127.0.0.1:1/identity?sslcrl=crl.pem",
        "postgres://ada:hunter2@127.0.0.1:1/identity?ssl_min_protocol_version=TLSv1.3",
        "postgres://ada:hunter2@127.0.0.1:1/identity?ssl=true&sslmode=disable",
    ] {
        for arguments in [&["serve"][..], &["migrate", "run"]] {
            let variables = [("DATABASE_URL", url), ("JWT_SECRET", "correct horse battery staple, twice")];
            let (code, out, err) = identity(arguments, &variables);
            assert_eq!((code, out.as_str()), (Some(64), ""), "{url:?}: {err}");
            assert!(err.contains("  DATABASE_URL (--database-url): "), "{url:?}: {err}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }
}

#[test]
fn files_that_the_configuration_names_are_faults_of_it_when_they_are_of_no_use() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let absent = folder.path().join("absent").to_str().unwrap().to_owned();
    let key = identity(&["keys", "master"], &[]).1;
    let exposed = file("exposed", &key, 0o604);
    let no_key = file("no-key", "hunter2", 0o600);
    for (key_file, problem) in [
        (&absent, "No such file"),
        (&exposed, "chmod 600"),
        (&no_key, "32 bytes in base64; `identity keys master` makes one"),
        // The key itself where its file belongs.
        (&key.trim().to_owned(), "must name a file"),
    ] {
        for (certificates, cause) in [(&absent, "No such file"), (&no_key, "holds no certificate")] {
            let url = format!("postgres://ada:hunter2@h/d?sslmode=verify-ca&sslrootcert={certificates}");
            let variables = [
                ("DATABASE_URL", url.as_str()),
                ("IDENTITY_MASTER_KEY_FILE", key_file),
                ("IDENTITY_BCRYPT_COST", "3"),
            ];
            let (code, out, err) = identity(&["serve"], &variables);
            assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
            let lines: Vec<_> = err.lines().collect();
            assert_eq!((lines.len(), lines[0]), (4, "identity: the configuration has 3 faults"), "{err}");
            let named = |line: &str, name: &str, text: &str| line.starts_with(name) && line.contains(text);
            assert!(named(lines[1], "  DATABASE_URL (--database-url): ", cause), "{err}");
            assert!(named(lines[1], "  DATABASE_URL", "sslrootcert"), "{err}");
            assert!(named(lines[2], "  IDENTITY_MASTER_KEY_FILE (--master-key-file): ", problem), "{err}");
            assert!(!err.contains("hunter2") && !err.contains(key.trim()), "{err}");

            let (code, _, err) = identity(&["migrate", "status"], &variables[..1]);
            assert!(code == Some(64) && err.contains("DATABASE_URL (--database-url): "), "{err}");
        }
    }
}

#[test]
fn tls_files_that_are_of_no_use_are_faults_that_name_their_setting() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let certificate = file("cert", &one.cert.pem());
    let key = file("key", &one.signing_key.serialize_pem());
    let other_key = file("other", &other.signing_key.serialize_pem());
    let rubbish = file("rubbish", "hunter2");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n");
    let no_x509 = file("no-x509", "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n");
    let empty = file("empty", "");
    let absent = folder.path().join("hunter2").to_str().unwrap().to_owned();
    const CERT: &str = "IDENTITY_TLS_CERT (--tls-cert): ";
    const KEY: &str = "IDENTITY_TLS_KEY (--tls-key): ";
    const CLIENTS: &str = "IDENTITY_TLS_CLIENT_CA (--tls-client-ca): ";
    for (cert, key, clients, name, problem) in [
        (certificate.as_str(), "", "", CERT, "together with IDENTITY_TLS_KEY"),
        ("", key.as_str(), "", KEY, "together with IDENTITY_TLS_CERT"),
        ("", "", certificate.as_str(), CLIENTS, "together with IDENTITY_TLS_CERT"),
        (&absent, &key, "", CERT, "No such file"),
        (&rubbish, &key, "", CERT, "with a certificate in PEM"),
        (&empty, &key, "", CERT, "with a certificate in PEM"),
        (&broken, &key, "", CERT, "whole PEM"),
        (&no_x509, &key, "", CERT, "X.509"),
        (&certificate, &absent, "", KEY, "No such file"),
        (&certificate, &rubbish, "", KEY, "with a private key in PEM"),
        (&certificate, &certificate, "", KEY, "with a private key in PEM"),
        (&certificate, &other_key, "", KEY, "the private key of the certificate"),
        (&certificate, &key, &absent, CLIENTS, "No such file"),
        (&certificate, &key, &empty, CLIENTS, "with a certificate in PEM"),
        (&certificate, &key, &no_x509, CLIENTS, "X.509"),
    ] {
        let variables =
            [("IDENTITY_TLS_CERT", cert), ("IDENTITY_TLS_KEY", key), ("IDENTITY_TLS_CLIENT_CA", clients)];
        let (code, out, err) = identity(&["serve"], &variables);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
        let lines: Vec<_> = err.lines().collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[1].trim_start().starts_with(name) && lines[1].contains(problem), "{err}");
        assert!(!err.contains("hunter2") && !err.contains("aHVudGVyMg"), "{err}");
    }
}

#[test]
fn plaintext_beyond_loopback_is_refused_with_both_ways_out() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:50051"] {
        for plaintext in ["", "refuse"] {
            let variables = [("IDENTITY_LISTEN", address), ("IDENTITY_PLAINTEXT", plaintext)];
            let (code, out, err) = identity(&[], &variables);
            assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
            for text in ["IDENTITY_LISTEN (--listen): ", "IDENTITY_TLS_CERT", "IDENTITY_PLAINTEXT=allow"] {
                assert!(err.contains(text), "{text}: {err}");
            }
        }
    }
    let (code, _, err) = identity(&["--plaintext", "perhaps"], &[]);
    assert_eq!(code, Some(64));
    assert!(err.contains("IDENTITY_PLAINTEXT (--plaintext): must be refuse or allow"), "{err}");
}

#[test]
fn postgresql_without_a_master_key_names_the_command_that_makes_one() {
    let (code, _, err) = identity(&["serve"], &[("DATABASE_URL", "postgres://h/d")]);
    assert_eq!(code, Some(64));
    assert!(err.contains("`identity keys master`"), "{err}");
}

#[test]
fn a_master_key_is_32_fresh_bytes_whatever_the_configuration() {
    let keys = [(); 2].map(|()| {
        let (code, out, err) = identity(&["keys", "master"], &[("JWT_SECRET", "short")]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let key = STANDARD.decode(out.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(key.len(), 32);
        key
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn calibrate_prints_a_figure_for_each_cost_and_number_of_lanes_and_recommends_a_cost() {
    let (code, out, err) = identity(&["calibrate", "--time", "20ms", "--json"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 13 * 8);
    for figure in figures {
        let [lanes, ms, rate] =
            ["lanes", "ms", "hashes_per_second"].map(|name| figure[name].as_f64().unwrap());
        assert!(ms > 0.0 && (rate * ms / 1e3 - lanes).abs() < 1e-6, "{figure}");
    }
    let (cost, best) = (&report["recommended_cost"], &report["best_lanes"]);
    let recommended =
        figures.iter().find(|figure| figure["cost"] == *cost && figure["lanes"] == *best).unwrap();
    assert_eq!(report["target_ms"], 250.0);
    assert_eq!(recommended["ms"].as_f64().unwrap() <= 250.0, report["meets_target"].as_bool().unwrap());

    let (code, out, _) = identity(&["calibrate", "--time=20ms", "--target=1m"], &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("IDENTITY_BCRYPT_COST=16 is the highest cost within 1m"), "{out}");
}

#[test]
fn calibrate_measures_what_is_configured_and_refuses_what_makes_no_sense() {
    let variables = [("IDENTITY_HASH_THREADS", "3"), ("IDENTITY_HASH_LANES", "2")];
    let (_, out, _) = identity(&["calibrate", "--time=1ms"], &variables);
    assert!(out.contains("3 threads at once. The service uses 2 lanes"), "{out}");
    for (arguments, variables) in [
        (&["calibrate", "--target=0s"][..], &[][..]),
        (&["calibrate", "--time=2h"], &[]),
        (&["calibrate", "--time=fast"], &[]),
        (&["calibrate"], &[("IDENTITY_HASH_LANES", "9")]),
    ] {
        let (code, out, err) = identity(arguments, variables);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
    }
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("identity.db").display());
    assert_eq!(identity(&["migrate", "run"], &[("DATABASE_URL", &url)]).0, Some(0));
    let unread = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_identity"));
        command.args(arguments).env_clear().env("DATABASE_URL", &url).current_dir(folder.path());
        command.stdin(std::process::Stdio::null());
        command
    };
    for arguments in [
        &["--help"][..],
        &["keys", "master"],
        &["keys", "list"],
        &["migrate", "status"],
        &["tenant", "create", "--name", "Analytical Engines"],
        &["tenant", "list"],
        &["audit", "list"],
        &["audit", "prune", "--older-than", "90d", "--yes"],
        &["service-token", "create", "--name", "billing", "--allow", "all"],
        &["service-token", "list", "--json"],
        &["export"],
        &["export", "-"],
        &["calibrate", "--time", "1ms"],
    ] {
        let Output { status, stderr, .. } = command(arguments).stdout(unread()).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        // What is said of a token that was made is no complaint.
        let is_quiet = said.is_empty() || said.starts_with("service token ");
        assert!(status.code() == Some(0) && is_quiet, "{arguments:?}: {status} {said}");
    }
    // Where nobody reads standard error either, the exit code still says what became of it.
    for (arguments, code) in [
        (&["tenant", "list"][..], 0),
        (&["import", "jsonl", "absent"], 1),
        (&["export", "identity.db"], 64),
        (&["tenant", "list", "--bcrypt-cost=3", "--database-url=nonsense"], 64),
    ] {
        let mut command = command(arguments);
        let status = command.stdout(unread()).stderr(unread()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_service_token_is_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("identity.db").display());
    let run = |arguments: &[&str]| identity(arguments, &[("DATABASE_URL", &url)]);

    let create = ["service-token", "create", "--name", "billing", "--allow", "GetUser"];
    let (code, out, err) = run(&create);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("identity migrate run"), "{err}");
    assert_eq!(run(&["migrate", "run"]).0, Some(0));

    let (code, token, err) = run(&[&create[..], &["--allow", "VerifyToken", "--expires", "30d"]].concat());
    assert_eq!((code, token.lines().count()), (Some(0), 1), "{err}");
    assert!(token.starts_with("identity-service-") && !err.contains(token.trim()), "{err}");
    // JSON, since standard output is no terminal.
    let (_, listed, _) = run(&["service-token", "list"]);
    assert!(!listed.contains(token.trim()));
    assert_eq!(run(&["service-token", "list", "--json"]).1, listed);
    let json: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["state"]), (&"billing".into(), &"active".into()));
    let methods = ["GetUser", "VerifyToken"].map(|method| format!("identity.v1.IdentityService/{method}"));
    assert_eq!(json[0]["allowed"], serde_json::json!(methods));
    let id = json[0]["id"].as_str().unwrap();

    assert_eq!(run(&["service-token", "revoke", id]).0, Some(0));
    assert!(run(&["service-token", "list"]).1.contains(r#""state":"revoked""#));
    for again in [id, "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e"] {
        let (code, out, err) = run(&["service-token", "revoke", again]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    }
    assert_eq!(run(&["service-token", "revoke", "1"]).0, Some(64));
    for (arguments, problem) in [
        (["--name", "billing", "--allow", "getuser"], "there is no such method"),
        (["--name", "billing", "--allow", "identity.v1.IdentityService/NoSuch"], "there is no such method"),
        (["--name", "bil ling", "--allow", "all"], "for '--name <NAME>': must be"),
    ] {
        let (code, _, err) = run(&[&["service-token", "create"][..], &arguments].concat());
        assert!(code == Some(64) && err.contains(problem), "{code:?} {err}");
    }
    for arguments in [&["--name", "billing"][..], &["--name", "x", "--allow", "all", "--expires", "1s"]] {
        assert_eq!(run(&[&["service-token", "create"][..], arguments].concat()).0, Some(64));
    }
}
