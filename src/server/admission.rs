//! Which connections are open, from where, and which has to go so that a newcomer finds a place.
//!
//! Nobody waits for a place: when the limit is reached, the longest idle connection of the source that has
//! most makes room, and when a source has reached its share, its own longest idle one. A connection that has
//! to go gets a GOAWAY and a moment, and goes at once when too many have such a moment already. So there are
//! never more descriptors in use than [`AdmissionSettings::max_descriptors`].
//! Ending a connection as it is told is left to `connection`.

mod open;
mod registry;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budgets::{Budgets, ConnectionBytes};
use crate::domain::Source;
use crate::telemetry::metrics::{self, Counter, Counters, Label as _, Registry as Metrics, label};
use registry::{Place, Registry};

pub(super) use open::OpenConnection;

/// How often the log says that the limit or a share is reached.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionSettings {
    /// How many may be open. Those that have been told to go are not counted.
    pub max_connections: NonZeroUsize,
    /// How many of them one source may have.
    pub max_per_source: NonZeroUsize,
    /// How many streams a client may reset at once before their replies are complete.
    pub reset_burst: u32,
    /// How many it may reset in the long run, each second.
    pub resets_per_second: u32,
}

impl AdmissionSettings {
    /// The limits for connections, `share` percent of which one source may have.
    pub fn new(max_connections: NonZeroUsize, share: u32) -> Self {
        let max_per_source = max_connections.get().saturating_mul(share.min(100) as usize) / 100;
        Self {
            max_connections,
            max_per_source: NonZeroUsize::new(max_per_source).unwrap_or(NonZeroUsize::MIN),
            // A client's deadlines may pass for all of its streams at once, several times in a row.
            reset_burst: 1_000,
            resets_per_second: 200,
        }
    }

    /// How many connections that have been told to go may linger.
    fn max_leaving(&self) -> usize {
        leaving(self.max_connections.get())
    }

    /// How many file descriptors connections take at most.
    pub fn max_descriptors(&self) -> usize {
        self.max_connections.get() + self.max_leaving() + ARRIVING
    }

    /// The most connections, up to `wanted`, that take no more than `descriptors`.
    pub fn connections_within(wanted: NonZeroUsize, descriptors: usize) -> NonZeroUsize {
        let within = descriptors.saturating_sub(ARRIVING + 1) * LEAVING_PART / (LEAVING_PART + 1);
        NonZeroUsize::new(within).unwrap_or(NonZeroUsize::MIN).min(wanted)
    }
}

/// One connection is accepted before room is made for it.
const ARRIVING: usize = 1;

/// For every so many connections, one that has been told to go may linger.
const LEAVING_PART: usize = 16;

fn leaving(max_connections: usize) -> usize {
    (max_connections / LEAVING_PART).max(1)
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self::new(NonZeroUsize::new(10_000).expect("10,000 is not 0"), 50)
    }
}

label! {
    /// Why a connection was closed by the server.
    pub enum Closed: "reason" {
        /// The limit was reached.
        Limit = "limit",
        /// Its source had reached its share.
        Share = "share",
        /// Nothing was called on it for too long.
        Idle = "idle",
        /// It was too old.
        Age = "age",
        /// The client's certificate was valid no longer.
        Certificate = "certificate",
        /// Its client reset too many streams.
        Resets = "resets",
        /// Its client read nothing for too long.
        Stalled = "stalled",
    }
}

/// The connections to one port. All clones are the same.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: AdmissionSettings,
    budgets: Budgets,
    registry: Mutex<Registry>,
    /// Told when a connection has gone.
    gone: Notify,
    closed: Counters<Closed>,
    malformed: Counter,
    warned: Mutex<Option<Instant>>,
}

impl Admission {
    /// No connections yet, whose calls share `budgets` with others.
    pub fn new(settings: AdmissionSettings, budgets: Budgets) -> Self {
        Self(Arc::new(Shared {
            settings,
            budgets,
            registry: Mutex::default(),
            gone: Notify::new(),
            closed: Counters::default(),
            malformed: Counter::default(),
            warned: Mutex::default(),
        }))
    }

