//! A database with its storage, and values to put there.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use identity::domain::{
    DeviceLabel, Email, EndUser, PasswordHash, PasswordScheme, PersonName, Profile, RequestId, Role, Session,
    SessionId, Tenant, TenantId, TenantName, Timestamp, User, UserId, UserState,
};
use identity::storage::outcomes::Outcome;
use identity::storage::sessions::OpenAt;
use identity::storage::signing_keys::StoredSigningKey;
use identity::storage::{self, Inserted, LaneSizes, Storage, StorageError, StorageSettings, Tx};
use uuid::Uuid;

use crate::sql::Outside;
use crate::support::service::{Engine, TestDatabase};

/// Long enough for anything that is not stuck.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A database with all tables and the storage that uses it.
pub(crate) struct Fixture {
    pub(crate) storage: Storage,
    pub(crate) database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new(engine: Engine) -> Self {
        Self::with_connections(engine, 10).await
    }

    /// SQLite has one connection that writes and four that read, whatever is said here.
    pub(crate) async fn with_connections(engine: Engine, connections: u32) -> Self {
        let database = TestDatabase::migrated(engine).await;
        Self { storage: open(&database, connections), database }
    }

    /// On PostgreSQL, with one connection whose statements end after `limit`.
    pub(crate) async fn with_limit(limit: Duration) -> Self {
        let database = TestDatabase::migrated(Engine::Postgres).await;
        Self { storage: open_with_limit(&database, 1, limit), database }
    }

    pub(crate) async fn outside(&self) -> Outside {
        Outside::connect(&self.database).await
    }

    /// A transaction.
    pub(crate) async fn begin(&self) -> Tx {
        self.storage.begin("test").await.unwrap()
    }

    /// Adds `user` with everything that a registration writes.
    pub(crate) async fn register(&self, user: &User) {
        let mut tx = self.begin().await;
        register(&mut tx, user).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Whether anybody has this user's login name, asked on a connection for reading.
    pub(crate) async fn can_log_in(&self, user: &User) -> bool {
        let mut conn = self.storage.read().await.unwrap();
        storage::logins::find_by_email(&mut conn, &user.profile.email).await.unwrap().is_some()
    }
}

/// Leaves PostgreSQL more time for a statement than operation does, since tests run on busy machines.
pub(crate) fn open(database: &TestDatabase, connections: u32) -> Storage {
    open_with_limit(database, connections, LONG)
}

pub(crate) fn open_with_limit(database: &TestDatabase, connections: u32, limit: Duration) -> Storage {
    let connections = LaneSizes::each(NonZeroU32::new(connections).unwrap());
    let (url, statement_limit, queue_limit) = (database.parsed(), limit, LONG);
    let settings = StorageSettings { url, connections, statement_limit, queue_limit };
    Storage::new(&settings).unwrap()
}

/// Writes what a registration writes, its outcome included.
pub(crate) async fn register(tx: &mut Tx, user: &User) -> Result<(), StorageError> {
    storage::tenants::insert(tx, &user.tenant).await?;
    assert_eq!(storage::users::insert(tx, user).await?, Inserted::Yes);
    assert_eq!(
        storage::logins::insert_name(tx, &user.profile.email, user.tenant.id, user.id).await?,
        Inserted::Yes
    );
    storage::logins::insert_password(tx, user.tenant.id, user.id, &password(), at(5)).await?;
    storage::sessions::insert(tx, &session(user)).await?;
    assert_eq!(storage::outcomes::insert(tx, &outcome(user)).await?, Inserted::Yes);
    Ok(())
}

/// Inserts a tenant, and waits for the answer.
pub(crate) async fn insert_tenant(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    storage::tenants::insert(tx, tenant).await?;
    tx.flush().await
}

/// Deletes the sessions of a user beyond the `kept` that matter most, as a login does; returns how many.
pub(crate) async fn delete_surplus(tx: &mut Tx, user: &User, open: OpenAt, kept: usize) -> usize {
    let surplus = storage::sessions::ask_surplus(tx, user.tenant.id, user.id, open, kept).await.unwrap();
    let surplus = surplus.receive(tx).await.unwrap();
    storage::sessions::delete(tx, user.tenant.id, &surplus).await.unwrap()
}

/// A point in time with microseconds, `seconds` after another.
pub(crate) const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_123_457 + seconds * 1_000_000)
}

fn id(kind: u8, n: u8) -> Uuid {
    // Any bits will do: an imported user keeps what UUID it has.
    Uuid::from_bytes([kind, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
}

/// The `n`th tenant with its owner, as registered.
pub(crate) fn user(n: u8) -> User {
    User {
        id: UserId::from(id(2, n)),
        tenant: Tenant {
            id: TenantId::from(id(1, n)),
            name: TenantName::parse(&format!("Tenant {n}")).unwrap(),
            version: 1,
            created_at: at(1),
            updated_at: at(1),
        },
        profile: Profile {
            email: Email::parse(&format!("User{n}@Example.com")).unwrap(),
            first_name: PersonName::parse("Ada").unwrap(),
            last_name: PersonName::parse("Lovelace").unwrap(),
            external_id: None,
        },
        role: Role::Owner,
        state: UserState::Active,
        version: 1,
        created_at: at(2),
        updated_at: at(2),
    }
}

/// The user with another e-mail.
pub(crate) fn with_email(user: User, email: Email) -> User {
    User { profile: Profile { email, ..user.profile }, ..user }
}

pub(crate) fn session(user: &User) -> Session {
    Session {
        id: SessionId::from(user.id.as_uuid()),
        tenant_id: user.tenant.id,
        user_id: user.id,
        generation: u32::MAX,
        secret_digest: [7; 32],
        created_at: at(3),
        last_used_at: at(4),
        expires_at: at(1_000),
        opened_by: EndUser {
            device: Some(DeviceLabel::parse("Firefox on Linux").unwrap()),
            address: Some("2001:db8::1".parse().unwrap()),
        },
        revoked_at: None,
        rotations: vec![at(4), at(3)],
    }
}

pub(crate) fn outcome(user: &User) -> Outcome {
    Outcome {
        request_id: RequestId::from(user.id.as_uuid()),
        fingerprint: [9; 32],
        tenant_id: user.tenant.id,
        user_id: user.id,
        created_at: at(0),
        expires_at: at(86_400),
    }
}

pub(crate) fn password() -> PasswordHash {
    PasswordHash { scheme: PasswordScheme::Bcrypt, text: "$2b$04$abcdefghijklmnopqrstuu".to_owned() }
}

pub(crate) fn signing_key(kid: &str) -> StoredSigningKey {
    StoredSigningKey {
        kid: kid.to_owned(),
        algorithm: "EdDSA".to_owned(),
        public_key: (0..32).collect(),
        sealed_private_key: (0..=255).collect(),
        created_at: at(0),
        signs_from: at(1),
        published_until: None,
    }
}

/// Polls a future once; whether it is done.
pub(crate) async fn is_done_at_once(future: &mut Pin<Box<impl Future + ?Sized>>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
