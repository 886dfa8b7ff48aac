//! Answers whether the process lives and whether it serves: `grpc.health.v1.Health`.
//!
//! tonic-health's own reporter is not used: there `""` serves from the start whatever becomes of
//! the rest, and Watch refuses names that it does not know. Rules: the gRPC health checking
//! protocol, and the comments in its `health.proto`.

use std::collections::HashSet;
use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The name whose status says that the process lives, whatever it depends on.
pub const LIVENESS: &str = "liveness";

/// The name whose status says that the process serves calls.
pub const READINESS: &str = "readiness";

/// The largest message that the health service reads, in bytes: a name and its frame.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// Where in its life the process is, as far as clients may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unready,
    Ready,
    Stopping,
}

/// Says what the health service answers. All clones speak for the same service.
#[derive(Clone, Debug)]
pub struct HealthHandle {
    phase: watch::Sender<Phase>,
}

impl HealthHandle {
    /// Says whether the process serves: the status of every name but `liveness`. Without effect
    /// after [`HealthHandle::stop`].
    pub fn set_ready(&self, ready: bool) {
        let next = if ready { Phase::Ready } else { Phase::Unready };
        self.phase.send_if_modified(|phase| {
            let changes = *phase != Phase::Stopping && *phase != next;
            if changes {
                *phase = next;
            }
            changes
        });
    }

    /// Whether the process serves, as `readiness` tells it.
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Ready
    }

    /// Says, for good, that the process stops serving, and ends every Watch after telling it so.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Waits until the process serves.
    pub(super) async fn ready(&self) {
        // Fails only without a sender, and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Ready).await;
    }

    async fn stopped(&self) {
        // Fails only without a sender, and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Stopping).await;
    }
}

/// The health service, to be added to the routes, and the handle that says what it answers. Not
/// ready at first.
///
/// `services` are the full names of the gRPC services that share the readiness of the process.
pub fn service<'a>(
    services: impl IntoIterator<Item = &'a str>,
) -> (HealthHandle, HealthServer<HealthService>) {
    let (phase, _) = watch::channel(Phase::Unready);
    let following = ["", READINESS].into_iter().chain(services).map(str::to_owned).collect();
    let service = HealthService { phase: phase.clone(), following };
    let server = HealthServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    (HealthHandle { phase }, server)
}

/// What a name is to the health service.
#[derive(Clone, Copy)]
enum Name {
    Liveness,
    /// Serves when the process does.
    Following,
    Unknown,
}

impl Name {
    fn status(self, phase: Phase) -> ServingStatus {
        match (self, phase) {
            (Self::Liveness, _) | (Self::Following, Phase::Ready) => ServingStatus::Serving,
            (Self::Following, Phase::Unready | Phase::Stopping) => ServingStatus::NotServing,
            (Self::Unknown, _) => ServingStatus::ServiceUnknown,
        }
    }
}

/// Answers Check and Watch. Unknown names are NOT_FOUND in Check and SERVICE_UNKNOWN in Watch, whose
/// stream stays open until the process stops.
#[derive(Debug)]
pub struct HealthService {
    phase: watch::Sender<Phase>,
    following: HashSet<String>,
}

impl HealthService {
    fn name(&self, name: &str) -> Name {
        if name == LIVENESS {
            Name::Liveness
        } else if self.following.contains(name) {
            Name::Following
        } else {
            Name::Unknown
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.name(&request.get_ref().service).status(*self.phase.borrow()) {
            // health.proto: an unknown name is an error here, and a status in Watch only.
            ServingStatus::ServiceUnknown => Err(Status::not_found("There is no service of that name.")),
            status @ (ServingStatus::Unknown | ServingStatus::Serving | ServingStatus::NotServing) => {
                Ok(Response::new(reply(status)))
            }
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = self.name(&request.get_ref().service);
        let watch = Watch { name, phases: self.phase.subscribe(), told: None };
        Ok(Response::new(Box::pin(unfold(watch, Watch::next))))
    }
}

/// One client that watches one name.
struct Watch {
    name: Name,
    phases: watch::Receiver<Phase>,
    /// The status that the client knows.
    told: Option<ServingStatus>,
}

impl Watch {
    /// The next status that differs from the one before, or `None` once the process stops.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let phase = *self.phases.borrow_and_update();
            let status = self.name.status(phase);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(reply(status)), self));
            }
            if phase == Phase::Stopping {
                return None;
            }
            self.phases.changed().await.ok()?;
        }
    }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// How readiness follows a probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings {
    /// From the beginning of one probe to the beginning of the next.
    pub interval: Duration,
    /// How long one probe may take; then it has failed.
    pub timeout: Duration,
    /// How many probes in a row must fail before the process counts as not ready.
    pub failures_to_unready: u32,
    /// How many probes in a row must succeed before the process counts as ready.
    pub successes_to_ready: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            // One lost packet is no reason to take a process out of service.
            failures_to_unready: 2,
            successes_to_ready: 1,
        }
    }
}