    /// How many connections are open, those included that have been told to go.
    pub fn open(&self) -> usize {
        let registry = self.registry();
        registry.staying() + registry.leaving()
    }

    /// How many may be open.
    pub fn limit(&self) -> usize {
        self.0.settings.max_connections.get()
    }

    /// How many one source may have.
    pub fn limit_per_source(&self) -> usize {
        self.0.settings.max_per_source.get()
    }

    /// How many the server has closed for a reason.
    pub fn closed(&self, reason: Closed) -> u64 {
        self.0.closed.of(reason).get()
    }

    pub(super) fn count_closed(&self, reason: Closed) {
        self.0.closed.of(reason).inc();
    }

    pub(super) fn count_malformed(&self) {
        self.0.malformed.inc();
    }

    /// A place for a connection from `source`, held until it is dropped. Waits only while more connections
    /// are on their way out than there may be, which takes their tasks a moment.
    pub(super) async fn admit(&self, source: Source) -> Slot {
        loop {
            let gone = self.0.gone.notified();
            if let Some(slot) = self.try_admit(source) {
                return slot;
            }
            gone.await;
        }
    }

    fn try_admit(&self, source: Source) -> Option<Slot> {
        let settings = &self.0.settings;
        let mut registry = self.registry();
        let displaced = if registry.of(source) >= settings.max_per_source.get() {
            registry.displace(Some(source)).map(|victim| (victim, Closed::Share))
        } else if registry.staying() >= settings.max_connections.get() {
            registry.displace(None).map(|victim| (victim, Closed::Limit))
        } else {
            None
        };
        if let Some((victim, reason)) = displaced {
            self.count_closed(reason);
            self.warn(reason);
            victim.tell_to_go(reason);
        }
        let all = registry.staying() + registry.leaving();
        if all >= settings.max_connections.get() + settings.max_leaving() {
            registry.hurry();
            return None;
        }
        let place = registry.add(source, |source_use| {
            let bytes = ConnectionBytes::new(self.0.budgets.clone(), source_use);
            OpenConnection::new(bytes, settings)
        });
        Some(Slot { admission: self.clone(), place })
    }

