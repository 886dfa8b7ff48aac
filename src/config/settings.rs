//! The settings, their names, limits and defaults.

mod audit;
mod changes;
mod connections;
mod log;
mod passwords;
mod registration;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::SecretString;

use super::read::{Name, Reader};
use super::{Environment, Fault, Flags, MasterKeySettings, Resolved, secrets};
use crate::crypto::KeyAlgorithm;
use crate::crypto::hasher::HashEngine;
use crate::crypto::tls::TlsFiles;
use crate::storage::LaneSizes;
use crate::storage::postgres::Connector;
use crate::storage::url::DatabaseUrl;
use crate::telemetry::logs::LogSettings;

pub use changes::ChangeSettings;
pub use connections::ConnectionSettings;
pub use log::log_filter_in;
pub use passwords::PasswordSettings;
pub use registration::{RegistrationMode, RegistrationSettings};

/// Everything that the server is told. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub database: DatabaseSettings,
    /// Where it listens and how it stops.
    pub server: ServerSettings,
    /// How passwords are hashed.
    pub hash: HashSettings,
    /// Tokens and sessions.
    pub session: SessionSettings,
    /// Who may register, and how often.
    pub registration: RegistrationSettings,
    /// How much a user may change.
    pub changes: ChangeSettings,
    /// Fewest characters in a new password: 8 to 64.
    pub password_min_length: usize,
    /// Signs tokens with HS256 when set: 32 bytes or more.
    pub jwt_secret: Option<SecretString>,
    /// The master key.
    pub master_key: MasterKeySettings,
    /// The keys that sign tokens when there is no secret.
    pub signing: SigningSettings,
    /// How long audit events are kept, 30 days to 100 years; for ever when none is given.
    pub audit_retention: Option<Duration>,
    /// Logging.
    pub log: LogSettings,
}

/// What a command needs that changes the signing keys and then ends.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The database.
    pub database: DatabaseSettings,
    /// From which the master key may come.
    pub jwt_secret: Option<SecretString>,
    /// The master key.
    pub master_key: MasterKeySettings,
    /// The keys that sign tokens.
    pub signing: SigningSettings,
    /// Logging.
    pub log: LogSettings,
}

/// The keys that the service makes to sign tokens.
#[derive(Clone, Copy, Debug)]
pub struct SigningSettings {
    /// What they are for; `None` keeps what the last one is for.
    pub algorithm: Option<KeyAlgorithm>,
    /// How long a new key is published before it signs: 1 second to 24 hours.
    pub propagation: Duration,
}

/// What a command needs that works on the database and then ends.
#[derive(Clone, Debug)]
pub struct MaintenanceSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// Logging.
    pub log: LogSettings,
}

/// The database, and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Most connections to PostgreSQL, shared out among the lanes. SQLite takes as many as it needs.
    pub connections: NonZeroU32,
    /// How long PostgreSQL works on one statement at most.
    pub statement_limit: Duration,
    /// How long a call waits for a connection at most: 100 ms to 1 minute.
    pub queue_limit: Duration,
    /// What a start does about pending migrations.
    pub migrate: MigrateMode,
    /// How long another process that migrates PostgreSQL is waited for at most: 1 s to 1 day.
    pub migration_wait: Duration,
}

/// Where the server listens, and how it stops.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address and port for gRPC; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address and port of the side port over HTTP; `None` switches it off.
    pub http_listen: Option<SocketAddr>,
    /// The files of TLS; `None` serves gRPC in plaintext.
    pub tls: Option<TlsFiles>,
    /// Address and port for health alone, in plaintext; `None` for nowhere.
    pub health_listen: Option<SocketAddr>,
    /// Whether the reflection service is offered.
    pub reflection: bool,
    /// How many connections there may be, and for how long.
    pub connections: ConnectionSettings,
    /// How long requests are still served normally after a signal to stop.
    pub drain_delay: Duration,
    /// How long running requests may take to finish after that.
    pub drain_timeout: Duration,
}

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub struct HashSettings {
    /// The bcrypt cost of new hashes: 4 to 16.
    pub cost: u32,
    /// Threads that compute hashes; `None` takes what the machine has to offer.
    pub threads: Option<NonZeroUsize>,
    /// Hashes that each thread computes side by side, 1 to 8; `None` finds out what is best.
    pub lanes: Option<NonZeroUsize>,
    /// How long a caller without a deadline waits at most for a hash.
    pub max_wait: Duration,
    /// What computes them.
    pub engine: HashEngine,
}

