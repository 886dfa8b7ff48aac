//! A key takes over from another while tokens are issued and verified without a pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tokio::task::JoinSet;

use super::clients::{eventually, soon, variables};
use super::http::{reply, request_for};
use crate::support::process::{Process, identity};
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(no_verification_fails_while_a_key_takes_over);

/// Long enough for a busy machine to follow in time, short enough to wait for.
const PROPAGATION: (&str, &str) = ("IDENTITY_KEY_PROPAGATION", "12s");
const CLIENTS: usize = 4;
/// How often each client has to log in with either key.
const ROUNDS: usize = 10;

/// A service that verifies tokens by itself. It keeps the published keys as long as it is told that it
/// may, and asks for no others before.
struct Verifier {
    http: SocketAddr,
    keys: JwkSet,
    good_until: Instant,
}

impl Verifier {
    async fn new(http: SocketAddr) -> Self {
        let mut verifier = Self { http, keys: JwkSet::default(), good_until: Instant::now() };
        verifier.fetch().await;
        verifier
    }

    async fn fetch(&mut self) {
        let asked = Instant::now();
        let (head, body) = reply(self.http, &request_for("/.well-known/jwks.json")).await;
        let (_, max_age) = head.split_once("max-age=").unwrap();
        let seconds = max_age.lines().next().unwrap().parse().unwrap();
        assert!(seconds > 0, "{head}");
        self.keys = serde_json::from_str(&body).unwrap();
        self.good_until = asked + Duration::from_secs(seconds);
    }

    async fn verify(&mut self, token: &str) -> Result<Value, String> {
        if Instant::now() >= self.good_until {
            self.fetch().await;
        }
        let header = decode_header(token).unwrap();
        let kid = header.kid.unwrap();
        let key = self.keys.find(&kid).ok_or_else(|| format!("{kid} is not published"))?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&["identity"]);
        validation.set_issuer(&["identity"]);
        let key = DecodingKey::from_jwk(key).unwrap();
        decode(token, &key, &validation).map(|data| data.claims).map_err(|error| format!("{kid}: {error}"))
    }
}

/// What the clients have done up to now.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    with_eddsa: [AtomicUsize; CLIENTS],
    with_rs256: [AtomicUsize; CLIENTS],
}

impl Progress {
    fn all_have(counts: &[AtomicUsize; CLIENTS], at_least: usize) -> bool {
        counts.iter().all(|count| count.load(Ordering::SeqCst) >= at_least)
    }
}

/// Logs in at one server, asks the other who that is, and verifies the token by itself, again and again.
async fn client(number: usize, at: Client, other: Client, http: SocketAddr, progress: Arc<Progress>) {
    let email = format!("ada{number}@example.com");
    let mut verifier = Verifier::new(http).await;
    at.register(registration(&email)).await.unwrap();
    while !progress.stop.load(Ordering::SeqCst) {
        let token = at.login(&email, PASSWORD).await.unwrap().access_token;
        for server in [&at, &other] {
            server.get_user(Some(&token), "").await.unwrap();
        }
        verifier.verify(&token).await.unwrap();
        let algorithm = decode_header(&token).unwrap().alg;
        let counts = if algorithm == jsonwebtoken::Algorithm::RS256 {
            &progress.with_rs256
        } else {
            &progress.with_eddsa
        };
        counts[number].fetch_add(1, Ordering::SeqCst);
    }
}

async fn no_verification_fails_while_a_key_takes_over(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let variables = variables(&database.url, &[PROPAGATION]);
    let [mut first, mut second] =
        [Process::start(variables.clone()).await, Process::start(variables.clone()).await];
    let mut servers = Vec::new();
    for process in [&mut first, &mut second] {
        soon("the server is ready", process.examples()).await;
        servers.push((Client::new(&format!("http://{}", process.address)), process.http()));
    }
    let from_before = servers[0].0.register(registration("eve@example.com")).await.unwrap().access_token;

    let progress = Arc::new(Progress::default());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let ((at, _), (other, http)) = (&servers[number % 2], &servers[(number + 1) % 2]);
        clients.spawn(client(number, at.clone(), other.clone(), *http, Arc::clone(&progress)));
    }
    let mut under_way = async |what: &str, done: &dyn Fn() -> bool| {
        eventually(what, async || {
            if let Some(ended) = clients.try_join_next() {
                ended.unwrap();
                panic!("a client has ended");
            }
            done()
        })
        .await;
    };
    under_way("all have logged in with the old key", &|| Progress::all_have(&progress.with_eddsa, ROUNDS))
        .await;

    let rotate = ["keys", "rotate", "--token-algorithm", "RS256"];
    let (code, _, err) = soon("the key is made", identity(&rotate, &variables)).await;
    assert_eq!(code, Some(0), "{err}");
    under_way("all have logged in with the new key", &|| Progress::all_have(&progress.with_rs256, ROUNDS))
        .await;

    progress.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    for (server, http) in &servers {
        server.get_user(Some(&from_before), "").await.unwrap();
        Verifier::new(*http).await.verify(&from_before).await.unwrap();
    }
}
