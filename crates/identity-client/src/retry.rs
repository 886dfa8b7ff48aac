//! One call: its deadline, and the one repetition that it may get.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status};

use crate::error::Error;

/// How often a call may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempts {
    /// What would count or be done twice.
    One,
    /// What may be repeated.
    Two,
}

/// How long to wait before a repetition when the service suggested nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Nobody waits for longer, whatever the configuration says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The answer to what `send` sends, which is told how long the service has for it.
///
/// When the first attempt fails with what may pass by itself, and there is time for it, a second follows:
/// after the delay that the service suggested, and up to half as long again, so that those who were refused
/// together do not come back together.
pub(crate) async fn call<R, F>(
    timeout: Duration,
    attempts: Attempts,
    send: impl Fn(Duration) -> F,
) -> Result<R, Error>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let deadline = Instant::now() + timeout.min(LONGEST);
    let attempt = async || match timeout_at(deadline, send(deadline - Instant::now())).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(Error::from),
        Err(_) => Err(Error::deadline_exceeded()),
    };
    let error = match attempt().await {
        Err(error) if attempts == Attempts::Two && error.may_pass() => error,
        outcome => return outcome,
    };
    let pause = error.retry_after().unwrap_or(PAUSE).mul_f64(1.0 + fastrand::f64() / 2.0);
    if pause >= deadline - Instant::now() {
        return Err(error);
    }
    sleep(pause).await;
    attempt().await
}
