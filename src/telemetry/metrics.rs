//! How a metric is declared: one handle, registered with its name and its help by the part that counts. Counting
//! takes no lock and no memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::registry::{Registry, Unit};

/// Names and values that tell the series of a metric apart.
pub type Labels = Vec<(&'static str, &'static str)>;

/// The values of a label, all of which are known.
pub trait Label: Copy + PartialEq + 'static {
    /// What the label is called.
    const LABEL: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// What metrics and logs call it.
    fn name(self) -> &'static str;
}

/// Declares an enum whose variants are the values of a label, each with its name: `"reason" { Idle = "idle" }`.
macro_rules! label {
    (
        $(#[$meta:meta])* $visible:vis enum $name:ident: $label:literal {
            $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visible enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $crate::telemetry::metrics::Label for $name {
            const LABEL: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)*
                }
            }
        }
    };
}
pub(crate) use label;

/// A counter for each value of a label. All clones count the same.
#[derive(Clone)]
pub struct Counters<L> {
    each: Arc<[Counter]>,
    label: PhantomData<L>,
}

impl<L: Label> Default for Counters<L> {
    fn default() -> Self {
        Self { each: L::ALL.iter().map(|_| Counter::default()).collect(), label: PhantomData }
    }
}

impl<L: Label> Counters<L> {
    /// The counter of a value.
    pub fn of(&self, value: L) -> &Counter {
        let at = L::ALL.iter().position(|one| *one == value);
        &self.each[at.expect("every value is among all")]
    }

    /// Every value by its name, with its number.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::ALL.iter().zip(&*self.each).map(|(value, counter)| (value.name(), counter.get()))
    }

    /// The series of the metric: one for each value, with `more` labels before its own.
    pub fn series(&self, more: &[(&'static str, &'static str)]) -> Vec<(Labels, Counter)> {
        let labels = |value: &L| [more, &[(L::LABEL, value.name())]].concat();
        L::ALL.iter().zip(&*self.each).map(|(value, counter)| (labels(value), counter.clone())).collect()
    }
}

impl<L: Label> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read()).finish()
    }
}

/// A gauge that is read when it is asked for.
struct Reading<F>(F);

impl<F: Fn() -> usize> EncodeMetric for Reading<F> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        ConstGauge::new(i64::try_from((self.0)()).unwrap_or(i64::MAX)).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Adds a metric without labels.
pub fn register(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: impl EncodeMetric + Send + Sync + 'static,
) {
    register_series(registry, name, help, [(Labels::new(), metric)]);
}

/// Adds a gauge without labels, which `read` reads.
pub fn register_gauge(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> usize + Send + Sync + 'static,
) {
    register(registry, name, help, Reading(read));
}

/// Adds a gauge with a series for each of `sources`, which `read` reads.
pub fn register_gauges<S: Send + Sync + 'static>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    sources: impl IntoIterator<Item = (Labels, S)>,
    read: fn(&S) -> usize,
) {
    let readings = sources.into_iter().map(|(labels, source)| (labels, Reading(move || read(&source))));
    register_series(registry, name, help, readings);
}

/// Adds a metric with these series.
pub fn register_series<M: EncodeMetric + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = (Labels, M)>,
) {
    let series = series.into_iter().collect();
    registry.register_collector(Box::new(Metric { name, help, unit: None, series }));
}

/// Adds durations in seconds.
pub fn register_durations(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    durations: impl EncodeMetric + Send + Sync + 'static,
) {
    let series = vec![(Labels::new(), durations)];
    registry.register_collector(Box::new(Metric { name, help, unit: Some(Unit::Seconds), series }));
}

/// A metric as it is written. `Registry::register` would add a full stop to its help.
struct Metric<M> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    series: Vec<(Labels, M)>,
}

impl<M: EncodeMetric + Send + Sync + 'static> Collector for Metric<M> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some((_, first)) = self.series.first() else { return Ok(()) };
        let kind = first.metric_type();
        let mut encoder = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), kind)?;
        if let [(labels, metric)] = &self.series[..]
            && labels.is_empty()
        {
            return metric.encode(encoder);
        }
        self.series.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }
}

impl<M> fmt::Debug for Metric<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metric").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    label! {
        /// A fruit.
        enum Fruit: "fruit" {
            Apple = "apple",
            Pear = "pear",
        }
    }

    #[test]
    fn metrics_are_written_as_they_were_registered() {
        let mut registry = Registry::default();
        let (eaten, whole): (_, Counter) = (Counters::default(), Counter::default());
        register_series(&mut registry, "eaten", "Fruit eaten", eaten.series(&[("meal", "lunch")]));
        register(&mut registry, "whole", "Meals", whole.clone());
        register_gauge(&mut registry, "left", "Fruit left", || 7);
        eaten.of(Fruit::Pear).inc();
        whole.inc_by(2);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "# HELP eaten Fruit eaten",
                "# TYPE eaten counter",
                r#"eaten_total{meal="lunch",fruit="apple"} 0"#,
                r#"eaten_total{meal="lunch",fruit="pear"} 1"#,
                "# HELP whole Meals",
                "# TYPE whole counter",
                "whole_total 2",
                "# HELP left Fruit left",
                "# TYPE left gauge",
                "left 7",
                "# EOF",
            ]
        );
        assert_eq!(eaten.read().collect::<Vec<_>>(), [("apple", 0), ("pear", 1)]);
    }
}
