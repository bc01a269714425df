//! Metrics: few series, none with an id of a binding or an instance in it.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Prefix of all names.
const PREFIX: &str = "kyma_bindings";

/// Upper bounds of the duration histograms, seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    listener: &'static str,
    reason: &'static str,
}

/// One more in a gauge for as long as it is held.
#[must_use]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    scheme: &'static str,
    reason: &'static str,
}

/// All counters of the process.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    request_duration: Family<Route, Histogram, fn() -> Histogram>,
    requests_in_flight: Gauge,
    connections: Family<Listener, Gauge>,
    connections_ended: Family<Ended, Counter>,
    accept_failures: Family<Listener, Counter>,
    tls_failures: Family<Cause, Counter>,
    auth_failures: Family<Denied, Counter>,
    key_fetches: Family<Outcome, Counter>,
    reconciles: Family<Outcome, Counter>,
    reconcile_duration: Histogram,
    limit_rejections: Counter,
    cluster_errors: Family<Cause, Counter>,
    orphans_removed: Counter,
    sweeps: Family<Outcome, Counter>,
    breaker_trips: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            requests_in_flight: Gauge::default(),
            connections: Family::default(),
            connections_ended: Family::default(),
            accept_failures: Family::default(),
            tls_failures: Family::default(),
            auth_failures: Family::default(),
            key_fetches: Family::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(BUCKETS),
            limit_rejections: Counter::default(),
            cluster_errors: Family::default(),
            orphans_removed: Counter::default(),
            sweeps: Family::default(),
            breaker_trips: Counter::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
            registry.register("build", "Version of the software", build);
            registry.register("http_requests", "Answered HTTP requests", metrics.requests.clone());
            registry.register(
                "http_request_duration_seconds",
                "Time from request to answer",
                metrics.request_duration.clone(),
            );
            registry.register(
                "http_requests_in_flight",
                "Requests under way",
                metrics.requests_in_flight.clone(),
            );
            registry.register("connections", "Open connections by listener", metrics.connections.clone());
            registry.register(
                "connections_ended",
                "Connections that the server ended, by listener and reason",
                metrics.connections_ended.clone(),
            );
            registry.register(
                "accept_failures",
                "Connections that could not be accepted, by listener",
                metrics.accept_failures.clone(),
            );
            registry.register(
                "tls_handshake_failures",
                "TLS handshakes that came to nothing, by reason",
                metrics.tls_failures.clone(),
            );
            registry.register(
                "authentication_failures",
                "Requests that were not let in, by scheme and reason",
                metrics.auth_failures.clone(),
            );
            registry.register(
                "issuer_key_fetches",
                "Fetches of the token issuer's keys by result",
                metrics.key_fetches.clone(),
            );
            registry.register("reconciles", "Reconciles by result", metrics.reconciles.clone());
            registry.register(
                "reconcile_duration_seconds",
                "Time of a reconcile",
                metrics.reconcile_duration.clone(),
            );
            registry.register(
                "limit_rejections",
                "Bindings rejected by the limit",
                metrics.limit_rejections.clone(),
            );
            registry.register(
                "managed_cluster_errors",
                "Failed calls to managed clusters",
                metrics.cluster_errors.clone(),
            );
            registry.register(
                "orphans_removed",
                "Bindings that were gone and whose objects were removed from a managed cluster",
                metrics.orphans_removed.clone(),
            );
            registry.register("sweeps", "Sweeps of managed clusters by result", metrics.sweeps.clone());
            registry.register(
                "sweep_breaker_trips",
                "Sweeps stopped because they would have removed too much",
                metrics.breaker_trips.clone(),
            );
        }
        metrics
    }
}

impl Metrics {
    /// Adds numbers that are counted at each scrape.
    pub fn collect(&self, collector: impl Collector) {
        self.registry.lock().register_collector(Box::new(collector));
    }

    /// An HTTP request was answered.
    pub fn answered(&self, route: &'static str, method: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&Request { route, method, code }).inc();
        self.request_duration.get_or_create(&Route { route, method }).observe(took.as_secs_f64());
    }