/// Tokens and sessions.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The `aud` of access tokens.
    pub audience: String,
    /// How long an access token is valid: 1 minute to 24 hours.
    pub access_ttl: Duration,
    /// How long a session lasts without use; at most `max`.
    pub idle: Duration,
    /// How long a session lasts.
    pub max: Duration,
    /// For how long after a refresh the refresh token that was used still gets the same successor.
    pub refresh_grace: Duration,
    /// How many sessions a user has at most.
    pub per_user: NonZeroUsize,
}

/// What a start does about pending migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateMode {
    /// Runs them.
    Auto,
    /// Refuses to start while any is pending.
    Check,
}

const DATABASE_URL: Name = Name::with_flag("DATABASE_URL", |flags| flags.database_url.as_deref());
const DATABASE_CONNECTIONS: Name =
    Name::with_flag("IDENTITY_DATABASE_CONNECTIONS", |flags| flags.database_connections.as_deref());
const MIGRATION_WAIT: Name =
    Name::with_flag("IDENTITY_MIGRATION_WAIT", |flags| flags.migration_wait.as_deref());
const STATEMENT_TIMEOUT: Name =
    Name::with_flag("IDENTITY_STATEMENT_TIMEOUT", |flags| flags.statement_timeout.as_deref());
const QUEUE_TIMEOUT: Name = Name::with_flag("IDENTITY_QUEUE_TIMEOUT", |flags| flags.queue_timeout.as_deref());
const MIGRATE: Name = Name::with_flag("IDENTITY_MIGRATE", |flags| flags.migrate.as_deref());
const LISTEN: Name = Name::with_flag("IDENTITY_LISTEN", |flags| flags.listen.as_deref());
const HTTP_LISTEN: Name = Name::with_flag("IDENTITY_HTTP_LISTEN", |flags| flags.http_listen.as_deref());
const REFLECTION: Name = Name::with_flag("IDENTITY_REFLECTION", |flags| flags.reflection.as_deref());
const DRAIN_DELAY: Name = Name::with_flag("IDENTITY_DRAIN_DELAY", |flags| flags.drain_delay.as_deref());
const DRAIN_TIMEOUT: Name = Name::with_flag("IDENTITY_DRAIN_TIMEOUT", |flags| flags.drain_timeout.as_deref());
const BCRYPT_COST: Name = Name::with_flag("IDENTITY_BCRYPT_COST", |flags| flags.bcrypt_cost.as_deref());
const HASH_THREADS: Name = Name::with_flag("IDENTITY_HASH_THREADS", |flags| flags.hash_threads.as_deref());
const HASH_LANES: Name = Name::with_flag("IDENTITY_HASH_LANES", |flags| flags.hash_lanes.as_deref());
const HASH_MAX_WAIT: Name = Name::with_flag("IDENTITY_HASH_MAX_WAIT", |flags| flags.hash_max_wait.as_deref());
/// For comparisons only, so it is in no help.
const HASH_ENGINE: Name = Name::without_flag("IDENTITY_HASH_ENGINE");
const PASSWORD_MIN_LENGTH: Name =
    Name::with_flag("IDENTITY_PASSWORD_MIN_LENGTH", |flags| flags.password_min_length.as_deref());
const ISSUER: Name = Name::with_flag("IDENTITY_ISSUER", |flags| flags.issuer.as_deref());
const AUDIENCE: Name = Name::with_flag("IDENTITY_AUDIENCE", |flags| flags.audience.as_deref());
const ACCESS_TTL: Name = Name::with_flag("IDENTITY_ACCESS_TTL", |flags| flags.access_ttl.as_deref());
const TOKEN_ALGORITHM: Name =
    Name::with_flag("IDENTITY_TOKEN_ALGORITHM", |flags| flags.token_algorithm.as_deref());
