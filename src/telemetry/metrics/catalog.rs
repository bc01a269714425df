//! Where a metric is declared: its name, what it tells and its labels, once.

use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::labels::Labels;

/// Prefix of all names.
const PREFIX: &str = "kyma_bindings";

/// Upper bounds of the duration histograms, seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// Upper bounds of what takes less than a request, seconds.
const SHORT_BUCKETS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Upper bounds of what may take hours, seconds.
const LONG_BUCKETS: [f64; 10] = [0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];

/// Histograms of durations, one for each set of labels.
pub(super) type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// What is known of a metric without a value of it.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Without the prefix, and without what its type adds.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells, without a full stop.
    pub help: &'static str,
}

impl Described {
    /// The name that queries use; a histogram's without `_bucket`, `_sum` or `_count`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        format!("{PREFIX}_{}{suffix}", self.name)
    }
}

/// A registry that remembers what was declared.
pub(super) struct Catalog {
    pub registry: Registry,
    pub described: Vec<Described>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), described: Vec::new() }
    }
}

impl Catalog {
    pub fn declare<M: Metric + Clone>(&mut self, described: Described, metric: M) -> M {
        self.registry.register(described.name, described.help, metric.clone());
        self.described.push(described);
        metric
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let described = Described { name, kind: MetricType::Counter, labels: &[], help };
        self.declare(described, Counter::default())
    }

    pub fn counters<L: Labels>(&mut self, name: &'static str, help: &'static str) -> Family<L, Counter> {
        let described = Described { name, kind: MetricType::Counter, labels: L::NAMES, help };
        self.declare(described, Family::default())
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        let described = Described { name, kind: MetricType::Gauge, labels: &[], help };
        self.declare(described, Gauge::default())
    }

    pub fn gauges<L: Labels>(&mut self, name: &'static str, help: &'static str) -> Family<L, Gauge> {
        let described = Described { name, kind: MetricType::Gauge, labels: L::NAMES, help };
        self.declare(described, Family::default())
    }

    pub fn duration(&mut self, name: &'static str, help: &'static str) -> Histogram {
        let described = Described { name, kind: MetricType::Histogram, labels: &[], help };
        self.declare(described, Histogram::new(BUCKETS))
    }

    pub fn long_duration(&mut self, name: &'static str, help: &'static str) -> Histogram {
        let described = Described { name, kind: MetricType::Histogram, labels: &[], help };
        self.declare(described, Histogram::new(LONG_BUCKETS))
    }

    pub fn short_durations<L: Labels>(&mut self, name: &'static str, help: &'static str) -> Durations<L> {
        let described = Described { name, kind: MetricType::Histogram, labels: L::NAMES, help };
        self.declare(described, Family::new_with_constructor(|| Histogram::new(SHORT_BUCKETS)))
    }

    pub fn durations<L: Labels>(&mut self, name: &'static str, help: &'static str) -> Durations<L> {
        let described = Described { name, kind: MetricType::Histogram, labels: L::NAMES, help };
        self.declare(described, Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}
