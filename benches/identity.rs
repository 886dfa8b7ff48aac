//! What one thing costs: a hash, a token, a query, a whole GetUser call.
//!
//! `cargo bench --bench identity`; figures are in `docs/performance.md`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and exports nothing")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use identity::crypto::{
    AccessTokens, Cost, Hasher, HasherSettings, Keyring, SigningKey, Terms, TokenSettings, TokenSubject,
};
use identity::domain::{Clock as _, Password, Role, SessionId, SystemClock, TenantId, UserId};
use identity::storage::{Storage, StorageSettings, users};
use secrecy::ExposeSecret as _;
use support::service::{Engine, PASSWORD, TestService, registration};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// One password check at the costs that are in use, on the hasher's own thread.
fn passwords(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("password");
    group.sample_size(10);
    for cost in [10, 12] {
        let hasher = Hasher::start(HasherSettings::new(Cost::new(cost).unwrap())).unwrap();
        let terms = Terms::default();
        let password = Password::new(PASSWORD.to_owned()).unwrap();
        let hash = runtime.block_on(hasher.hash(&password, &terms)).unwrap();
        group.bench_function(format!("verify at cost {cost}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                black_box(hasher.verify(&password, Some(&hash), &terms).await.unwrap());
            });
        });
    }
}

fn access_tokens(key: SigningKey) -> AccessTokens {
    let settings = TokenSettings {
        issuer: "identity".to_owned(),
        audience: "identity".to_owned(),
        access_ttl: Duration::from_secs(900),
    };
    AccessTokens::new(Keyring::new(key, Vec::new()), settings)
}

/// Signing a token, verifying one for the first time, and verifying one that was seen before.
fn tokens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token");
    let now = SystemClock.now();
    let subject = TokenSubject {
        tenant_id: TenantId::generate(now),
        user_id: UserId::generate(now),
        session_id: SessionId::generate(now),
        role: Role::Owner,
        session_ends_at: now.plus(Duration::from_secs(90 * 24 * 60 * 60)),
    };
    for (name, key) in
        [("EdDSA", SigningKey::generate_ed25519()), ("HS256", SigningKey::hs256(&[7; 32]).unwrap())]
    {
        let tokens = access_tokens(key);
        group.bench_function(format!("sign with {name}"), |bencher| {
            bencher.iter(|| black_box(tokens.issue(&subject, now)));
        });
        group.bench_function(format!("verify {name}, never seen"), |bencher| {
            bencher.iter_batched(
                || tokens.issue(&subject, now),
                |token| black_box(tokens.verify(token.text.expose_secret(), now).unwrap()),
                criterion::BatchSize::SmallInput,
            );
        });
        let token = tokens.issue(&subject, now);
        group.bench_function(format!("verify {name}, seen before"), |bencher| {
            bencher.iter(|| black_box(tokens.verify(token.text.expose_secret(), now).unwrap()));
        });
    }
}

/// A registered user on a running service, and what it takes to ask for it.
struct Registered {
    service: TestService,
    token: String,
    tenant_id: TenantId,
    user_id: UserId,
}

impl Registered {
    async fn on(engine: Engine) -> Self {
        let service = TestService::start(engine).await;
        let reply = service.client().register(registration("ada@example.com")).await.unwrap();
        let user = reply.user.unwrap();
        Self {
            service,
            token: reply.access_token,
            tenant_id: TenantId::parse(&user.tenant_id).unwrap(),
            user_id: UserId::parse(&user.id).unwrap(),
        }
    }
}

/// Finding a user by id, and a whole GetUser call from a client on the same machine.
fn look_ups(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("look-up");
    group.measurement_time(Duration::from_secs(8));
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let registered = runtime.block_on(Registered::on(engine));
        let settings = StorageSettings {
            url: registered.service.database.parsed(),
            connections: 4.try_into().unwrap(),
            statement_limit: Duration::from_secs(60),
        };
        let storage = runtime.block_on(async { Storage::new(&settings).unwrap() });
        let (tenant_id, user_id) = (registered.tenant_id, registered.user_id);
        group.bench_function(format!("find a user by id, {engine:?}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut conn = storage.read().await.unwrap();
                black_box(users::find(&mut conn, tenant_id, user_id).await.unwrap().unwrap());
            });
        });
        let client = runtime.block_on(async { registered.service.client() });
        group.bench_function(format!("GetUser round trip, {engine:?}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                black_box(client.get_user(Some(&registered.token), "").await.unwrap());
            });
        });
        drop(storage);
        runtime.block_on(registered.service.stop());
    }
}

criterion_group!(benches, passwords, tokens, look_ups);
criterion_main!(benches);
