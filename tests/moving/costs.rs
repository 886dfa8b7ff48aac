//! What running servers learn of imported password hashes.

use std::time::Duration;

use crate::fixture::{HASH, Place, tenant, user, with};
use crate::support::service::{Engine, TestService, on_both_databases};
use crate::support::wait::eventually_within;

on_both_databases!(a_server_learns_of_dearer_hashes_within_seconds_of_their_import);

/// Shorter than a server rests between two walks through all hashes, which is a minute at least.
const SECONDS: Duration = Duration::from_secs(30);

async fn refusals_come_to_cost(service: &TestService, expected: f64) {
    let cost = async || service.metric("identity_password_refusal_cost").await;
    eventually_within(SECONDS, "refusals have the cost", async || cost().await == expected).await;
}

async fn a_server_learns_of_dearer_hashes_within_seconds_of_their_import(engine: Engine) {
    let place = Place::new(engine).await;
    let of_cost = |n: usize, cost: &str| with(user(n, 1), "password_hash", HASH.replace("$04$", cost));
    place.import_lines(&[tenant(1), of_cost(1, "$04$"), of_cost(2, "$05$")]).await.ok();
    let service = TestService::start_with(place.database.again(), &[("IDENTITY_BCRYPT_COST", "4")]).await;
    refusals_come_to_cost(&service, 5.0).await;

    place.import_lines(&[tenant(1), of_cost(3, "$06$"), of_cost(4, "$04$")]).await.ok();
    refusals_come_to_cost(&service, 6.0).await;
    // Each batch is counted once, at its dearest hash, and what was there already is none.
    place.import_lines(&[tenant(1), of_cost(3, "$06$"), of_cost(5, "$06$")]).await.ok();
    place.import_lines(&[tenant(1), of_cost(3, "$06$")]).await.ok();
    let counted =
        "SELECT CAST(cost AS TEXT) || ' ' || CAST(batches AS TEXT) AS cell FROM imported_costs ORDER BY cost";
    assert_eq!(place.outside().await.texts(counted).await, ["5 1", "6 2"]);
    service.stop().await;
}
