//! A large tenant is deleted: the reply comes at once, its rows go in the background, whatever becomes of the
//! process.

use std::time::Duration;

use identity::proto::v1::{DeleteTenantRequest, RegisterResponse, Tenant, UpdateTenantRequest};
use prost_types::FieldMask;

use super::clients::{eventually, soon, variables};
use crate::support::crowd::Crowd;
use crate::support::process::Process;
use crate::support::service::{Client, Engine, PASSWORD, TestDatabase, on_both_databases, registration};
use crate::support::wait::eventually_within;

on_both_databases!(
    a_removal_that_is_killed_goes_on_after_the_next_start,
    others_go_on_while_a_large_tenant_is_removed,
);

/// Beside the owner: what twenty transactions remove.
const USERS: i64 = 2_000;

const DELETED: &str = "SELECT count(*) FROM tenants WHERE deleted_at IS NOT NULL";
/// Of those users, each of whom has a name and a password as the database was filled.
const LEFT: [&str; 3] = [
    "SELECT count(*) FROM passwords WHERE hash = 'h'",
    "SELECT count(*) FROM users WHERE email LIKE 'u%'",
    "SELECT count(*) FROM login_names WHERE email_normalized LIKE 'u%'",
];

/// A process with a tenant of so many users.
async fn with_large_tenant(database: &TestDatabase) -> (Process, Client, RegisterResponse) {
    let mut process = Process::start(variables(&database.url, &[])).await;
    soon("the server is ready", process.examples()).await;
    let client = Client::patient(&format!("http://{}", process.address));
    let owner = client.register(registration("owner@example.com")).await.unwrap();
    database.fill(Crowd { initial: 'u', users: USERS, after: 0 });
    (process, client, owner)
}

async fn delete(client: &Client, owner: &RegisterResponse) {
    let tenant_id = owner.user.as_ref().unwrap().tenant_id.clone();
    let message = DeleteTenantRequest { tenant_id, ..DeleteTenantRequest::default() };
    let request = client.request_by(&owner.access_token, message);
    client.directory.clone().delete_tenant(request).await.unwrap();
}

/// The slower the machine, the longer the pauses.
const LONG: Duration = Duration::from_secs(240);

async fn removed(database: &TestDatabase) {
    eventually_within(LONG, "nothing is left", async || database.number(DELETED) == 0).await;
}

async fn a_removal_that_is_killed_goes_on_after_the_next_start(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let (process, client, owner) = with_large_tenant(&database).await;
    delete(&client, &owner).await;
    eventually("the removal has begun", async || database.number(LEFT[0]) < USERS).await;
    process.signal("KILL");
    process.ended().await;
    let left = database.number(LEFT[0]);
    assert!(left > 0 && left < USERS, "{left}");
    // A transaction removes a user with all that is theirs, or nothing.
    assert_eq!(LEFT.map(|left| database.number(left)), [left; 3]);

    // Two go on together.
    let mut processes = Vec::new();
    for _ in 0..2 {
        let mut process = Process::start(variables(&database.url, &[])).await;
        soon("the server is ready", process.examples()).await;
        processes.push(process);
    }
    let client = Client::patient(&format!("http://{}", processes[0].address));
    client.login("owner@example.com", PASSWORD).await.unwrap_err();
    client.register(registration("owner@example.com")).await.unwrap();
    removed(&database).await;
    assert_eq!(database.number("SELECT count(*) FROM users"), 1);
    let told = format!(
        "SELECT count(*) FROM audit_events WHERE action = 'tenant.erased' AND changes LIKE '%\"{}\"%'",
        USERS + 1
    );
    assert_eq!(database.number(&told), 1, "all who were removed are counted, before the kill and after it");
    assert_eq!(database.number("SELECT count(*) FROM audit_events WHERE action = 'tenant.erased'"), 1);
}

async fn others_go_on_while_a_large_tenant_is_removed(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let (_process, client, owner) = with_large_tenant(&database).await;
    let other = client.register(registration("other@example.com")).await.unwrap();
    delete(&client, &owner).await;
    // The names of those who are removed are free meanwhile, and nobody's writes fail.
    let (mut renamed, mut taken_over) = (0, 0);
    while database.number(LEFT[0]) > 0 {
        let tenant = Tenant { name: format!("Number {renamed}"), ..Tenant::default() };
        let update_mask = Some(FieldMask { paths: vec!["name".into()] });
        let message = UpdateTenantRequest { tenant: Some(tenant), update_mask };
        let request = client.request_by(&other.access_token, message);
        client.directory.clone().update_tenant(request).await.unwrap();
        renamed += 1;
        if renamed % 16 == 0 {
            let email = format!("u{}@example.com", USERS - taken_over);
            client.register(registration(&email)).await.unwrap();
            taken_over += 1;
        }
    }
    assert!(renamed > 16, "{renamed}");
    removed(&database).await;
    for table in ["users", "login_names", "passwords"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")), taken_over + 1, "{table}");
    }
    for n in 0..taken_over {
        client.login(&format!("u{}@example.com", USERS - n), PASSWORD).await.unwrap();
    }
}
