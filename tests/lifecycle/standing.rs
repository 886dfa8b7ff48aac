//! Two servers on one database: what one of them took away, the other one does not grant any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use identity::proto::v1::{
    CreateUserRequest, LoginResponse, Role, SetUserStateRequest, UpdateUserRequest, User, UserState,
};
use prost_types::FieldMask;
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use super::clients::{eventually, soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, reason, registration};

/// How many admins are disabled, one after the other.
const ADMINS: usize = 5;

/// How many calls of an admin are under way at any time.
const WORKERS: usize = 4;

/// How many users an admin has created when they are disabled.
const BEFORE: usize = 20;

/// How many calls a worker makes once the admin is known to be disabled.
const AFTERWARDS: usize = 10;

/// A bound for the calls of a worker, within what a user may change at once.
const MAX_CALLS: usize = 240;

const PAIRS: usize = 10;

/// Two servers on one database, and an owner of a tenant.
struct Bench {
    _processes: [Process; 2],
    one: Client,
    other: Client,
    owner: String,
    database: TestDatabase,
}

/// Somebody who is logged in.
#[derive(Clone)]
struct Person {
    id: String,
    token: String,
}

impl Bench {
    async fn start() -> Self {
        let database = TestDatabase::migrated(Engine::Postgres).await;
        let (one, one_client) = start_server(&database).await;
        let (other, other_client) = start_server(&database).await;
        let owner = one_client.register(registration("owner@example.com")).await.unwrap().access_token;
        Self { _processes: [one, other], one: one_client, other: other_client, owner, database }
    }

    async fn hire(&self, email: &str, role: Role) -> Person {
        create(&self.one, &self.owner, email, role).await.unwrap();
        let LoginResponse { user, access_token, .. } = self.one.login(email, PASSWORD).await.unwrap();
        Person { id: user.unwrap().id, token: access_token }
    }
}

async fn start_server(database: &TestDatabase) -> (Process, Client) {
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::patient(&format!("http://{}", process.address));
    (process, client)
}

async fn create(client: &Client, by: &str, email: &str, role: Role) -> Result<(), Status> {
    let message = CreateUserRequest {
        email: email.into(),
        password: PASSWORD.into(),
        first_name: "Grace".into(),
        last_name: "Hopper".into(),
        role: role.into(),
        ..CreateUserRequest::default()
    };
    client.directory.clone().create_user(client.request_by(by, message)).await.map(drop)
}

async fn demote(client: &Client, by: &Person, whom: &Person) -> Result<(), Status> {
    let user = User { id: whom.id.clone(), role: Role::Member.into(), ..User::default() };
    let update_mask = Some(FieldMask { paths: vec!["role".into()] });
    let message = UpdateUserRequest { user: Some(user), update_mask, ..UpdateUserRequest::default() };
    client.directory.clone().update_user(client.request_by(&by.token, message)).await.map(drop)
}

/// Creates users without a pause, also for a while after `is_disabled`. Counts those who were created, and those
/// who were created by a call that began after that.
#[derive(Default)]
struct Hiring {
    is_disabled: AtomicBool,
    created: AtomicUsize,
    created_afterwards: AtomicUsize,
}

impl Hiring {
    async fn work(self: Arc<Self>, client: Client, token: String, name: String) {
        let mut afterwards = 0;
        for number in 0..MAX_CALLS {
            let is_disabled = self.is_disabled.load(Ordering::SeqCst);
            match create(&client, &token, &format!("{name}-{number}@example.com"), Role::Member).await {
                Ok(()) if is_disabled => drop(self.created_afterwards.fetch_add(1, Ordering::SeqCst)),
                Ok(()) => drop(self.created.fetch_add(1, Ordering::SeqCst)),
                Err(status) => {
                    let refusal = (status.code(), reason(&status));
                    assert_eq!(refusal, (Code::Unauthenticated, "TOKEN_INVALID".into()), "{status:?}");
                }
            }
            afterwards += usize::from(is_disabled);
            if afterwards == AFTERWARDS {
                return;
            }
        }
        panic!("the admin was not disabled in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_who_was_disabled_through_one_server_creates_nobody_through_another() {
    let bench = Bench::start().await;
    for number in 0..ADMINS {
        let admin = bench.hire(&format!("admin{number}@example.com"), Role::Admin).await;
        let hiring = Arc::new(Hiring::default());
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let name = format!("user{number}-{worker}");
            workers.spawn(Arc::clone(&hiring).work(bench.one.clone(), admin.token.clone(), name));
        }
        eventually("users are created", async || hiring.created.load(Ordering::SeqCst) >= BEFORE).await;
        let state = UserState::Disabled.into();
        let message = SetUserStateRequest { user_id: admin.id.clone(), state, ..Default::default() };
        let request = bench.other.request_by(&bench.owner, message);
        bench.other.directory.clone().set_user_state(request).await.map(Response::into_inner).unwrap();
        hiring.is_disabled.store(true, Ordering::SeqCst);
        soon("all calls are answered", workers.join_all()).await;

        assert_eq!(hiring.created_afterwards.load(Ordering::SeqCst), 0);
        let created = format!(
            "SELECT count(*) FROM audit_events WHERE action = 'user.created' AND actor_id = '{}'",
            admin.id
        );
        let answered = i64::try_from(hiring.created.load(Ordering::SeqCst)).unwrap();
        assert_eq!(bench.database.number(&created), answered);
        let disabled = format!(
            "SELECT occurred_at FROM audit_events WHERE action = 'user.disabled' AND target_id = '{}'",
            admin.id
        );
        let too_late = format!("{created} AND occurred_at > ({disabled})");
        assert_eq!(bench.database.number(&too_late), 0);
        assert_eq!(bench.database.number(&format!("SELECT count(*) FROM ({disabled}) AS told")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_who_demote_each_other_through_two_servers_one_succeeds() {
    let bench = Bench::start().await;
    for pair in 0..PAIRS {
        let one = bench.hire(&format!("one{pair}@example.com"), Role::Owner).await;
        let other = bench.hire(&format!("other{pair}@example.com"), Role::Owner).await;
        let both =
            async { tokio::join!(demote(&bench.one, &one, &other), demote(&bench.other, &other, &one)) };
        let refused = match soon("both are answered", both).await {
            (Ok(()), Err(status)) | (Err(status), Ok(())) => status,
            both => panic!("{both:?}"),
        };
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_TOO_LOW"));
        let owners = format!(
            "SELECT count(*) FROM users WHERE id IN ('{}', '{}') AND role = 'owner'",
            one.id, other.id
        );
        assert_eq!(bench.database.number(&owners), 1);
    }
}