    fn warn(&self, reason: Closed) {
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARNING_PERIOD) {
            return;
        }
        *warned = Some(Instant::now());
        tracing::warn!(
            limit = reason.name(),
            connections = self.limit(),
            connections_per_source = self.limit_per_source(),
            "connection limit reached: the longest idle connection makes room for each new one"
        );
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the metrics of the connections to each port to those of the process.
pub(super) fn register(ports: &[(&'static str, Admission)], registry: &mut Metrics) {
    let by_port = || ports.iter().map(|(port, admission)| (vec![("port", *port)], admission.clone()));
    metrics::register_gauges(registry, "connections", "Open connections", by_port(), Admission::open);
    let help = "Connections that may be open";
    metrics::register_gauges(registry, "connections_limit", help, by_port(), Admission::limit);
    let help = "Connections that one source may have";
    let limit = Admission::limit_per_source;
    metrics::register_gauges(registry, "connections_limit_per_source", help, by_port(), limit);
    let help = "Connections that the server closed";
    let closed = by_port().flat_map(|(port, admission)| admission.0.closed.series(&port));
    metrics::register_series(registry, "connections_closed", help, closed);
    let help = "Streams that the server reset because their requests break a rule of HTTP/2";
    let malformed = by_port().map(|(port, admission)| (port, admission.0.malformed.clone()));
    metrics::register_series(registry, "streams_malformed", help, malformed);
}

/// The place of one connection among all.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Admission,
    place: Place,
}

impl Slot {
    pub(super) fn connection(&self) -> &Arc<OpenConnection> {
        self.place.connection()
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Tells the connection to go, unless it has been told, and counts it.
    pub(super) fn close(&self, reason: Closed) {
        if self.connection().tell_to_go(reason) {
            self.admission.count_closed(reason);
            // It no longer takes the place of a newcomer.
            self.admission.registry().leave(&self.place);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.registry().remove(&self.place);
        self.admission.0.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::open::Told;
    use super::*;
    use crate::server::budgets::BudgetSettings;

    fn admission(max_connections: usize, max_per_source: usize) -> Admission {
        let count = |number| NonZeroUsize::new(number).unwrap();
        let settings = AdmissionSettings {
            max_per_source: count(max_per_source),
            ..AdmissionSettings::new(count(max_connections), 100)
        };
        Admission::new(settings, Budgets::new(BudgetSettings::default()))
    }

    fn source(last: u8) -> Source {
        Source::of(Some([192, 0, 2, last].into()))
    }

    fn told(slot: &Slot) -> Option<Told> {
        slot.connection().told()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_of_the_largest_source_makes_room() {
        let admission = admission(4, 4);
        let good = admission.admit(source(1)).await;
        let mut bad = Vec::new();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            bad.push(admission.admit(source(2)).await);
        }
        // The first was used last.
        tokio::time::advance(Duration::from_secs(1)).await;
        bad[0].connection().call_began();
        bad[0].connection().call_ended(false);
        let newcomer = admission.admit(source(3)).await;
        assert_eq!(told(&good), None);
        let told: Vec<_> = bad.iter().map(told).collect();
        assert_eq!(told, [None, Some(Told { reason: Closed::Limit, at_once: false }), None]);
        assert_eq!(admission.closed(Closed::Limit), 1);
        drop((good, bad, newcomer));
        assert_eq!(admission.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_has_its_share_makes_room_for_itself() {
        let admission = admission(100, 2);
        let others = admission.admit(source(1)).await;
        let first = admission.admit(source(2)).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = admission.admit(source(2)).await;
        let _third = admission.admit(source(2)).await;
        assert_eq!(told(&first).map(|told| told.reason), Some(Closed::Share));
        assert_eq!((told(&others), told(&second)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_go_before_watches_and_watches_before_calls() {
        let admission = admission(3, 3);
        let calls = admission.admit(source(1)).await;
        calls.connection().call_began();
        let watches = admission.admit(source(1)).await;
        watches.connection().call_began();
        watches.connection().watch_began();
        tokio::time::advance(Duration::from_secs(1)).await;
        let idle = admission.admit(source(1)).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let _fourth = admission.admit(source(2)).await;
        assert_eq!(
            [told(&calls), told(&watches), told(&idle)].map(|told| told.is_some()),
            [false, false, true]
        );
        drop(idle);
        let _fifth = admission.admit(source(3)).await;
        assert_eq!([told(&calls), told(&watches)].map(|told| told.is_some()), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_linger_too_numerously_go_at_once_and_never_exceed_the_descriptors() {
        let admission = admission(2, 2);
        let first = admission.admit(source(1)).await;
        let second = admission.admit(source(1)).await;
        let _third = admission.admit(source(1)).await;
        assert!(!told(&first).unwrap().at_once);
        // One may linger, and does until the next has to.
        let fourth = admission.admit(source(1));
        let mut fourth = std::pin::pin!(fourth);
        assert!(futures_util::poll!(&mut fourth).is_pending());
        assert!(told(&first).is_some_and(|told| told.at_once));
        assert!(told(&second).is_some_and(|told| !told.at_once));
        assert!(admission.open() < AdmissionSettings::max_descriptors(&admission.0.settings));
        drop(first);
        let _fourth = fourth.await;
    }

    #[test]
    fn connections_take_no_more_descriptors_than_they_may() {
        let wanted = NonZeroUsize::new(10_000).unwrap();
        for descriptors in [0, 1, 2, 50, 600, 1_024, 10_000, 20_000, usize::MAX / 32] {
            let connections = AdmissionSettings::connections_within(wanted, descriptors);
            let settings = AdmissionSettings::new(connections, 50);
            let least = connections.get() == 1;
            assert!(least || settings.max_descriptors() <= descriptors, "{descriptors}: {settings:?}");
        }
        assert_eq!(AdmissionSettings::connections_within(wanted, 20_000), wanted);
    }
}
