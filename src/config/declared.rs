//! Every setting, declared once. `--help`, the reading, its faults and docs/configuration.md follow from here.

use super::setting::Fallback::{Described, DescribedOr, Value};
use super::setting::{
    Addresses, AddressesOrOff, Choices, CountsUpTo, DatabaseUrls, Declared, Durations, Files, LogFilters,
    Names, Numbers, Secrets, Setting,
};
use super::settings::{MigrateMode, Plaintext};
use crate::crypto::KeyAlgorithm;
use crate::crypto::hasher::{Cost, HashEngine};
use crate::service::OpenTo;
use crate::storage::LaneSizes;
use crate::telemetry::logs::LogFormat;

/// Makes of each `VARIABLE = Values(…) { … }` a [`Setting`] of that name, and of all of them [`ALL`].
macro_rules! settings {
    ($(
        $(#[$comment:meta])*
        $variable:ident = $values:ident $(::<$value:ty>)? ($($limit:expr),*) { $($field:ident: $content:expr),* $(,)? }
    )*) => {
        $(
            $(#[$comment])*
            pub(super) static $variable: Setting<$values $(<$value>)?> = Setting {
                variable: stringify!($variable),
                values: $values($($limit),*),
                $($field: $content),*
            };
        )*

        /// Every setting, in the order of `--help`.
        pub(super) static ALL: &[&(dyn Declared + Sync)] = &[$(&$variable),*];
    };
}

settings! {
    DATABASE_URL = DatabaseUrls() {
        flag: Some("--database-url <URL>"),
        default: Value("sqlite:identity.db"),
        help: "The database: postgres://user:password@host/name, or sqlite:PATH. Keep a URL with a password in \
               the variable",
    }
    /// From one for each lane to what few servers have.
    IDENTITY_DATABASE_CONNECTIONS = Numbers(LaneSizes::MIN_TOTAL, 1000) {
        flag: Some("--database-connections <NUMBER>"),
        default: DescribedOr("the URL's connection_limit", "16"),
        help: "Most connections to PostgreSQL, {values}",
    }
    /// From what a busy database may take to longer than anybody waits. The default is somewhat less than the
    /// two seconds after which a caller hears that the database is away.
    IDENTITY_STATEMENT_TIMEOUT = Durations("100ms", "1m") {
        flag: Some("--statement-timeout <DURATION>"),
        default: Value("1500ms"),
        help: "How long PostgreSQL may take for one statement, {values}; one that has not answered a fifth \
               later counts as away",
    }
    /// A call that waits longer is refused, and can try again: who comes then is served no later.
    IDENTITY_QUEUE_TIMEOUT = Durations("100ms", "1m") {
        flag: Some("--queue-timeout <TIME>"),
        default: Value("2s"),
        help: "How long a call may wait for a connection to the database, from {values}",
    }
    /// From what a small migration takes to one that rewrites a large table.
    IDENTITY_MIGRATION_WAIT = Durations("1s", "24h") {
        flag: Some("--migration-wait <DURATION>"),
        default: Value("1m"),
        help: "How long a start or a command waits for another process that migrates PostgreSQL, {values}",
    }
    IDENTITY_MIGRATE = Choices::<MigrateMode>(&[("auto", MigrateMode::Auto), ("check", MigrateMode::Check)]) {
        flag: Some("--migrate <MODE>"),
        default: Value("auto"),
        help: "What a start does about pending migrations: auto (run them) or check (refuse to start)",
    }
    IDENTITY_LISTEN = Addresses("127.0.0.1:50051") {
        flag: Some("--listen <ADDRESS>"),
        default: Value("127.0.0.1:50051"),
        help: "Address and port for gRPC; without TLS it has to be on loopback",
    }
    IDENTITY_HTTP_LISTEN = AddressesOrOff("127.0.0.1:8081") {
        flag: Some("--http-listen <ADDRESS>"),
        default: Value("127.0.0.1:8081"),
        help: "Address and port for metrics and probes over HTTP; port 0 takes a free one, off listens nowhere",
    }
    IDENTITY_TLS_CERT = Files() {
        flag: Some("--tls-cert <PATH>"),
        default: Described("none, which serves gRPC in plaintext"),
        help: "File with the server's certificate in PEM, and those up to its authority; read again when it changes",
    }
    IDENTITY_TLS_KEY = Files() {
        flag: Some("--tls-key <PATH>"),
        default: Described("none"),
        help: "File with the private key of that certificate, in PEM",
    }
    IDENTITY_TLS_CLIENT_CA = Files() {
        flag: Some("--tls-client-ca <PATH>"),
        default: Described("none, which asks for no certificate"),
        help: "File with authorities in PEM: clients must show a certificate of one of them",
    }
    IDENTITY_PLAINTEXT = Choices::<Plaintext>(&[("refuse", Plaintext::Refuse), ("allow", Plaintext::Allow)]) {
        flag: Some("--plaintext <ALLOW|REFUSE>"),
        default: Value("refuse"),
        help: "Whether gRPC may be served without TLS beyond loopback: allow, where something in front of the \
               service speaks TLS, or refuse",
    }
    IDENTITY_HEALTH_LISTEN = AddressesOrOff("0.0.0.0:50052") {
        flag: Some("--health-listen <ADDRESS>"),
        default: Value("off"),
        help: "Address and port for gRPC's health service alone, in plaintext, for probes without a certificate; \
               port 0 takes a free one",
    }
    IDENTITY_REFLECTION = Choices::<bool>(&[("on", true), ("off", false)]) {
        flag: Some("--reflection <ON|OFF>"),
        default: Value("on"),
        help: "Whether clients may ask for the service's description: on or off",
    }
    /// The default is far below the usual limit of open files once raised, far above any mesh of services.
    IDENTITY_CONNECTION_LIMIT = CountsUpTo(1_000_000) {
        flag: Some("--connection-limit <NUMBER>"),
        default: Value("10000"),
        help: "Most connections for gRPC, {values}; fewer when the limit of open files leaves fewer",
    }
    /// By default, one source never takes the places of all others.
    IDENTITY_CONNECTION_SHARE = Numbers(1, 100) {
        flag: Some("--connection-share <PERCENT>"),
        default: Value("50"),
        help: "Percent of these that one address (IPv6: one /64 network) may have, {values}; more where clients \
               come through a proxy that hides their addresses",
    }
    /// From a test to a day, which no load balancer waits for.
    IDENTITY_CONNECTION_IDLE = Durations("1s", "1d") {
        flag: Some("--connection-idle <DURATION>"),
        default: Value("5m"),
        help: "How long a connection stays open without a call, {values}; pings are no calls, a Watch is one",
    }
    IDENTITY_CONNECTION_MAX_AGE = Durations("1s", "1d") {
        flag: Some("--connection-max-age <DURATION>"),
        default: Value("30m"),
        help: "How old a connection may become, a tenth more or less, before its client is told to open another, \
               {values}; calls in flight then have the time of IDENTITY_DRAIN_TIMEOUT to end",
    }
    /// The default is longer than a client that lives pauses, far shorter than draining may take; the most is
    /// longer than any client waits.
    IDENTITY_WRITE_TIMEOUT = Durations("100ms", "1m") {
        flag: Some("--write-timeout <DURATION>"),
        default: Value("5s"),
        help: "How long a client may read nothing of a reply before its stream is reset, {values}",
    }
    /// A fourth of the least, which one connection may have, has room for the largest reply.
    IDENTITY_CALL_MEMORY = Numbers(16, 16_384) {
        flag: Some("--call-memory <MIB>"),
        default: Value("64"),
        help: "MiB that the headers and unread replies of all calls may take, {values}; one connection may have \
               a fourth of it",
    }
    /// An hour is longer than any orchestrator waits for a process to stop.
    IDENTITY_DRAIN_DELAY = Durations("0s", "1h") {
        flag: Some("--drain-delay <DURATION>"),
        default: Value("0s"),
        help: "How long to keep serving after a signal to stop, until no more requests are sent here; {values}",
    }
    IDENTITY_DRAIN_TIMEOUT = Durations("0s", "1h") {
        flag: Some("--drain-timeout <DURATION>"),
        default: Value("20s"),
        help: "How long running requests may take to finish after that, {values}",
    }
    IDENTITY_BCRYPT_COST = Numbers(Cost::MIN.get(), Cost::MAX.get()) {
        flag: Some("--bcrypt-cost <COST>"),
        default: Value("12"),
        help: "The bcrypt cost of new hashes, {values}; each step doubles the work",
    }
    IDENTITY_HASH_THREADS = CountsUpTo(1024) {
        flag: Some("--hash-threads <NUMBER>"),
        default: Described("one for each core; under a quota of processor time one less, so that calls keep a \
                            core's worth"),
        help: "Threads that check passwords, {values}",
    }
    IDENTITY_HASH_LANES = CountsUpTo(8) {
        flag: Some("--hash-lanes <NUMBER>"),
        default: Described("what is found best at start"),
        help: "Passwords that each of these threads checks side by side, {values}",
    }
    /// From a fast hash to longer than any client waits. The default is as long as a person looks at a form that
    /// does nothing.
    IDENTITY_HASH_MAX_WAIT = Durations("100ms", "10m") {
        flag: Some("--hash-max-wait <DURATION>"),
        default: Value("10s"),
        help: "How long a call without a deadline waits at most for a password to be checked; what would take \
               longer is refused at once; {values}",
    }
    /// For comparisons only, so no help names it.
    IDENTITY_HASH_ENGINE = Choices::<HashEngine>(&[("lanes", HashEngine::Lanes), ("bcrypt", HashEngine::BcryptCrate)]) {
        flag: None,
        default: Value("lanes"),
        help: "",
    }
    IDENTITY_PASSWORD_MIN_LENGTH = Numbers(8, 64) {
        flag: Some("--password-min-length <NUMBER>"),
        default: Value("8"),
        help: "Fewest characters in a new password, {values}",
    }
    IDENTITY_MASTER_KEY_FILE = Files() {
        flag: Some("--master-key-file <PATH>"),
        default: Described("see below"),
        help: "File with the master key, as `identity keys master` prints it",
    }
    IDENTITY_TOKEN_ALGORITHM = Choices::<KeyAlgorithm>(&[
        (KeyAlgorithm::EdDsa.as_str(), KeyAlgorithm::EdDsa),
        (KeyAlgorithm::Rs256.as_str(), KeyAlgorithm::Rs256),
    ]) {
        flag: Some("--token-algorithm <ALGORITHM>"),
        default: Described("as the last key, the first is for EdDSA"),
        help: "What the keys are for that sign access tokens when JWT_SECRET is not set: EdDSA or RS256. The next \
               key is for that",
    }
    /// A second is for tests; within a day, every verifier has looked at the published keys again.
    IDENTITY_KEY_PROPAGATION = Durations("1s", "24h") {
        flag: Some("--key-propagation <DURATION>"),
        default: Value("10m"),
        help: "How long a new signing key is published before it signs, {values}; the same for all processes",
    }
    IDENTITY_ISSUER = Names() {
        flag: Some("--issuer <NAME>"),
        default: Value("identity"),
        help: "The `iss` of access tokens",
    }
    IDENTITY_AUDIENCE = Names() {
        flag: Some("--audience <NAME>"),
        default: Value("identity"),
        help: "The `aud` of access tokens",
    }
    IDENTITY_ACCESS_TTL = Durations("1m", "24h") {
        flag: Some("--access-ttl <DURATION>"),
        default: Value("15m"),
        help: "How long an access token is valid, {values}",
    }
    /// Ten years: no one waits longer for an error in writing to show.
    IDENTITY_SESSION_IDLE = Durations("1m", "3650d") {
        flag: Some("--session-idle <DURATION>"),
        default: Value("14d"),
        help: "How long a session lasts without use, {values}",
    }
    IDENTITY_SESSION_MAX = Durations("1m", "3650d") {
        flag: Some("--session-max <DURATION>"),
        default: Value("90d"),
        help: "How long a session lasts at most, {values}",
    }
    /// The default is longer than a lost reply takes to be noticed, shorter than a copied token is of use.
    IDENTITY_REFRESH_GRACE = Durations("0s", "1h") {
        flag: Some("--refresh-grace <DURATION>"),
        default: Value("30s"),
        help: "For how long after a refresh the token that was used still gets the same successor, {values}",
    }
    /// The default is more devices than anybody has.
    IDENTITY_SESSION_LIMIT = CountsUpTo(10_000) {
        flag: Some("--session-limit <NUMBER>"),
        default: Value("100"),
        help: "Most sessions of a user, {values}; the oldest ends when one more is opened",
    }
    IDENTITY_REGISTRATION = Choices::<OpenTo>(&[
        ("open", OpenTo::Anybody),
        ("services", OpenTo::Services),
        ("closed", OpenTo::Nobody),
    ]) {
        flag: Some("--registration <WHO>"),
        default: Value("open"),
        help: "Who may register: open (anybody), services (other services alone) or closed (nobody)",
    }
    /// Each is remembered for an hour, in one row a source.
    IDENTITY_REGISTRATION_LIMIT = CountsUpTo(1000) {
        flag: Some("--registration-limit <NUMBER>"),
        default: Described("no limit"),
        help: "Registrations from one address (IPv6: one /64 network) within an hour, {values}",
    }
    /// The default is a large team, set up by hand or by a script.
    IDENTITY_CHANGE_BURST = Numbers(1, 1_000_000) {
        flag: Some("--change-burst <NUMBER>"),
        default: Value("1000"),
        help: "How many changes a user may make at once, after a pause; a tenant and a service ten times as many",
    }
    /// The default is more than a person does; an audit log grows by some kilobytes a second at most.
    IDENTITY_CHANGE_RATE = Numbers(1, 100_000) {
        flag: Some("--change-rate <NUMBER>"),
        default: Value("20"),
        help: "How many changes a user may make a second, in the long run; a tenant and a service ten times as many",
    }
    /// A month is the least in which an attack may go unnoticed; a hundred years are for ever.
    IDENTITY_AUDIT_RETENTION = Durations("30d", "36500d") {
        flag: Some("--audit-retention <DURATION>"),
        default: Described("for ever"),
        help: "How long audit events are kept, {values}",
    }
    IDENTITY_LOG = LogFilters() {
        flag: Some("--log <FILTER>"),
        default: Value("info"),
        help: "What to log: error, warn, info, debug or trace, also for one module, as in `info,identity::rpc=debug`",
    }
    IDENTITY_LOG_LEVEL_FILE = Files() {
        flag: Some("--log-level-file <FILE>"),
        default: Described("none"),
        help: "A file with the same, which SIGHUP makes the server read again",
    }
    IDENTITY_LOG_FORMAT = Choices::<LogFormat>(&[
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
    ]) {
        flag: Some("--log-format <FORMAT>"),
        default: Value("auto"),
        help: "How log lines look: human, json, or auto (human on a terminal, else json)",
    }
    JWT_SECRET = Secrets() {
        flag: None,
        default: Described("none"),
        help: "signs access tokens with HS256; at least 32 bytes. `openssl rand -base64 48` makes one. Without \
               it, they are signed with keys the service makes itself",
    }
    IDENTITY_MASTER_KEY = Secrets() {
        flag: None,
        default: Described("see below"),
        help: "32 bytes in base64; `identity keys master` makes one. It protects every other key. Without it and \
               IDENTITY_MASTER_KEY_FILE: on SQLite a file is made beside the database; on PostgreSQL it is \
               derived from JWT_SECRET, which must be set",
    }
    IDENTITY_MASTER_KEY_PREVIOUS = Secrets() {
        flag: None,
        default: Described("none"),
        help: "another master key that counts as well, while the two are exchanged",
    }
}
