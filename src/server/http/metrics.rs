//! What is measured, in the notation of OpenMetrics. Every name is explained in `docs/metrics.md`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::crypto::hasher::{Hasher, WAIT_BUCKETS, Waits};
use crate::server::health::HealthHandle;

/// Every metric of the process, read when it is asked for.
pub(super) struct Metrics(Registry);

impl Metrics {
    /// The metrics of what the process does with `health` and `hasher`.
    pub(super) fn new(health: HealthHandle, hasher: Hasher) -> Self {
        let mut registry = Registry::with_prefix("identity");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which program this is", version);
        registry.register_collector(Box::new(Service { health }));
        registry.register_collector(Box::new(Passwords { hasher }));
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
struct Service {
    health: HealthHandle,
}

impl Collector for Service {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = i64::from(self.health.is_ready());
        write(&mut encoder, "ready", "1 while calls are served, else 0", &ConstGauge::new(ready))
    }
}

#[derive(Debug)]
struct Passwords {
    hasher: Hasher,
}

impl Collector for Passwords {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.hasher.statistics();
        let gauges = [
            ("password_queue_length", "Password checks that wait for a lane", now.waiting),
            ("password_rehashes_waiting", "Outdated hashes that wait to be replaced", now.rehashes_waiting),
            ("password_lanes_in_use", "Hashes being computed", now.lanes_in_use),
            ("password_lanes", "Hashes that can be computed at once", now.lanes),
        ];
        for (name, help, value) in gauges {
            write(&mut encoder, name, help, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))?;
        }
        let counters = [
            ("password_hashes", "Hashes computed", now.hashes),
            ("password_refused", "Password checks refused for want of time or of room", now.refused),
            ("password_abandoned", "Hashes given up since their callers had left", now.abandoned),
        ];
        for (name, help, value) in counters {
            write(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        let help = "How long password checks waited for a lane";
        encoder
            .encode_descriptor("password_wait", help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
            now.waits.sum.as_secs_f64(),
            now.waits.count,
            &buckets(&now.waits),
            None,
        )
    }
}

/// What `encode_histogram` adds up, with the bucket without a bound that it does not add.
fn buckets(waits: &Waits) -> Vec<(f64, u64)> {
    let beyond = waits.count.saturating_sub(waits.buckets.iter().sum());
    WAIT_BUCKETS.into_iter().zip(waits.buckets).chain([(f64::INFINITY, beyond)]).collect()
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
