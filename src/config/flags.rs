//! The flags that stand for environment variables.

use std::fmt;

/// Each setting that may stand on a command line, as it was written there.
///
/// A flag is named as its variable, in kebab case and without `IDENTITY_`. Secrets have none, as
/// every user of the machine can read a command line. `Debug` shows no value: the database's URL
/// may hold a password.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings (flag, else variable, else default)")]
pub struct Flags {
    /// The database: postgres://user:password@host/name, or sqlite:PATH. Keep a URL with a password
    /// in the variable [DATABASE_URL; default: sqlite:identity.db]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// Most connections to PostgreSQL, 1 to 1000
    /// [IDENTITY_DATABASE_CONNECTIONS; default: the URL's connection_limit, else 16]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub database_connections: Option<String>,

    /// How long PostgreSQL may take for one statement, 100ms to 1m; one that has not answered a fifth
    /// later counts as away [IDENTITY_STATEMENT_TIMEOUT; default: 1500ms]
    #[arg(long, global = true, value_name = "DURATION")]
    pub statement_timeout: Option<String>,

    /// How long a call may wait for a connection to the database, from 100ms to 1m
    /// [IDENTITY_QUEUE_TIMEOUT; default: 2s]
    #[arg(long, global = true, value_name = "TIME")]
    pub queue_timeout: Option<String>,

    /// How long a start or a command waits for another process that migrates PostgreSQL, 1s to 24h
    /// [IDENTITY_MIGRATION_WAIT; default: 1m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub migration_wait: Option<String>,

    /// What a start does about pending migrations: auto (run them) or check (refuse to start)
    /// [IDENTITY_MIGRATE; default: auto]
    #[arg(long, global = true, value_name = "MODE")]
    pub migrate: Option<String>,

    /// Address and port for gRPC; without TLS it has to be on loopback
    /// [IDENTITY_LISTEN; default: 127.0.0.1:50051]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,

    /// Address and port for metrics and probes over HTTP; port 0 takes a free one, off listens nowhere
    /// [IDENTITY_HTTP_LISTEN; default: 127.0.0.1:8081]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub http_listen: Option<String>,

    /// File with the server's certificate in PEM, and those up to its authority; read again when it
    /// changes [IDENTITY_TLS_CERT; default: none, which serves gRPC in plaintext]
    #[arg(long, global = true, value_name = "PATH")]
    pub tls_cert: Option<String>,

    /// File with the private key of that certificate, in PEM [IDENTITY_TLS_KEY; default: none]
    #[arg(long, global = true, value_name = "PATH")]
    pub tls_key: Option<String>,

    /// File with authorities in PEM: clients must show a certificate of one of them
    /// [IDENTITY_TLS_CLIENT_CA; default: none, which asks for no certificate]
    #[arg(long, global = true, value_name = "PATH")]
    pub tls_client_ca: Option<String>,

    /// Whether gRPC may be served without TLS beyond loopback: allow, where something in front of the
    /// service speaks TLS, or refuse [IDENTITY_PLAINTEXT; default: refuse]
    #[arg(long, global = true, value_name = "ALLOW|REFUSE")]
    pub plaintext: Option<String>,

    /// Address and port for gRPC's health service alone, in plaintext, for probes without a certificate;
    /// port 0 takes a free one [IDENTITY_HEALTH_LISTEN; default: off]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub health_listen: Option<String>,

    /// Whether clients may ask for the service's description: on or off
    /// [IDENTITY_REFLECTION; default: on]
    #[arg(long, global = true, value_name = "ON|OFF")]
    pub reflection: Option<String>,

    /// Most connections for gRPC, 1 to 1000000; fewer when the limit of open files leaves fewer
    /// [IDENTITY_CONNECTION_LIMIT; default: 10000]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub connection_limit: Option<String>,

    /// Percent of these that one address (IPv6: one /64 network) may have, 1 to 100; more where clients
    /// come through a proxy that hides their addresses [IDENTITY_CONNECTION_SHARE; default: 50]
    #[arg(long, global = true, value_name = "PERCENT")]
    pub connection_share: Option<String>,

    /// How long a connection stays open without a call, 1s to 1d; pings are no calls, a Watch is one
    /// [IDENTITY_CONNECTION_IDLE; default: 5m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub connection_idle: Option<String>,

    /// How old a connection may become, a tenth more or less, before its client is told to open another, 1s
    /// to 1d; calls in flight then have the time of IDENTITY_DRAIN_TIMEOUT to end
    /// [IDENTITY_CONNECTION_MAX_AGE; default: 30m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub connection_max_age: Option<String>,

    /// How long a client may read nothing of a reply before its stream is reset, 100ms to 1m
    /// [IDENTITY_WRITE_TIMEOUT; default: 5s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub write_timeout: Option<String>,

    /// MiB that the headers and unread replies of all calls may take, 16 to 16384; one connection may have a
    /// fourth of it [IDENTITY_CALL_MEMORY; default: 64]
    #[arg(long, global = true, value_name = "MIB")]
    pub call_memory: Option<String>,

