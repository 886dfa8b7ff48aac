//! Waits for what a server, a thread or another process does in its own time.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks `condition` again and again until it holds; `what` that would mean is what a failure says.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(LIMIT, what, condition).await;
}

/// As [`eventually`], where the time it may take matters.
pub(crate) async fn eventually_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(PAUSE).await;
        }
    };
    assert!(timeout(limit, polling).await.is_ok(), "not within {limit:?}: {what}");
}
