//! What calls may hold at once: bytes of headers and of unread replies, and streams that stay open.
//!
//! Bytes have a limit in total, for one source and for one connection; streams in total and for one source.
//! Nothing waits here: a call that finds no room is refused. So that a newcomer always finds some, a source
//! may hold at most as much as is free: half of the total when it is alone, a third each for two.
//! Which connection is whose is left to `admission`, what is charged when to `call`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::refusals::Refusals;
use crate::budget::Rate;
use crate::telemetry::metrics::{self, Counter, Counters, Label as _, Registry, label};

/// Limits of what calls may hold.
#[derive(Clone, Copy, Debug)]
pub struct BudgetSettings {
    /// Bytes of request headers and unread replies that all calls together may hold.
    pub call_bytes: usize,
    /// How many of these the calls of one connection may hold.
    pub call_bytes_per_connection: usize,
    /// How many Watch streams of the health service may be open.
    pub watches: usize,
    /// How many reflection streams may be open.
    pub reflections: usize,
    /// How many calls of one source are refused for want of room without delay.
    pub refusals: Rate,
}

impl BudgetSettings {
    /// The limits for `call_bytes` in total.
    pub const fn of(call_bytes: usize) -> Self {
        Self {
            call_bytes,
            // Several replies of the largest size that gRPC clients accept by default, 4 MiB.
            call_bytes_per_connection: call_bytes / 4,
            // One for each connection, as clients have them that check health themselves.
            watches: 10_000,
            // Somebody who explores the service by hand has one.
            reflections: 64,
            // Some percent of a core.
            refusals: Rate { burst: 1_000, per_second: 1_000 },
        }
    }
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self::of(64 * 1024 * 1024)
    }
}

label! {
    /// A budget in which a call found no room.
    pub enum Exhausted: "budget" {
        /// The bytes of its connection.
        ConnectionBytes = "connection_bytes",
        /// The bytes of its source.
        SourceBytes = "source_bytes",
        /// The bytes of the process.
        ProcessBytes = "process_bytes",
        /// The headers of one call.
        Headers = "headers",
        /// The Watch streams.
        Watches = "watches",
        /// The reflection streams.
        Reflections = "reflections",
    }
}

label! {
    /// Why a stream ended before its reply was complete.
    pub enum CutShort: "cause" {
        /// The client reset it.
        ByClient = "client",
        /// The deadline of the call passed while its reply was not read.
        Deadline = "deadline",
        /// The client read nothing of the reply for too long.
        WriteTimeout = "write_timeout",
    }
}

label! {
    /// The streams that stay open, which have limits of their own.
    pub enum StreamKind: "kind" {
        /// The health service's Watch.
        Watch = "watch",
        /// A conversation with the reflection service.
        Reflection = "reflection",
    }
}

/// The budgets of the process. All clones are the same.
#[derive(Clone, Debug)]
pub struct Budgets(Arc<Process>);

#[derive(Debug)]
struct Process {
    settings: BudgetSettings,
    bytes: AtomicUsize,
    streams: [AtomicUsize; StreamKind::ALL.len()],
    refused: Counters<Exhausted>,
    held_back: Counter,
    cut_short: Counters<CutShort>,
}

/// What the calls of one source hold.
#[derive(Debug, Default)]
pub(super) struct SourceUse {
    refusals: Refusals,
    bytes: AtomicUsize,
    streams: [AtomicUsize; StreamKind::ALL.len()],
}

/// The bytes that the calls of one connection hold.
#[derive(Debug)]
pub(super) struct ConnectionBytes {
    budgets: Budgets,
    source: Arc<SourceUse>,
    bytes: AtomicUsize,
}

impl Budgets {
    /// Budgets of which nothing is used.
    pub fn new(settings: BudgetSettings) -> Self {
        Self(Arc::new(Process {
            settings,
            bytes: AtomicUsize::new(0),
            streams: Default::default(),
            refused: Counters::default(),
            held_back: Counter::default(),
            cut_short: Counters::default(),
        }))
    }

    /// Bytes of headers and unread replies that calls hold now.
    pub fn call_bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// How many bytes they may hold.
    pub fn call_bytes_limit(&self) -> usize {
        self.0.settings.call_bytes
    }

    /// How many streams of a kind are open.
    pub fn streams(&self, kind: StreamKind) -> usize {
        self.0.streams[kind as usize].load(Relaxed)
    }

