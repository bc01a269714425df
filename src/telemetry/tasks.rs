//! The number of tasks, counted at each scrape: one that only grows shows a leak before memory does.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use super::metrics::Described;

/// What is collected.
pub const DESCRIBED: [Described; 1] = [TASKS];

const TASKS: Described = Described {
    name: "tasks",
    kind: MetricType::Gauge,
    labels: &[],
    help: "Tasks that have begun and not ended",
};

/// Collects from a runtime.
#[derive(Debug)]
pub struct Tasks(pub Handle);

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let alive = i64::try_from(self.0.metrics().num_alive_tasks()).unwrap_or(i64::MAX);
        ConstGauge::new(alive).encode(encoder.encode_descriptor(TASKS.name, TASKS.help, None, TASKS.kind)?)
    }
}
