//! A server that is killed amid changes of the directory: what is written and what the audit log tells agree.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::proto::v1::{
    CreateUserRequest, DeleteUserRequest, RevokeUserSessionsRequest, Role, SetUserStateRequest, Tenant,
    UpdateTenantRequest, UpdateUserRequest, User, UserState,
};
use prost_types::FieldMask;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Request, Status};

use super::clients::{soon, variables};
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};

on_both_databases!(no_change_is_without_its_event_after_a_kill);

const WORKERS: usize = 24;
/// How many changes are acknowledged when the kill comes.
const BEFORE_THE_KILL: usize = 400;
const LONG_PATIENCE: Duration = Duration::from_secs(120);

/// What each of these finds is a change without its event, or an event without its change.
const DISAGREEMENTS: [&str; 6] = [
    // A user's version counts the changes.
    "SELECT count(*) FROM users u WHERE u.version <> (SELECT count(*) FROM audit_events e \
     WHERE e.tenant_id = u.tenant_id AND e.target_id = u.id \
     AND e.action IN ('user.created', 'user.updated', 'user.disabled', 'user.enabled'))",
    "SELECT count(*) FROM tenants t WHERE t.version <> (SELECT count(*) FROM audit_events e \
     WHERE e.tenant_id = t.id AND e.target_id = t.id AND e.action IN ('tenant.created', 'tenant.updated'))",
    // Who was created is there, or was deleted; not both.
    "SELECT count(*) FROM audit_events e WHERE e.action = 'user.created' AND 1 <> \
     (SELECT count(*) FROM users u WHERE u.tenant_id = e.tenant_id AND u.id = e.target_id) + \
     (SELECT count(*) FROM audit_events d WHERE d.tenant_id = e.tenant_id AND d.target_id = e.target_id \
     AND d.action = 'user.deleted')",
    "SELECT count(*) FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM audit_events e \
     WHERE e.tenant_id = s.tenant_id AND e.target_id = s.id AND e.action = 'session.opened')",
    "SELECT count(*) FROM audit_events e WHERE e.action = 'session.opened' AND NOT EXISTS \
     (SELECT 1 FROM sessions s WHERE s.tenant_id = e.tenant_id AND s.id = e.target_id) AND NOT EXISTS \
     (SELECT 1 FROM audit_events d WHERE d.tenant_id = e.tenant_id AND d.target_id = e.actor_id \
     AND d.action = 'user.deleted')",
    // Of a user whose sessions were ended, by whatever, that was told.
    "SELECT count(*) FROM sessions s WHERE s.revoked_at IS NOT NULL AND NOT EXISTS \
     (SELECT 1 FROM audit_events e WHERE e.tenant_id = s.tenant_id AND e.target_id = s.user_id \
     AND e.action IN ('user.disabled', 'user.sessions_revoked', 'user.updated'))",
];

async fn no_change_is_without_its_event_after_a_kill(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let load = Load::start(process.address).await;
    load.acknowledged(BEFORE_THE_KILL).await;
    process.signal("KILL");
    let acknowledged = load.ended().await;
    let (status, log) = process.ended().await;
    assert_eq!(status.code(), None, "{log}");

    for disagreement in DISAGREEMENTS {
        assert_eq!(database.number(disagreement), 0, "{disagreement}");
    }
    for call in &acknowledged {
        let told = format!("SELECT count(*) FROM audit_events WHERE request_id = '{call}'");
        assert_eq!(database.number(&told), 1, "{call}");
    }
    assert!(acknowledged.len() >= BEFORE_THE_KILL);
    for action in ["user.created", "user.updated", "user.disabled", "user.deleted", "session.opened"] {
        let told = format!("SELECT count(*) FROM audit_events WHERE action = '{action}'");
        assert!(database.number(&told) > 1, "{action}: the load was none");
    }
}

/// Changes of a tenant by many at once, until the server is gone.
struct Load {
    workers: JoinSet<()>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Load {
    async fn start(address: SocketAddr) -> Self {
        let client = Client::patient(&format!("http://{address}"));
        let owner = client.register(registration("owner@example.com")).await.unwrap();
        let acknowledged = Arc::<Mutex<Vec<String>>>::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let mut changes = Changes {
                client: Client::patient(&format!("http://{address}")),
                token: owner.access_token.clone(),
                acknowledged: Arc::clone(&acknowledged),
                calls: Arc::clone(&calls),
            };
            workers.spawn(async move {
                let mut round = 0;
                while changes.round(&format!("user{worker}-{round}@example.com")).await.is_ok() {
                    round += 1;
                }
            });
        }
        Self { workers, acknowledged }
    }

    async fn acknowledged(&self, count: usize) {
        let enough = async {
            while self.acknowledged.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG_PATIENCE, enough).await.expect("some are acknowledged in time");
    }

    /// The request ids of the changes that were acknowledged.
    async fn ended(self) -> Vec<String> {
        timeout(LONG_PATIENCE, self.workers.join_all()).await.expect("all calls end in time");
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

struct Changes {
    client: Client,
    token: String,
    acknowledged: Arc<Mutex<Vec<String>>>,
    calls: Arc<AtomicUsize>,
}

impl Changes {
    fn request<T>(&self, message: T) -> (String, Request<T>) {
        let id = format!("call-{}", self.calls.fetch_add(1, Ordering::Relaxed));
        let mut request = self.client.request_by(&self.token, message);
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        (id, request)
    }

    fn acknowledge(&self, call: String) {
        self.acknowledged.lock().unwrap().push(call);
    }

    /// A user comes, is changed, logs in, is shut out, and goes, unless he is one of those who stay.
    async fn round(&mut self, email: &str) -> Result<(), Status> {
        let mut directory = self.client.directory.clone();
        let (call, request) = self.request(CreateUserRequest {
            email: email.into(),
            password: PASSWORD.into(),
            first_name: "Grace".into(),
            last_name: "Hopper".into(),
            role: Role::Member.into(),
            ..CreateUserRequest::default()
        });
        let user_id = directory.create_user(request).await?.into_inner().user.unwrap().id;
        self.acknowledge(call);

        let user = User { id: user_id.clone(), first_name: "Rear Admiral".into(), ..User::default() };
        let update_mask = Some(FieldMask { paths: vec!["first_name".into()] });
        let (call, request) =
            self.request(UpdateUserRequest { user: Some(user), update_mask, ..UpdateUserRequest::default() });
        directory.update_user(request).await?;
        self.acknowledge(call);

        self.client.login(email, PASSWORD).await?;
        let (call, request) =
            self.request(RevokeUserSessionsRequest { user_id: user_id.clone(), ..Default::default() });
        directory.revoke_user_sessions(request).await?;
        self.acknowledge(call);

        self.client.login(email, PASSWORD).await?;
        let state = UserState::Disabled.into();
        let (call, request) =
            self.request(SetUserStateRequest { user_id: user_id.clone(), state, ..Default::default() });
        directory.set_user_state(request).await?;
        self.acknowledge(call);

        let tenant = Tenant { name: format!("{email}'s"), ..Tenant::default() };
        let update_mask = Some(FieldMask { paths: vec!["name".into()] });
        let (call, request) = self.request(UpdateTenantRequest { tenant: Some(tenant), update_mask });
        directory.update_tenant(request).await?;
        self.acknowledge(call);

        if user_id.ends_with(['0', '1', '2', '3', '4', '5', '6', '7']) {
            let (call, request) = self.request(DeleteUserRequest { user_id, ..Default::default() });
            directory.delete_user(request).await?;
            self.acknowledge(call);
        }
        Ok(())
    }
}