    /// How many streams of a kind may be open.
    pub fn streams_limit(&self, kind: StreamKind) -> usize {
        match kind {
            StreamKind::Watch => self.0.settings.watches,
            StreamKind::Reflection => self.0.settings.reflections,
        }
    }

    /// How many calls were refused for want of room in a budget.
    pub fn refused(&self, budget: Exhausted) -> u64 {
        self.0.refused.of(budget).get()
    }

    /// How many refusals were held back.
    pub fn held_back(&self) -> u64 {
        self.0.held_back.get()
    }

    /// How many streams ended before their reply was complete.
    pub fn cut_short(&self, cause: CutShort) -> u64 {
        self.0.cut_short.of(cause).get()
    }

    pub(super) fn count_refused(&self, budget: Exhausted) {
        self.0.refused.of(budget).inc();
    }

    pub(super) fn count_held_back(&self) {
        self.0.held_back.inc();
    }

    pub(super) fn count_cut_short(&self, cause: CutShort) {
        self.0.cut_short.of(cause).inc();
    }

    /// Adds the metrics to those of the process.
    pub(super) fn register(&self, registry: &mut Registry) {
        let (bytes, limit) = (self.clone(), self.call_bytes_limit());
        let help = "Bytes of headers and unread replies that calls hold";
        metrics::register_gauge(registry, "call_bytes", help, move || bytes.call_bytes());
        metrics::register_gauge(registry, "call_bytes_limit", "Bytes that calls may hold", move || limit);
        let kinds = StreamKind::ALL.iter();
        let kinds: Vec<_> =
            kinds.map(|kind| (vec![(StreamKind::LABEL, kind.name())], (self.clone(), *kind))).collect();
        let open = |(budgets, kind): &(Self, StreamKind)| budgets.streams(*kind);
        let limit = |(budgets, kind): &(Self, StreamKind)| budgets.streams_limit(*kind);
        let help = "Streams that stay open";
        metrics::register_gauges(registry, "open_streams", help, kinds.clone(), open);
        let help = "Streams that may stay open";
        metrics::register_gauges(registry, "open_streams_limit", help, kinds, limit);
        let help = "Calls refused for want of room in a budget";
        metrics::register_series(registry, "calls_refused", help, self.0.refused.series(&[]));
        let help = "Refusals that were held back, since their source was refused too often";
        metrics::register(registry, "calls_refused_late", help, self.0.held_back.clone());
        let help = "Streams that ended before their reply was complete";
        metrics::register_series(registry, "streams_cut_short", help, self.0.cut_short.series(&[]));
    }
}

/// Adds `amount` to `used` unless that exceeds `limit`; what is used then comes back.
fn add_within(used: &AtomicUsize, amount: usize, limit: usize) -> Option<usize> {
    let sum = used.fetch_add(amount, Relaxed).saturating_add(amount);
    if sum <= limit {
        return Some(sum);
    }
    used.fetch_sub(amount, Relaxed);
    None
}

impl ConnectionBytes {
    /// A connection whose calls hold nothing.
    pub(super) fn new(budgets: Budgets, source: Arc<SourceUse>) -> Self {
        Self { budgets, source, bytes: AtomicUsize::new(0) }
    }

    pub(super) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Takes `amount` bytes from all three budgets, to be given back with [`ConnectionBytes::give_back`].
    ///
    /// # Errors
    /// The first budget that has no room, which is counted; then nothing is taken.
    pub(super) fn take(&self, amount: usize) -> Result<(), Exhausted> {
        self.try_take(amount).inspect_err(|&budget| self.budgets.count_refused(budget))
    }

    fn try_take(&self, amount: usize) -> Result<(), Exhausted> {
        let Process { settings, bytes, .. } = &*self.budgets.0;
        add_within(&self.bytes, amount, settings.call_bytes_per_connection)
            .ok_or(Exhausted::ConnectionBytes)?;
        let Some(total) = add_within(bytes, amount, settings.call_bytes) else {
            self.bytes.fetch_sub(amount, Relaxed);
            return Err(Exhausted::ProcessBytes);
        };
        if add_within(&self.source.bytes, amount, settings.call_bytes - total).is_none() {
            self.bytes.fetch_sub(amount, Relaxed);
            bytes.fetch_sub(amount, Relaxed);
            return Err(Exhausted::SourceBytes);
        }
        Ok(())
    }

    pub(super) fn give_back(&self, amount: usize) {
        self.bytes.fetch_sub(amount, Relaxed);
        self.source.bytes.fetch_sub(amount, Relaxed);
        self.budgets.0.bytes.fetch_sub(amount, Relaxed);
    }

