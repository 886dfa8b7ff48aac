//! What a tenant of a million users costs: the first and the thousandth page of its list, and finding one user
//! among a million beside finding one among a thousand, by id and by e-mail, on either database.
//!
//! `cargo bench --bench directory` makes the users itself, which takes some minutes, and fails when the
//! thousandth page takes more than twice what the first one does, or a call that finds one among a million more
//! than 1.3 times what it takes among a thousand. The query by which a login finds its user is measured alone as
//! well, since in a login the hash would hide it. `cargo bench --bench directory -- 100000` takes that many
//! instead.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and exports nothing")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use identity::crypto::MasterKey;
use identity::domain::{
    Clock as _, Email, PasswordHash, PasswordScheme, PersonName, Profile, Role, SystemClock, Tenant,
    TenantId, TenantName, UserId, UserState,
};
use identity::proto::v1::{GetUserByEmailRequest, ListUsersRequest};
use identity::service::{Authority, service_tokens};
use identity::storage::bulk::{self, Batch, NewUser};
use identity::storage::{self, LaneSizes, Storage, StorageSettings};
use support::postgres::Cluster;
use support::service::{Client, Engine, MASTER_KEY, TestDatabase, TestService};
use tonic::Request;

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const BATCH: usize = 5_000;
/// Of 50 users each.
const PAGE: usize = 1_000;
/// How often each is measured, taking turns.
const TRIES: usize = 2_000;
const PAGE_TRIES: usize = 300;

#[tokio::main]
async fn main() {
    let many = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(MANY);
    let mut misses = Vec::new();
    // What a server for that many users is given; tests make do with 64 MB.
    Cluster::shared().admin("ALTER SYSTEM SET shared_buffers = '1GB'");
    Cluster::shared().stop();
    Cluster::shared().restart();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        println!("{engine:?}, medians");
        let (small, large) = (House::of(engine, FEW).await, House::of(engine, many).await);
        let mut judge = |what: &str, (one, other): (Duration, Duration), limit: f64| {
            let ratio = other.as_secs_f64() / one.as_secs_f64();
            println!("  {what}: {:.0} and {:.0} us, {ratio:.2} times", micros(one), micros(other));
            if ratio > limit {
                misses.push(format!("{engine:?}: {what}: {ratio:.2} times, not {limit}"));
            }
        };
        judge(&format!("the first page and the {PAGE}th"), pages(&large).await, 2.0);
        judge(&format!("GetUser among {FEW} and {many}"), get_user(&small, &large).await, 1.3);
        judge(&format!("GetUserByEmail among {FEW} and {many}"), get_by_email(&small, &large).await, 1.3);
        // SQLite's is reported only: it takes some ten microseconds, and each page that was not looked at
        // lately is one more of them.
        let limit = if engine == Engine::Postgres { 1.3 } else { f64::INFINITY };
        judge(&format!("a login's query alone among {FEW} and {many}"), look_up(&small, &large).await, limit);
        small.service.stop().await;
        large.service.stop().await;
    }
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}

/// A service with one tenant.
struct House {
    service: TestService,
    client: Client,
    storage: Storage,
    token: String,
    tenant_id: TenantId,
    ids: Vec<UserId>,
}

impl House {
    async fn of(engine: Engine, users: usize) -> Self {
        let database = TestDatabase::migrated(engine).await;
        let storage = Storage::new(&StorageSettings {
            url: database.parsed(),
            connections: LaneSizes::MIN,
            statement_limit: Duration::from_secs(60),
            queue_limit: Duration::from_secs(60),
        })
        .unwrap();
        let began = Instant::now();
        let (tenant_id, ids) = fill(&storage, users).await;
        println!("  {users} users made in {:.0} s", began.elapsed().as_secs_f64());
        if let Some(postgres) = &database.postgres {
            // As autovacuum would have done by the time that anybody asks.
            postgres.admin("VACUUM ANALYZE");
        }
        let name = identity::domain::ServiceName::parse("bench").unwrap();
        let (by, all) = (Authority::operator(None), identity::domain::AllowedRpcs::All);
        let keys = MasterKey::from_base64(MASTER_KEY).unwrap().into();
        let made = service_tokens::create(&storage, &keys, &SystemClock, &by, name, all, None).await.unwrap();
        let service = TestService::start_with(database, &[]).await;
        let client = service.client();
        Self { service, client, storage, token: made.text.to_string(), tenant_id, ids }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-identity-service-token", self.token.parse().unwrap());
        request
    }