const KEY_PROPAGATION: Name =
    Name::with_flag("IDENTITY_KEY_PROPAGATION", |flags| flags.key_propagation.as_deref());
const SESSION_IDLE: Name = Name::with_flag("IDENTITY_SESSION_IDLE", |flags| flags.session_idle.as_deref());
const SESSION_MAX: Name = Name::with_flag("IDENTITY_SESSION_MAX", |flags| flags.session_max.as_deref());
const REFRESH_GRACE: Name = Name::with_flag("IDENTITY_REFRESH_GRACE", |flags| flags.refresh_grace.as_deref());
const SESSION_LIMIT: Name = Name::with_flag("IDENTITY_SESSION_LIMIT", |flags| flags.session_limit.as_deref());

const DEFAULT_DATABASE: &str = "identity.db";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);
const DEFAULT_HTTP_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// Somewhat less than the two seconds after which a caller hears that the database is away.
const DEFAULT_STATEMENT_LIMIT: Duration = Duration::from_millis(1_500);
/// A call that waits longer is refused, and can try again: who comes then is served no later.
const DEFAULT_QUEUE_LIMIT: Duration = Duration::from_secs(2);
const DEFAULT_CONNECTIONS: NonZeroU32 = NonZeroU32::new(16).expect("16 is not 0");
/// From one for each lane to what few servers have.
const CONNECTIONS_RANGE: RangeInclusive<u32> = LaneSizes::MIN_TOTAL..=1000;
/// From what a busy database may take to longer than anybody waits.
const STATEMENT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=MINUTE;
/// From what a small migration takes to one that rewrites a large table.
const MIGRATION_WAIT_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
const DEFAULT_BCRYPT_COST: u32 = 12;
/// Below this, a stolen hash is guessed too fast (OWASP Password Storage Cheat Sheet, "bcrypt").
const ADVISED_BCRYPT_COST: u32 = 10;
/// As long as a person looks at a form that does nothing.
const DEFAULT_HASH_MAX_WAIT: Duration = Duration::from_secs(10);
/// From a fast hash to longer than any client waits.
const HASH_WAIT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
const DEFAULT_PASSWORD_MIN_LENGTH: u32 = 8;
/// Which `iss` and `aud` are meant when the operator names none.
const DEFAULT_NAME: &str = "identity";
/// Keeps a token within what proxies allow a header to be.
const NAME_MAX_BYTES: usize = 255;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A second is for tests; within a day, every verifier has looked at the published keys again.
const PROPAGATION_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// Ten years: no one waits longer for an error in writing to show.
const SESSION_RANGE: RangeInclusive<Duration> = MINUTE..=Duration::from_secs(3650 * 24 * 60 * 60);
/// Longer than a lost reply takes to be noticed, shorter than a copied token is of use.
const DEFAULT_REFRESH_GRACE: Duration = Duration::from_secs(30);
/// More devices than anybody has.
const DEFAULT_SESSION_LIMIT: NonZeroUsize = NonZeroUsize::new(100).expect("100 is not 0");
/// An hour is longer than any orchestrator waits for a process to stop.
const DRAIN_RANGE: RangeInclusive<Duration> = Duration::ZERO..=HOUR;