    /// Counts a call of the source that is refused, and returns how long the refusal is to be held back.
    pub(super) fn refusal_delay(&self) -> Duration {
        self.source.refusals.delay(self.budgets.0.settings.refusals, Instant::now())
    }

    /// Takes room for one more stream of `kind`.
    ///
    /// # Errors
    /// [`Exhausted`] when there are too many, which is counted.
    pub(super) fn open_stream(&self, kind: StreamKind) -> Result<StreamSlot, Exhausted> {
        let (limit, exhausted) = match kind {
            StreamKind::Watch => (self.budgets.0.settings.watches, Exhausted::Watches),
            StreamKind::Reflection => (self.budgets.0.settings.reflections, Exhausted::Reflections),
        };
        let all = &self.budgets.0.streams[kind as usize];
        let total = add_within(all, 1, limit).ok_or(exhausted);
        let taken = total.and_then(|total| {
            // One stream is nobody's share.
            let share = (limit - total).max(1);
            add_within(&self.source.streams[kind as usize], 1, share).map(drop).ok_or_else(|| {
                all.fetch_sub(1, Relaxed);
                exhausted
            })
        });
        match taken {
            Ok(()) => {
                Ok(StreamSlot { budgets: self.budgets.clone(), source: Arc::clone(&self.source), kind })
            }
            Err(exhausted) => {
                self.budgets.count_refused(exhausted);
                Err(exhausted)
            }
        }
    }
}

/// Room for one stream, given back when dropped.
#[derive(Debug)]
pub(super) struct StreamSlot {
    budgets: Budgets,
    source: Arc<SourceUse>,
    kind: StreamKind,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.budgets.0.streams[self.kind as usize].fetch_sub(1, Relaxed);
        self.source.streams[self.kind as usize].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        Budgets::new(BudgetSettings {
            call_bytes: 100,
            call_bytes_per_connection: 40,
            watches: 10,
            reflections: 3,
            refusals: Rate { burst: 10, per_second: 10 },
        })
    }

    fn connection(budgets: &Budgets, source: &Arc<SourceUse>) -> ConnectionBytes {
        ConnectionBytes::new(budgets.clone(), Arc::clone(source))
    }

    #[test]
    fn a_connection_takes_no_more_than_its_own_limit() {
        let budgets = budgets();
        let connection = connection(&budgets, &Arc::default());
        assert_eq!(connection.take(40), Ok(()));
        assert_eq!(connection.take(1), Err(Exhausted::ConnectionBytes));
        assert_eq!((connection.bytes.load(Relaxed), budgets.call_bytes()), (40, 40));
        connection.give_back(40);
        assert_eq!((connection.bytes.load(Relaxed), budgets.call_bytes()), (0, 0));
        assert_eq!(budgets.refused(Exhausted::ConnectionBytes), 1);
    }

    #[test]
    fn a_source_alone_takes_half_and_a_newcomer_still_finds_room() {
        let budgets = budgets();
        let greedy = Arc::<SourceUse>::default();
        let first = connection(&budgets, &greedy);
        let second = connection(&budgets, &greedy);
        assert_eq!(first.take(40), Ok(()));
        assert_eq!(second.take(10), Ok(()));
        assert_eq!(second.take(1), Err(Exhausted::SourceBytes));
        let newcomer = connection(&budgets, &Arc::default());
        assert_eq!(newcomer.take(25), Ok(()));
        assert_eq!(newcomer.take(1), Err(Exhausted::SourceBytes));
        assert_eq!(budgets.call_bytes(), 75);
    }

    #[test]
    fn streams_are_limited_in_total_and_for_each_source() {
        let budgets = budgets();
        let (greedy, other) = (Arc::<SourceUse>::default(), Arc::<SourceUse>::default());
        let greedy = connection(&budgets, &greedy);
        let _first = greedy.open_stream(StreamKind::Reflection).unwrap();
        assert_eq!(greedy.open_stream(StreamKind::Reflection).unwrap_err(), Exhausted::Reflections);
        let other = connection(&budgets, &other);
        let second = other.open_stream(StreamKind::Reflection).unwrap();
        assert_eq!(budgets.streams(StreamKind::Reflection), 2);
        drop(second);
        assert_eq!(budgets.streams(StreamKind::Reflection), 1);
        assert_eq!(budgets.streams(StreamKind::Watch), 0);
    }
}