    /// How long to keep serving after a signal to stop, until no more requests are sent here; up to 1h
    /// [IDENTITY_DRAIN_DELAY; default: 0s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub drain_delay: Option<String>,

    /// How long running requests may take to finish after that, up to 1h
    /// [IDENTITY_DRAIN_TIMEOUT; default: 20s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub drain_timeout: Option<String>,

    /// The bcrypt cost of new hashes, 4 to 16; each step doubles the work
    /// [IDENTITY_BCRYPT_COST; default: 12]
    #[arg(long, global = true, value_name = "COST")]
    pub bcrypt_cost: Option<String>,

    /// Threads that check passwords, 1 to 1024 [IDENTITY_HASH_THREADS; default: one for each core;
    /// under a quota of processor time one less, so that calls keep a core's worth]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub hash_threads: Option<String>,

    /// Passwords that each of these threads checks side by side, 1 to 8
    /// [IDENTITY_HASH_LANES; default: what is found best at start]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub hash_lanes: Option<String>,

    /// How long a call without a deadline waits at most for a password to be checked; what would take
    /// longer is refused at once; 100ms to 10m [IDENTITY_HASH_MAX_WAIT; default: 10s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub hash_max_wait: Option<String>,

    /// Fewest characters in a new password, 8 to 64 [IDENTITY_PASSWORD_MIN_LENGTH; default: 8]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub password_min_length: Option<String>,

    /// File with the master key, as `identity keys master` prints it
    /// [IDENTITY_MASTER_KEY_FILE; default: see below]
    #[arg(long, global = true, value_name = "PATH")]
    pub master_key_file: Option<String>,

    /// What the keys are for that sign access tokens when JWT_SECRET is not set: EdDSA or RS256. The next
    /// key is for that [IDENTITY_TOKEN_ALGORITHM; default: as the last key, the first is for EdDSA]
    #[arg(long, global = true, value_name = "ALGORITHM")]
    pub token_algorithm: Option<String>,

    /// How long a new signing key is published before it signs, 1s to 24h; the same for all processes
    /// [IDENTITY_KEY_PROPAGATION; default: 10m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub key_propagation: Option<String>,

    /// The `iss` of access tokens [IDENTITY_ISSUER; default: identity]
    #[arg(long, global = true, value_name = "NAME")]
    pub issuer: Option<String>,

    /// The `aud` of access tokens [IDENTITY_AUDIENCE; default: identity]
    #[arg(long, global = true, value_name = "NAME")]
    pub audience: Option<String>,

    /// How long an access token is valid, 1m to 24h [IDENTITY_ACCESS_TTL; default: 15m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub access_ttl: Option<String>,

    /// How long a session lasts without use, 1m to 3650d [IDENTITY_SESSION_IDLE; default: 14d]
    #[arg(long, global = true, value_name = "DURATION")]
    pub session_idle: Option<String>,

    /// How long a session lasts at most, 1m to 3650d [IDENTITY_SESSION_MAX; default: 90d]
    #[arg(long, global = true, value_name = "DURATION")]
    pub session_max: Option<String>,

    /// For how long after a refresh the token that was used still gets the same successor, up to 1h
    /// [IDENTITY_REFRESH_GRACE; default: 30s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub refresh_grace: Option<String>,

    /// Most sessions of a user, 1 to 10000; the oldest ends when one more is opened
    /// [IDENTITY_SESSION_LIMIT; default: 100]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub session_limit: Option<String>,

    /// Who may register: open (anybody), services (other services alone) or closed (nobody)
    /// [IDENTITY_REGISTRATION; default: open]
    #[arg(long, global = true, value_name = "WHO")]
    pub registration: Option<String>,

    /// Registrations from one address (IPv6: one /64 network) within an hour, 1 to 1000
    /// [IDENTITY_REGISTRATION_LIMIT; default: no limit]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub registration_limit: Option<String>,
    /// How many changes a user may make at once, after a pause; a tenant and a service ten times as many
    /// [IDENTITY_CHANGE_BURST; default: 1000]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub change_burst: Option<String>,
    /// How many changes a user may make a second, in the long run; a tenant and a service ten times as many
    /// [IDENTITY_CHANGE_RATE; default: 20]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub change_rate: Option<String>,

    /// How long audit events are kept, 30d to 36500d [IDENTITY_AUDIT_RETENTION; default: for ever]
    #[arg(long, global = true, value_name = "DURATION")]
    pub audit_retention: Option<String>,

    /// What to log: error, warn, info, debug or trace, also for one module, as in
    /// `info,identity::rpc=debug` [IDENTITY_LOG; default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,

    /// A file with the same, which SIGHUP makes the server read again
    /// [IDENTITY_LOG_LEVEL_FILE; default: none]
    #[arg(long, global = true, value_name = "FILE")]
    pub log_level_file: Option<String>,

    /// How log lines look: human, json, or auto (human on a terminal, else json)
    /// [IDENTITY_LOG_FORMAT; default: auto]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flags(…)")
    }
}
