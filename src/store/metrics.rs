//! Numbers of bindings, counted at each scrape, so that they are never stale.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::conditions::Phase;
use crate::store::Mirror;
use crate::support::clock;
use crate::telemetry::metrics::Described;

/// What is collected.
pub const DESCRIBED: [Described; 3] = [BINDINGS, LEADER, OLDEST];

const BINDINGS: Described = gauge("bindings", &["phase"], "Bindings by phase");
const LEADER: Described = gauge("leader", &[], "Whether this process reconciles (1) or stands by (0)");
const OLDEST: Described = gauge(
    "oldest_expired_uncleaned_seconds",
    &[],
    "Age of the oldest binding whose time is over and which is not removed yet",
);

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: MetricType::Gauge, labels, help }
}

/// Collects from what the controller sees.
pub struct Gauges {
    mirror: Arc<Mirror>,
    leading: Arc<AtomicBool>,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Gauges {
    /// Gauges of the bindings there, as long as this process leads: else they would be counted twice.
    #[must_use]
    pub fn new(mirror: Arc<Mirror>, leading: Arc<AtomicBool>) -> Self {
        Self { mirror, leading }
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let now = clock::now().as_second();
        let mut phases: HashMap<Phase, i64> = HashMap::new();
        let mut overdue = 0;
        let leading = self.leading.load(Ordering::Relaxed);
        if leading {
            self.mirror.each(|phase, expires| {
                *phases.entry(phase).or_default() += 1;
                overdue = expires.map_or(overdue, |expires| overdue.max(now - expires));
            });
        }
        let mut family = encoder.encode_descriptor(BINDINGS.name, BINDINGS.help, None, BINDINGS.kind)?;
        for phase in Phase::ALL {
            let count = ConstGauge::new(phases.get(phase).copied().unwrap_or(0));
            count.encode(family.encode_family(&[("phase", phase.as_str())])?)?;
        }
        let leading = ConstGauge::new(i64::from(leading));
        leading.encode(encoder.encode_descriptor(LEADER.name, LEADER.help, None, LEADER.kind)?)?;
        let oldest = ConstGauge::new(overdue);
        oldest.encode(encoder.encode_descriptor(OLDEST.name, OLDEST.help, None, OLDEST.kind)?)
    }
}