    async fn page(&self, page_token: &str) -> String {
        let message = ListUsersRequest {
            tenant_id: self.tenant_id.to_string(),
            page_token: page_token.to_owned(),
            ..ListUsersRequest::default()
        };
        let page =
            self.client.directory.clone().list_users(self.request(message)).await.unwrap().into_inner();
        assert_eq!(page.users.len(), 50);
        page.next_page_token
    }
}

fn email(number: usize) -> Email {
    Email::parse(&format!("user{number}@example.com")).unwrap()
}

async fn fill(storage: &Storage, users: usize) -> (TenantId, Vec<UserId>) {
    let now = SystemClock.now();
    let name = TenantName::parse("A large one").unwrap();
    let tenant = Tenant { id: TenantId::generate(now), name, version: 1, created_at: now, updated_at: now };
    let password = PasswordHash {
        scheme: PasswordScheme::Bcrypt,
        text: "$2b$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDE".to_owned(),
    };
    let name = |text: &str| PersonName::parse(text).unwrap();
    let mut ids = Vec::with_capacity(users);
    for first in (0..users).step_by(BATCH) {
        let newcomers = (first..users.min(first + BATCH)).map(|number| {
            let created_at = now.plus(Duration::from_micros(number as u64));
            NewUser {
                tenant_id: tenant.id,
                id: UserId::generate(created_at),
                profile: Profile {
                    email: email(number),
                    first_name: name("Ada"),
                    last_name: name("Lovelace"),
                    external_id: None,
                },
                role: if number == 0 { Role::Owner } else { Role::Member },
                state: UserState::Active,
                created_at,
                updated_at: created_at,
                password: password.clone(),
                password_changed_at: created_at,
            }
        });
        let newcomers: Vec<_> = newcomers.collect();
        ids.extend(newcomers.iter().map(|user| user.id));
        let tenants = if first == 0 { vec![tenant.clone()] } else { Vec::new() };
        let mut tx = storage.begin("fill").await.unwrap();
        let batch = Batch { tenants, users: newcomers, events: Vec::new() };
        assert!(matches!(bulk::insert(&mut tx, batch).await.unwrap(), bulk::Written::All));
        tx.commit().await.unwrap();
    }
    (tenant.id, ids)
}

async fn pages(house: &House) -> (Duration, Duration) {
    let mut token = String::new();
    for _ in 1..PAGE {
        token = house.page(&token).await;
    }
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..PAGE_TRIES {
        first.push(timed(house.page("")).await);
        last.push(timed(house.page(&token)).await);
    }
    (median(first), median(last))
}

async fn get_user(small: &House, large: &House) -> (Duration, Duration) {
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        for (house, times) in [(small, &mut few), (large, &mut many)] {
            let user_id = house.ids[spread(n, house.ids.len())].to_string();
            let tenant_id = house.tenant_id.to_string();
            let message = identity::proto::v1::GetUserRequest { user_id, tenant_id };
            let mut client = house.client.service.clone();
            times.push(timed(client.get_user(house.request(message))).await);
        }
    }
    (median(few), median(many))
}

async fn get_by_email(small: &House, large: &House) -> (Duration, Duration) {
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        for (house, times) in [(small, &mut few), (large, &mut many)] {
            let email = email(spread(n, house.ids.len())).as_given().to_owned();
            let mut client = house.client.directory.clone();
            times.push(timed(client.get_user_by_email(house.request(GetUserByEmailRequest { email }))).await);
        }
    }
    (median(few), median(many))
}

async fn look_up(small: &House, large: &House) -> (Duration, Duration) {
    // As in a service that runs for some time, what is looked up is in memory.
    for house in [small, large] {
        for number in (0..house.ids.len()).step_by(20) {
            let mut conn = house.storage.read().await.unwrap();
            storage::logins::find_by_email(&mut conn, &email(number)).await.unwrap();
        }
    }
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        for (house, times) in [(small, &mut few), (large, &mut many)] {
            let email = email(spread(n, house.ids.len()));
            let mut conn = house.storage.read().await.unwrap();
            let found = timed(storage::logins::find_by_email(&mut conn, &email));
            times.push(found.await);
        }
    }
    (median(few), median(many))
}

/// One of `count`, another for each `n`, all over the place.
fn spread(n: usize, count: usize) -> usize {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let began = Instant::now();
    work.await;
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000_000.0
}
