//! What is measured, in the notation of OpenMetrics. Every name is explained in `docs/metrics.md`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Watched;
use crate::rpc::status::code_name;
use crate::server::admission;
use crate::server::clocks::ClockDifference;
use crate::server::edge::CallCounts;
use crate::storage::{PoolUsage, Storage};
use crate::telemetry::metrics;

/// Every metric of the process, read when it is asked for.
pub(super) struct Metrics(Registry);

impl Metrics {
    /// The metrics of what is `watched`.
    pub(super) fn new(watched: Watched) -> Self {
        let Watched { health, hasher, refusals, calls, storage, clock_difference, .. } = watched;
        let Watched { started, dropped_lines, connections, budgets, .. } = watched;
        let mut registry = Registry::default();
        // By the name that it has in all programs.
        let help = "When the process started, in Unix time";
        let started = ConstGauge::new(started.as_unix_micros() as f64 / 1e6);
        registry.register_with_unit("process_start_time", help, Unit::Seconds, started);
        let ours = registry.sub_registry_with_prefix("identity");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "Which program this is", version);
        let is_ready = move || usize::from(health.is_ready());
        metrics::register_gauge(ours, "ready", "1 while calls are served, else 0", is_ready);
        ours.register_collector(Box::new(Calls(calls)));
        hasher.register(ours);
        refusals.register(ours);
        ours.register_collector(Box::new(Database(storage)));
        ours.register_collector(Box::new(Clocks(clock_difference)));
        dropped_lines.register(ours);
        admission::register(&connections, ours);
        budgets.register(ours);
        Self(registry)
    }

    /// All of them, as they are now.
    ///
    /// # Errors
    /// None that are known: writing to a string does not fail.
    pub(super) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Calls(Arc<CallCounts>);

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls that have ended, by what they ended with";
        let mut ended = encoder.encode_descriptor("grpc_calls", help, None, MetricType::Counter)?;
        for (method, counts) in self.0.methods() {
            // Those that never came as well, or the first would not be seen to come.
            for (code, count) in counts.by_code() {
                let labels = [("method", method), ("code", code_name(code))];
                ConstCounter::new(count).encode(ended.encode_family(&labels)?)?;
            }
        }
        let help = "How long calls took, from their headers to the end of the reply";
        let unit = Some(&Unit::Seconds);
        let mut took = encoder.encode_descriptor("grpc_call_duration", help, unit, MetricType::Histogram)?;
        for (method, counts) in self.0.methods() {
            if let Some(durations) = counts.durations() {
                let labels = [("method", method)];
                durations.encode(took.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

struct Database(Storage);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(…)")
    }
}

impl Collector for Database {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.0.usage();
        let mut family = |name, help, kind, value: fn(&PoolUsage) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for pool in &pools {
                let labels = [("lane", pool.name)];
                let metric = family.encode_family(&labels)?;
                if matches!(kind, MetricType::Counter) {
                    ConstCounter::new(value(pool)).encode(metric)?;
                } else {
                    ConstGauge::new(i64::try_from(value(pool)).unwrap_or(i64::MAX)).encode(metric)?;
                }
            }
            fmt::Result::Ok(())
        };
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let help = "Open connections to the database";
        family("database_connections", help, gauge, |pool| pool.open.into())?;
        let help = "Connections that calls use";
        family("database_connections_in_use", help, gauge, |pool| pool.calls.in_use as u64)?;
        let help = "Connections that may be open";
        family("database_connections_limit", help, gauge, |pool| pool.calls.limit as u64)?;
        let help = "Calls that wait while all are in use";
        family("database_connections_waiting", help, gauge, |pool| pool.calls.waiting as u64)?;
        let help = "Connections handed to calls";
        family("database_connections_lent", help, counter, |pool| pool.calls.granted)?;
        let help = "Calls refused because too many wait, or for too long";
        family("database_refused", help, counter, |pool| pool.calls.refused)?;
        let pages = self.0.pages();
        let gauges = [
            ("list_pages", "Pages of lists that are being put together", pages.in_use),
            ("list_pages_limit", "How many those may be", pages.limit),
            ("list_pages_waiting", "Lists that wait for others to end", pages.waiting),
        ];
        for (name, help, value) in gauges {
            write(&mut encoder, name, help, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))?;
        }
        let counters = [
            ("list_pages_begun", "Pages that were begun", pages.granted),
            ("list_pages_refused", "Lists refused because too many wait, or for too long", pages.refused),
        ];
        for (name, help, value) in counters {
            write(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Clocks(ClockDifference);

impl Collector for Clocks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Unknown until the database has been reached.
        let Some(seconds) = self.0.as_seconds() else { return Ok(()) };
        let help = "How far the clock of the database and that of this machine are apart";
        let unit = Some(&Unit::Seconds);
        let metric = encoder.encode_descriptor("database_clock_difference", help, unit, MetricType::Gauge)?;
        ConstGauge::new(seconds).encode(metric)
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
