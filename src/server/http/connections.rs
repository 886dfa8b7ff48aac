//! What is measured of connections, and of what calls hold.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::server::admission::{Admission, Closed};
use crate::server::budgets::{Budgets, CutShort, Exhausted, StreamKind};

/// The connections to each port, by its name, and the budgets that their calls share.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) ports: Vec<(&'static str, Admission)>,
    pub(super) budgets: Budgets,
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.connections(&mut encoder)?;
        self.calls(&mut encoder)
    }
}

impl Connections {
    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: fn(&Admission) -> usize| {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (port, admission) in &self.ports {
                number(value(admission)).encode(gauge.encode_family(&[("port", *port)])?)?;
            }
            fmt::Result::Ok(())
        };
        gauge("connections", "Open connections", Admission::open)?;
        gauge("connections_limit", "Connections that may be open", Admission::limit)?;
        let help = "Connections that one source may have";
        gauge("connections_limit_per_source", help, Admission::limit_per_source)?;
        let help = "Connections that the server closed";
        let mut closed = encoder.encode_descriptor("connections_closed", help, None, MetricType::Counter)?;
        for (port, admission) in &self.ports {
            for reason in Closed::ALL {
                let labels = [("port", *port), ("reason", reason.name())];
                ConstCounter::new(admission.closed(reason)).encode(closed.encode_family(&labels)?)?;
            }
        }
        let help = "Streams that the server reset because their requests break a rule of HTTP/2";
        let mut malformed =
            encoder.encode_descriptor("streams_malformed", help, None, MetricType::Counter)?;
        for (port, admission) in &self.ports {
            let count = ConstCounter::new(admission.malformed());
            count.encode(malformed.encode_family(&[("port", *port)])?)?;
        }
        Ok(())
    }

    fn calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let budgets = &self.budgets;
        let gauges = [
            ("call_bytes", "Bytes of headers and unread replies that calls hold", budgets.call_bytes()),
            ("call_bytes_limit", "Bytes that calls may hold", budgets.call_bytes_limit()),
        ];
        for (name, help, value) in gauges {
            number(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let mut gauge = |name, help, value: fn(&Budgets, StreamKind) -> usize| {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for kind in StreamKind::ALL {
                number(value(budgets, kind)).encode(gauge.encode_family(&[("kind", kind.name())])?)?;
            }
            fmt::Result::Ok(())
        };
        gauge("open_streams", "Streams that stay open", Budgets::streams)?;
        gauge("open_streams_limit", "Streams that may stay open", Budgets::streams_limit)?;
        let help = "Calls refused for want of room in a budget";
        let mut refused = encoder.encode_descriptor("calls_refused", help, None, MetricType::Counter)?;
        for budget in Exhausted::ALL {
            let labels = [("budget", budget.name())];
            ConstCounter::new(budgets.refused(budget)).encode(refused.encode_family(&labels)?)?;
        }
        let held_back = ConstCounter::new(budgets.held_back());
        let help = "Refusals that were held back, since their source was refused too often";
        held_back.encode(encoder.encode_descriptor(
            "calls_refused_late",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let help = "Streams that ended before their reply was complete";
        let mut cut = encoder.encode_descriptor("streams_cut_short", help, None, MetricType::Counter)?;
        for cause in CutShort::ALL {
            let labels = [("cause", cause.name())];
            ConstCounter::new(budgets.cut_short(cause)).encode(cut.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn number(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