    /// A request is under way while the result is held.
    pub fn request(&self) -> Held {
        Held::new(&self.requests_in_flight)
    }

    /// A connection is open while the result is held.
    pub fn connection(&self, listener: &'static str) -> Held {
        Held::new(&self.connections.get_or_create(&Listener { listener }))
    }

    /// We ended a connection.
    pub fn connection_ended(&self, listener: &'static str, reason: &'static str) {
        self.connections_ended.get_or_create(&Ended { listener, reason }).inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failure(&self, listener: &'static str) {
        self.accept_failures.get_or_create(&Listener { listener }).inc();
    }

    /// A TLS handshake came to nothing.
    pub fn tls_failure(&self, reason: &'static str) {
        self.tls_failures.get_or_create(&Cause { reason }).inc();
    }

    /// A request was not let in.
    pub fn auth_failure(&self, scheme: &'static str, reason: &'static str) {
        self.auth_failures.get_or_create(&Denied { scheme, reason }).inc();
    }

    /// The keys of the issuer were fetched, or not.
    pub fn keys_fetched(&self, ok: bool) {
        let result = if ok { "success" } else { "error" };
        self.key_fetches.get_or_create(&Outcome { result }).inc();
    }

    /// A reconcile ended.
    pub fn reconciled(&self, ok: bool, took: Duration) {
        let result = if ok { "success" } else { "error" };
        self.reconciles.get_or_create(&Outcome { result }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// The limit rejected a binding.
    pub fn limit_rejection(&self) {
        self.limit_rejections.inc();
    }

    /// A call to a managed cluster failed.
    pub fn managed_cluster_error(&self, reason: &'static str) {
        self.cluster_errors.get_or_create(&Cause { reason }).inc();
    }

    /// What bindings that no longer exist had left was removed.
    pub fn orphans_removed(&self, bindings: u64) {
        self.orphans_removed.inc_by(bindings);
    }

    /// A sweep of a managed cluster ended.
    pub fn swept(&self, result: &'static str) {
        self.sweeps.get_or_create(&Outcome { result }).inc();
    }

    /// A sweep would have removed too much.
    pub fn breaker_tripped(&self) {
        self.breaker_trips.inc();
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_dashboards_ask_for() {
        let metrics = Metrics::default();
        metrics.answered("service_binding", "PUT", 201, Duration::from_millis(3));
        metrics.managed_cluster_error("ClusterTimedOut");
        metrics.auth_failure("basic", "password");
        metrics.tls_failure("timeout");
        metrics.connection_ended("api", "idle");
        metrics.accept_failure("api");
        drop(metrics.connection("admin"));
        let _held = (metrics.request(), metrics.connection("api"));
        metrics.limit_rejection();
        metrics.orphans_removed(2);
        metrics.swept("clean");
        metrics.breaker_tripped();
        metrics.reconciled(true, Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            r#"kyma_bindings_http_requests_total{route="service_binding",method="PUT",code="201"} 1"#,
            r#"kyma_bindings_managed_cluster_errors_total{reason="ClusterTimedOut"} 1"#,
            r#"kyma_bindings_authentication_failures_total{scheme="basic",reason="password"} 1"#,
            r#"kyma_bindings_tls_handshake_failures_total{reason="timeout"} 1"#,
            r#"kyma_bindings_connections_ended_total{listener="api",reason="idle"} 1"#,
            r#"kyma_bindings_accept_failures_total{listener="api"} 1"#,
            r#"kyma_bindings_connections{listener="admin"} 0"#,
            r#"kyma_bindings_connections{listener="api"} 1"#,
            "kyma_bindings_http_requests_in_flight 1",
            "kyma_bindings_limit_rejections_total 1",
            r#"kyma_bindings_reconciles_total{result="success"} 1"#,
            "kyma_bindings_orphans_removed_total 2",
            r#"kyma_bindings_sweeps_total{result="clean"} 1"#,
            "kyma_bindings_sweep_breaker_trips_total 1",
            "kyma_bindings_build_info",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