impl Settings {
    /// Reads every setting: the flag, else the variable unless it is empty, else the default. An empty
    /// `DATABASE_URL` is a fault.
    /// Variables of other names are ignored.
    ///
    /// # Errors
    /// Every setting that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let jwt_secret = secrets::jwt_secret(&mut reader);
        let database = database(&mut reader);
        let url = database.as_ref().map(|database| &database.url);
        let master_key = secrets::master_key(&mut reader, url, jwt_secret.is_some());
        let server = server(&mut reader);
        let hash = hash(&mut reader);
        let password_min_length = passwords::min_length(&mut reader);
        let session = session(&mut reader);
        let signing = signing(&mut reader);
        let registration = registration::read(&mut reader);
        let changes = changes::read(&mut reader);
        let audit_retention = audit::retention(&mut reader);
        let log = log::read(&mut reader);
        // The two are missing only after a fault was noted.
        let settings = database.zip(master_key).map(|(database, master_key)| Self {
            database,
            server,
            hash,
            session,
            registration,
            changes,
            password_min_length,
            jwt_secret,
            master_key,
            signing,
            audit_retention,
            log,
        });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl MaintenanceSettings {
    /// Reads the settings of the database and of logging, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let database = database(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.map(|database| Self { database, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl KeySettings {
    /// Reads the settings of the database, of keys and of logging, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let jwt_secret = secrets::jwt_secret(&mut reader);
        let database = database(&mut reader);
        let url = database.as_ref().map(|database| &database.url);
        let master_key = secrets::master_key(&mut reader, url, jwt_secret.is_some());
        let signing = signing(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.zip(master_key);
        let settings =
            settings.map(|(database, master_key)| Self { database, jwt_secret, master_key, signing, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl HashSettings {
    /// Reads the settings of password hashing, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let settings = hash(&mut reader);
        reader.finish(settings)
    }
}

impl<T> Resolved<Option<T>> {
    fn unwrap_settings(self) -> Resolved<T> {
        let settings = self.settings.expect("a setting is missing only after its fault was noted");
        Resolved { settings, warnings: self.warnings }
    }
}

fn database(reader: &mut Reader<'_>) -> Option<DatabaseSettings> {
    // An empty text is no choice of SQLite: a variable behind it may be missing.
    let url = match reader.text_or_empty(DATABASE_URL).as_deref().map(DatabaseUrl::parse) {
        None => Some(DatabaseUrl::Sqlite { path: DEFAULT_DATABASE.into() }),
        Some(Ok((url, warnings))) => {
            warnings.iter().for_each(|warning| reader.warn(DATABASE_URL, warning));
            if let DatabaseUrl::Postgres(target) = &url
                && let Err(error) = Connector::new(target)
            {
                reader.fault(DATABASE_URL, format_args!("must have an sslrootcert that is of use: {error}"));
            }
            Some(url)
        }
        Some(Err(problem)) => {
            reader.fault(DATABASE_URL, problem);
            None
        }
    };
    let connections = reader.number(DATABASE_CONNECTIONS, CONNECTIONS_RANGE).and_then(NonZeroU32::new);
    let statement_limit = reader.duration(STATEMENT_TIMEOUT, STATEMENT_RANGE);
    let queue_limit = reader.duration(QUEUE_TIMEOUT, STATEMENT_RANGE);
    let migrate = reader.choice(MIGRATE, &[("auto", MigrateMode::Auto), ("check", MigrateMode::Check)]);
    let migration_wait = reader.duration(MIGRATION_WAIT, MIGRATION_WAIT_RANGE);
    let url = url?;
    let limit = match &url {
        DatabaseUrl::Postgres(target) => target.connection_limit(),
        DatabaseUrl::Sqlite { .. } => None,
    };
    let fewest = NonZeroU32::new(*CONNECTIONS_RANGE.start()).unwrap_or(NonZeroU32::MIN);
    if connections.is_none() && limit.is_some_and(|limit| limit < fewest) {
        reader.warn(DATABASE_URL, format_args!("has a connection_limit below {fewest}; {fewest} are used"));
    }
    let limit = limit.map(|limit| limit.max(fewest));
    Some(DatabaseSettings {
        url,
        connections: connections.or(limit).unwrap_or(DEFAULT_CONNECTIONS),
        statement_limit: statement_limit.unwrap_or(DEFAULT_STATEMENT_LIMIT),
        queue_limit: queue_limit.unwrap_or(DEFAULT_QUEUE_LIMIT),
        migrate: migrate.unwrap_or(MigrateMode::Auto),
        migration_wait: migration_wait.unwrap_or(MINUTE),
    })
}

fn server(reader: &mut Reader<'_>) -> ServerSettings {
    let listen = reader.parsed(LISTEN, |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| "must be an address and a port, such as 127.0.0.1:50051 or [::]:50051")
    });
    let listen = listen.unwrap_or(DEFAULT_LISTEN);
    let tls = tls::tls(reader, LISTEN, listen);
    let http_listen = reader.address_or_off(HTTP_LISTEN, DEFAULT_HTTP_LISTEN);
    ServerSettings {
        listen,
        http_listen: http_listen.unwrap_or(Some(DEFAULT_HTTP_LISTEN)),
        tls,
        health_listen: tls::health_listen(reader),
        reflection: reader.choice(REFLECTION, &[("on", true), ("off", false)]).unwrap_or(true),
        connections: connections::read(reader),
        drain_delay: reader.duration(DRAIN_DELAY, DRAIN_RANGE).unwrap_or(Duration::ZERO),
        drain_timeout: reader.duration(DRAIN_TIMEOUT, DRAIN_RANGE).unwrap_or(Duration::from_secs(20)),
    }
}

fn hash(reader: &mut Reader<'_>) -> HashSettings {
    let cost = reader.number(BCRYPT_COST, 4..=16).unwrap_or(DEFAULT_BCRYPT_COST);
    if cost < ADVISED_BCRYPT_COST {
        reader.warn(BCRYPT_COST, "below 10, stolen hashes are guessed too fast; this is for tests only");
    }
    let mut count = |name, most| reader.number(name, 1..=most).and_then(|n| NonZeroUsize::new(n as usize));
    let (threads, lanes) = (count(HASH_THREADS, 1024), count(HASH_LANES, 8));
    let max_wait = reader.duration(HASH_MAX_WAIT, HASH_WAIT_RANGE).unwrap_or(DEFAULT_HASH_MAX_WAIT);
    let engines = [("lanes", HashEngine::Lanes), ("bcrypt", HashEngine::BcryptCrate)];
    let engine = reader.choice(HASH_ENGINE, &engines).unwrap_or(HashEngine::Lanes);
    HashSettings { cost, threads, lanes, max_wait, engine }
}

fn session(reader: &mut Reader<'_>) -> SessionSettings {
    let issuer = reader.parsed(ISSUER, name).unwrap_or_else(|| DEFAULT_NAME.to_owned());
    let audience = reader.parsed(AUDIENCE, name).unwrap_or_else(|| DEFAULT_NAME.to_owned());
    let access_ttl = reader.duration(ACCESS_TTL, MINUTE..=DAY).unwrap_or(15 * MINUTE);
    let idle = reader.duration(SESSION_IDLE, SESSION_RANGE);
    let max = reader.duration(SESSION_MAX, SESSION_RANGE).unwrap_or(90 * DAY);
    if idle.is_some_and(|idle| idle > max) {
        reader.fault(SESSION_IDLE, "must not be longer than IDENTITY_SESSION_MAX (--session-max)");
    }
    let refresh_grace =
        reader.duration(REFRESH_GRACE, Duration::ZERO..=HOUR).unwrap_or(DEFAULT_REFRESH_GRACE);
    let limit = reader.number(SESSION_LIMIT, 1..=10_000).and_then(|limit| NonZeroUsize::new(limit as usize));
    SessionSettings {
        issuer,
        audience,
        access_ttl,
        // A shorter maximum alone shortens the default with it.
        idle: idle.unwrap_or(14 * DAY).min(max),
        max,
        refresh_grace,
        per_user: limit.unwrap_or(DEFAULT_SESSION_LIMIT),
    }
}

fn signing(reader: &mut Reader<'_>) -> SigningSettings {
    let algorithms = [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256].map(|one| (one.as_str(), one));
    SigningSettings {
        algorithm: reader.choice(TOKEN_ALGORITHM, &algorithms),
        propagation: reader.duration(KEY_PROPAGATION, PROPAGATION_RANGE).unwrap_or(10 * MINUTE),
    }
}

/// A `StringOrURI` (RFC 7519, 2) that survives being written into a header and a log line.
fn name(text: &str) -> Result<String, &'static str> {
    if text.len() <= NAME_MAX_BYTES && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        Ok(text.to_owned())
    } else {
        Err("must have at most 255 bytes, without white space or control characters")
    }
}

#[cfg(test)]
mod tests;