/// Makes readiness follow `probe`, from what `handle` says now, until [`HealthHandle::stop`]. The first
/// probe begins at once; a probe that takes too long is dropped. Changes are logged, single failures are
/// not.
pub async fn follow<E: Display, P: Future<Output = Result<(), E>>>(
    handle: HealthHandle,
    probe: impl Fn() -> P,
    settings: ProbeSettings,
) {
    let stopped = handle.stopped();
    let following = async {
        let mut readiness = Readiness::new(settings, *handle.phase.borrow() == Phase::Ready);
        let mut ticks = interval(settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result = bounded(probe(), settings.timeout).await;
            if let Some(ready) = readiness.after(result) {
                handle.set_ready(ready);
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        () = following => {}
    }
}

/// The outcome of `probe`, with its error as text.
async fn bounded<E: Display>(
    probe: impl Future<Output = Result<(), E>>,
    limit: Duration,
) -> Result<(), String> {
    match timeout(limit, probe).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the probe took too long".to_owned()),
    }
}

/// Readiness with hysteresis.
struct Readiness {
    settings: ProbeSettings,
    ready: bool,
    /// How many probes in a row spoke against `ready`.
    against: u32,
}

impl Readiness {
    fn new(settings: ProbeSettings, ready: bool) -> Self {
        Self { settings, ready, against: 0 }
    }

    /// Whether the process is ready now, if `result` changes that.
    fn after(&mut self, result: Result<(), String>) -> Option<bool> {
        if result.is_ok() == self.ready {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed =
            if self.ready { self.settings.failures_to_unready } else { self.settings.successes_to_ready };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.ready = result.is_ok();
        match result {
            Ok(()) => tracing::info!("ready: what the service depends on answers"),
            Err(error) => tracing::warn!(error, "not ready: what the service depends on does not answer"),
        }
        Some(self.ready)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    fn readiness(settings: ProbeSettings) -> impl FnMut(bool) -> Option<bool> {
        let mut readiness = Readiness::new(settings, false);
        move |success| readiness.after(if success { Ok(()) } else { Err("away".to_owned()) })
    }

    #[test]
    fn readiness_changes_only_after_enough_probes_in_a_row() {
        let settings =
            ProbeSettings { failures_to_unready: 2, successes_to_ready: 2, ..ProbeSettings::default() };
        let mut after = readiness(settings);
        let probes = [false, true, false, true, true, true, false, true, false, false, false, true];
        let changes: Vec<_> = probes.into_iter().map(&mut after).collect();
        let expected = [(4, true), (9, false)];
        for (index, change) in changes.into_iter().enumerate() {
            let expected = expected.iter().find(|(at, _)| *at == index).map(|&(_, ready)| ready);
            assert_eq!(change, expected, "after probe {index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_declared_ready_stops_being_so_when_no_probe_ever_succeeds() {
        let (handle, _) = service([]);
        handle.set_ready(true);
        let probes = RefCell::new(0);
        let probe = async || {
            *probes.borrow_mut() += 1;
            Err("away")
        };
        let mut phases = handle.phase.subscribe();
        tokio::select! {
            () = follow(handle.clone(), probe, ProbeSettings::default()) => unreachable!("nobody stops it"),
            phase = phases.wait_for(|phase| *phase != Phase::Ready) => {
                assert_eq!(*phase.unwrap(), Phase::Unready);
            }
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("still ready"),
        }
        assert_eq!(*probes.borrow(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_follows_the_probe_and_a_probe_that_hangs_counts_as_failed() {
        let (handle, _) = service([]);
        let began = tokio::time::Instant::now();
        // When each probe began, and whether the process counted as ready then.
        let seen = RefCell::new(Vec::new());
        let probe = async || {
            let ready = *handle.phase.borrow() == Phase::Ready;
            seen.borrow_mut().push((began.elapsed().as_secs(), ready));
            let probes = seen.borrow().len();
            if probes == 5 {
                handle.stop();
            }
            if probes > 2 {
                pending::<()>().await;
            }
            Ok::<(), &str>(())
        };
        follow(handle.clone(), probe, ProbeSettings::default()).await;
        assert_eq!(*seen.borrow(), [(0, false), (1, true), (2, true), (3, true), (4, false)]);
    }
}
