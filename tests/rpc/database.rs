//! What tests see and change behind the server's back.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use identity::domain::{Clock as _, Profile, Role, SystemClock, TenantId, User, UserId, UserState};
use identity::proto::v1;
use identity::storage::{self, Inserted, LaneSizes, Storage, StorageSettings};
use tokio::task::block_in_place;
use tokio_postgres::NoTls;

use crate::support::service::TestDatabase;
use crate::support::wait::eventually;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    value: String,
}

fn sqlite(database: &TestDatabase) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(database.url.strip_prefix("sqlite:").unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON").unwrap();
    connection
}

/// The rows of a query with one column, a text named `value`.
pub(crate) fn values(database: &TestDatabase, sql: &str) -> Vec<String> {
    block_in_place(|| match &database.postgres {
        Some(postgres) => postgres.admin(sql).into_iter().map(|mut row| row.remove(0).unwrap()).collect(),
        None => {
            let rows: Vec<Row> = sql_query(sql).load(&mut sqlite(database)).unwrap();
            rows.into_iter().map(|row| row.value).collect()
        }
    })
}

/// How many rows a table has.
pub(crate) fn count(database: &TestDatabase, table: &str) -> usize {
    values(database, &format!("SELECT CAST(count(*) AS TEXT) AS value FROM {table}"))[0].parse().unwrap()
}

/// How many tenants, users, login names, passwords and sessions there are.
pub(crate) fn census(database: &TestDatabase) -> [usize; 5] {
    ["tenants", "users", "login_names", "passwords", "sessions"].map(|table| count(database, table))
}

/// Waits until that is what there is: what is left of a deleted tenant is removed in the background.
pub(crate) async fn census_becomes(database: &TestDatabase, expected: [usize; 5]) {
    let what = format!("there are {expected:?} rows");
    eventually(&what, async || census(database) == expected).await;
}

/// Runs SQL that returns nothing.
pub(crate) fn execute(database: &TestDatabase, sql: &str) {
    block_in_place(|| match &database.postgres {
        Some(postgres) => drop(postgres.admin(sql)),
        None => sqlite(database).batch_execute(sql).unwrap(),
    });
}

/// SQL for the id of the user whose login name is `email`.
pub(crate) fn user_id_of(email: &str) -> String {
    format!("(SELECT user_id FROM login_names WHERE email_normalized = '{email}')")
}

/// The stored hash of the user whose login name is `email`.
pub(crate) fn stored_hash(database: &TestDatabase, email: &str) -> String {
    let of = user_id_of(email);
    let sql = format!("SELECT scheme || ' ' || hash AS value FROM passwords WHERE user_id = {of}");
    values(database, &sql).remove(0)
}

/// Puts a hash that another program made in the place of a user's.
pub(crate) fn import_hash(database: &TestDatabase, email: &str, scheme: &str, hash: &str) {
    let of = user_id_of(email);
    let sql = format!("UPDATE passwords SET scheme = '{scheme}', hash = '{hash}' WHERE user_id = {of}");
    execute(database, &sql);
}

/// A transaction that holds its locks until it is committed.
pub(crate) enum OpenTransaction {
    Sqlite(SqliteConnection),
    Postgres(tokio_postgres::Client),
}

impl OpenTransaction {
    /// Runs `sql` in a new transaction.
    pub(crate) async fn begin(database: &TestDatabase, sql: &str) -> Self {
        if database.postgres.is_none() {
            let mut connection = sqlite(database);
            block_in_place(|| connection.batch_execute(&format!("BEGIN IMMEDIATE; {sql}")).unwrap());
            return Self::Sqlite(connection);
        }
        let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        Self::Postgres(client)
    }

    pub(crate) async fn commit(self) {
        match self {
            Self::Sqlite(mut connection) => block_in_place(|| connection.batch_execute("COMMIT").unwrap()),
            Self::Postgres(client) => client.batch_execute("COMMIT").await.unwrap(),
        }
    }
}

/// The database as the server itself reaches it.
pub(crate) fn storage(database: &TestDatabase) -> Storage {
    let settings = StorageSettings {
        url: database.parsed(),
        connections: LaneSizes::MIN,
        statement_limit: Duration::from_secs(60),
        queue_limit: Duration::from_secs(60),
    };
    Storage::new(&settings).unwrap()
}

fn ids(user: &v1::User) -> (TenantId, UserId) {
    (TenantId::parse(&user.tenant_id).unwrap(), UserId::parse(&user.id).unwrap())
}

/// Adds a member without a password to the tenant of `owner`.
pub(crate) async fn add_member(database: &TestDatabase, owner: &v1::User) -> String {
    let (tenant_id, owner_id) = ids(owner);
    let storage = storage(database);
    let owner = {
        let mut conn = storage.read().await.unwrap();
        storage::users::find(&mut conn, tenant_id, owner_id).await.unwrap().unwrap()
    };
    let id = UserId::generate(SystemClock.now());
    let email = identity::domain::Email::parse("member@example.com").unwrap();
    let member = User { id, profile: Profile { email, ..owner.profile }, role: Role::Member, ..owner };
    let mut tx = storage.begin("add member").await.unwrap();
    assert_eq!(storage::users::insert(&mut tx, &member).await.unwrap(), Inserted::Yes);
    tx.commit().await.unwrap();
    id.to_string()
}

/// Disables a user, or lets a disabled one be active again.
pub(crate) async fn set_state(database: &TestDatabase, user: &v1::User, state: UserState) {
    let (tenant_id, user_id) = ids(user);
    let mut tx = storage(database).begin("set state").await.unwrap();
    let found = storage::users::find_locked(&mut tx, tenant_id, user_id).await.unwrap().unwrap();
    let changed = User { state, version: found.version + 1, updated_at: SystemClock.now(), ..found };
    assert_eq!(storage::users::update(&mut tx, &changed).await.unwrap(), Inserted::Yes);
    tx.commit().await.unwrap();
}

/// Ends the session that an access token belongs to.
pub(crate) async fn revoke(database: &TestDatabase, user: &v1::User, session_id: &str) {
    let (tenant_id, _) = ids(user);
    let session_id = identity::domain::SessionId::parse(session_id).unwrap();
    let mut tx = storage(database).begin("revoke").await.unwrap();
    let now = SystemClock.now();
    assert!(storage::sessions::update_revoked(&mut tx, tenant_id, session_id, now).await.unwrap());
    tx.commit().await.unwrap();
}

/// Deletes the tenant of a user with all that belongs to it.
pub(crate) async fn delete_tenant(database: &TestDatabase, user: &v1::User) {
    let (tenant_id, _) = ids(user);
    let mut tx = storage(database).begin("delete tenant").await.unwrap();
    assert!(storage::tenants::delete(&mut tx, tenant_id, SystemClock.now()).await.unwrap());
    tx.commit().await.unwrap();
}
