//! Several hosts in one URL: one that is silent, one that can only be read, and one that takes over.

use std::net::SocketAddr;
use std::time::Duration;

use identity::storage::{self, Storage, StorageError, migrate};
use tokio::task::block_in_place;

use crate::fixture::{LONG, open_with_limit, user};
use crate::support::port;
use crate::support::postgres::{Cluster, Database};
use crate::support::service::{Engine, TestDatabase};
use crate::support::wait::eventually;

/// What operation has by default.
const STATEMENT_LIMIT: Duration = Duration::from_millis(1_500);

/// A storage with the hosts in this order.
fn storage_at(hosts: &[SocketAddr], name: &str) -> Storage {
    let hosts: Vec<_> = hosts.iter().map(SocketAddr::to_string).collect();
    let url = format!("postgres://identity@{}/{name}", hosts.join(","));
    let database = TestDatabase { url, folder: tempfile::tempdir().unwrap(), postgres: None };
    open_with_limit(&database, 2, STATEMENT_LIMIT)
}

async fn write(storage: &Storage, number: u8) -> Result<(), StorageError> {
    let mut tx = storage.begin("test").await?;
    storage::tenants::insert(&mut tx, &user(number).tenant).await?;
    tx.commit().await
}

fn tenants(database: &Database) -> String {
    block_in_place(|| database.admin("SELECT count(*) FROM tenants")).remove(0).remove(0).unwrap()
}

/// Two servers of the same content, the second of which can only be read, as a standby.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    on_primary: Database,
    on_standby: Database,
}

impl Pair {
    async fn start() -> Self {
        let (primary, standby) = block_in_place(|| (Cluster::start(), Cluster::start()));
        let (on_primary, on_standby) =
            block_in_place(|| (primary.create_database(), standby.create_database()));
        for database in [&on_primary, &on_standby] {
            let (url, _) = storage::DatabaseUrl::parse(&database.url).unwrap();
            migrate::run(&url, LONG).await.unwrap();
        }
        assert_eq!(on_primary.name(), on_standby.name());
        let pair = Self { primary, standby, on_primary, on_standby };
        pair.tell_standby("SET default_transaction_read_only = on");
        pair
    }

    fn tell_standby(&self, what: &str) {
        let name = self.on_standby.name();
        block_in_place(|| self.standby.admin(&format!("ALTER DATABASE {name} {what}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_and_stays_silent_is_passed_over() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let silent = port::bind();
    let name = database.postgres.as_ref().unwrap().name();
    let hosts = [silent.local_addr().unwrap(), Cluster::shared().addr()];
    let storage = storage_at(&hosts, name);
    eventually("the other one is used", async || write(&storage, 1).await.is_ok()).await;
    let url = format!("postgres://identity@{},{}/{name}", hosts[0], hosts[1]);
    let (url, _) = storage::DatabaseUrl::parse(&url).unwrap();
    assert_eq!(migrate::pending(&url).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_first_in_the_url_is_passed_over() {
    let pair = Pair::start().await;
    let storage = storage_at(&[pair.standby.addr(), pair.primary.addr()], pair.on_primary.name());
    write(&storage, 1).await.unwrap();
    storage.probe().await.unwrap();
    assert_eq!((tenants(&pair.on_primary).as_str(), tenants(&pair.on_standby).as_str()), ("1", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_freezes_is_left_for_the_standby_that_is_promoted() {
    let pair = Pair::start().await;
    let storage = storage_at(&[pair.primary.addr(), pair.standby.addr()], pair.on_primary.name());
    write(&storage, 1).await.unwrap();
    block_in_place(|| pair.primary.pause());
    pair.tell_standby("RESET default_transaction_read_only");
    eventually("writes are back", async || write(&storage, 2).await.is_ok()).await;
    eventually("the probe finds it", async || storage.probe().await.is_ok()).await;
    assert_eq!(tenants(&pair.on_standby), "1");
}
