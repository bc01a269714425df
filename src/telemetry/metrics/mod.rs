//! Metrics: few series, none with an id of a binding or an instance in it.

mod catalog;
mod labels;

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;

pub use catalog::Described;
use catalog::{Catalog, Durations};
use labels::{Call, Cause, Denied, Ended, Listener, Outcome, Part, Request, Route, Try, Verb};

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

/// All counters of the process.
pub struct Metrics {
    catalog: Mutex<Catalog>,
    requests: Family<Request, Counter>,
    request_duration: Durations<Route>,
    requests_in_flight: Gauge,
    connections: Family<Listener, Gauge>,
    connections_limit: Family<Listener, Gauge>,
    connections_ended: Family<Ended, Counter>,
    accept_failures: Family<Listener, Counter>,
    tls_failures: Family<Cause, Counter>,
    certificate_expiry: Family<Listener, Gauge>,
    auth_failures: Family<Denied, Counter>,
    key_fetches: Family<Outcome, Counter>,
    reconciles: Family<Outcome, Counter>,
    reconcile_duration: Histogram,
    reconciles_in_flight: Gauge,
    binds: Family<Outcome, Counter>,
    unbinds: Family<Outcome, Counter>,
    bind_phases: Durations<Part>,
    expiry_lag: Histogram,
    limit_rejections: Counter,
    cluster_errors: Family<Cause, Counter>,
    cluster_requests: Family<Call, Counter>,
    cluster_request_duration: Durations<Verb>,
    clients: Gauge,
    client_lookups: Family<Outcome, Counter>,
    orphans_removed: Counter,
    sweeps: Family<Outcome, Counter>,
    breaker_trips: Counter,
    lease_failures: Family<Try, Counter>,
    permanent_failures: Family<Cause, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut c = Catalog::default();
        let (name, help) = ("build", "Version of the software");
        let build = Described { name, kind: MetricType::Info, labels: &["version"], help };
        c.registry.register(name, help, Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        c.described.push(build);
        Self {
            requests: c.counters("http_requests", "Answered HTTP requests"),
            request_duration: c.durations("http_request_duration_seconds", "Time from request to answer"),
            requests_in_flight: c.gauge("http_requests_in_flight", "Requests under way"),
            connections: c.gauges("connections", "Open connections by listener"),
            connections_limit: c.gauges("connections_limit", "Most connections of a listener at once; further ones wait to be accepted"),
            connections_ended: c.counters("connections_ended", "Connections that the server ended, by listener and reason"),
            accept_failures: c.counters("accept_failures", "Connections that could not be accepted, by listener"),
            tls_failures: c.counters("tls_handshake_failures", "TLS handshakes that came to nothing, by reason"),
            certificate_expiry: c.gauges("tls_certificate_expiry_timestamp_seconds", "When the certificate of a listener ends, Unix time; not there without TLS"),
            auth_failures: c.counters("authentication_failures", "Requests that were not let in, by scheme and reason"),
            key_fetches: c.counters("issuer_key_fetches", "Fetches of the token issuer's keys by result"),
            reconciles: c.counters("reconciles", "Reconciles by result"),
            reconcile_duration: c.duration("reconcile_duration_seconds", "Time of a reconcile"),
            reconciles_in_flight: c.gauge("reconciles_in_flight", "Reconciles under way; none waits for another, so this is the queue's depth"),
            binds: c.counters("binds", "Tries to make a binding by result: issued, rejected, failed (for good), retried"),
            unbinds: c.counters("unbinds", "Tries to remove a binding, rejected ones too, by result: removed, abandoned, retried"),
            bind_phases: c.short_durations("bind_phase_duration_seconds", "Time of the parts of a bind. Of a PUT that makes one, in the broker: create, wait, read. Of the wait, in the controller: limit, rbac (with what is needed to reach the cluster), token, secret, status; the rest of it are the watches"),
            expiry_lag: c.long_duration("expiry_lag_seconds", "Time from the end of a kubeconfig to its access being seen gone"),
            limit_rejections: c.counter("limit_rejections", "Bindings rejected by the limit"),
            cluster_errors: c.counters("managed_cluster_errors", "Operations in managed clusters that failed, by reason"),
            cluster_requests: c.counters("managed_cluster_requests", "Calls to managed clusters by verb and result (class of the status, or why there was no answer)"),
            cluster_request_duration: c.durations("managed_cluster_request_duration_seconds", "Time of a call to a managed cluster, with the wait for its turn"),
            clients: c.gauge("managed_cluster_clients", "Clients of managed clusters that are kept"),
            client_lookups: c.counters("managed_cluster_client_lookups", "Look-ups of clients of managed clusters: hit, miss (made anew), error (could not be made)"),
            orphans_removed: c.counter("orphans_removed", "Bindings that were gone and whose objects were removed from a managed cluster"),
            sweeps: c.counters("sweeps", "Sweeps of managed clusters by result"),
            breaker_trips: c.counter("sweep_breaker_trips", "Sweeps stopped because they would have removed too much"),
            lease_failures: c.counters("lease_failures", "Calls for the Lease of the leader that failed, by verb and reason"),
            permanent_failures: c.counters("permanent_failures", "Bindings that have failed for good, by the reason that condition and Event have, too"),
            catalog: Mutex::new(c),
        }
        .begun()
    }
}

impl Metrics {
    /// What an alert asks for begins at 0: a first value tells of no increase.
    fn begun(self) -> Self {
        for result in ["issued", "rejected", "failed", "retried"] {
            drop(self.binds.get_or_create(&Outcome { result }));
        }
        for result in ["removed", "abandoned", "retried"] {
            drop(self.unbinds.get_or_create(&Outcome { result }));
        }
        self
    }

    /// The same for what else has reasons of that many words.
    pub fn begin(&self, cluster_errors: &[&'static str], permanent_failures: &[&'static str]) {
        for reason in cluster_errors.iter().copied() {
            drop(self.cluster_errors.get_or_create(&Cause { reason }));
        }
        for reason in permanent_failures.iter().copied() {
            drop(self.permanent_failures.get_or_create(&Cause { reason }));
        }
    }

    /// Adds numbers that are counted at each scrape.
    pub fn collect(&self, described: &[Described], collector: impl Collector) {
        let mut catalog = self.catalog.lock();
        catalog.described.extend(described);
        catalog.registry.register_collector(Box::new(collector));
    }

    /// All that are declared, by name.
    #[must_use]
    pub fn described(&self) -> Vec<Described> {
        let mut described = self.catalog.lock().described.clone();
        described.sort_by_key(|described| described.name);
        described
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

    /// So many connections a listener has at most.
    pub fn connections_limit(&self, listener: &'static str, most: usize) {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.connections_limit.get_or_create(&Listener { listener }).set(most);
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

    /// A reconcile is under way while the result is held.
    pub fn reconcile(&self) -> Held {
        Held::new(&self.reconciles_in_flight)
    }

    /// A try to make a binding ended.
    pub fn bound(&self, result: &'static str) {
        self.binds.get_or_create(&Outcome { result }).inc();
    }

    /// A try to remove a binding ended.
    pub fn unbound(&self, result: &'static str) {
        self.unbinds.get_or_create(&Outcome { result }).inc();
    }

    /// A part of a bind ended.
    pub fn bind_phase(&self, phase: &'static str, took: Duration) {
        self.bind_phases.get_or_create(&Part { phase }).observe(took.as_secs_f64());
    }

    /// What a binding gave was seen gone. Nothing when that was before its end.
    pub fn revoked(&self, ended: Timestamp, now: Timestamp) {
        if now >= ended {
            self.expiry_lag.observe(now.duration_since(ended).as_secs_f64());
        }
    }

    /// A listener has that certificate from now on.
    pub fn certificate(&self, listener: &'static str, ends: Timestamp) {
        self.certificate_expiry.get_or_create(&Listener { listener }).set(ends.as_second());
    }

    /// A call to a managed cluster ended.
    pub fn managed_cluster_call(&self, verb: &'static str, result: &'static str, took: Duration) {
        self.cluster_requests.get_or_create(&Call { verb, result }).inc();
        self.cluster_request_duration.get_or_create(&Verb { verb }).observe(took.as_secs_f64());
    }

    /// A client of a managed cluster is kept while the result is held.
    pub fn client(&self) -> Held {
        Held::new(&self.clients)
    }

    /// A client of a managed cluster was asked for.
    pub fn client_lookup(&self, result: &'static str) {
        self.client_lookups.get_or_create(&Outcome { result }).inc();
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

    /// A call for the Lease failed.
    pub fn lease_failure(&self, verb: &'static str, reason: &'static str) {
        self.lease_failures.get_or_create(&Try { verb, reason }).inc();
    }

    /// A binding has failed for good.
    pub fn permanent_failure(&self, reason: &'static str) {
        self.permanent_failures.get_or_create(&Cause { reason }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.catalog.lock().registry);
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
        metrics.bound("issued");
        metrics.unbound("removed");
        metrics.bind_phase("token", Duration::from_millis(3));
        let ended = Timestamp::UNIX_EPOCH;
        metrics.revoked(ended, Timestamp::from_second(4).unwrap());
        metrics.revoked(Timestamp::from_second(1).unwrap(), ended);
        metrics.certificate("api", Timestamp::from_second(7).unwrap());
        metrics.managed_cluster_call("create", "2xx", Duration::from_millis(3));
        metrics.client_lookup("hit");
        let _client = (metrics.client(), metrics.reconcile());
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
            r#"kyma_bindings_binds_total{result="issued"} 1"#,
            r#"kyma_bindings_unbinds_total{result="removed"} 1"#,
            r#"kyma_bindings_bind_phase_duration_seconds_count{phase="token"} 1"#,
            "kyma_bindings_expiry_lag_seconds_sum 4.0",
            "kyma_bindings_expiry_lag_seconds_count 1",
            r#"kyma_bindings_tls_certificate_expiry_timestamp_seconds{listener="api"} 7"#,
            r#"kyma_bindings_managed_cluster_requests_total{verb="create",result="2xx"} 1"#,
            r#"kyma_bindings_managed_cluster_request_duration_seconds_count{verb="create"} 1"#,
            r#"kyma_bindings_managed_cluster_client_lookups_total{result="hit"} 1"#,
            "kyma_bindings_managed_cluster_clients 1",
            "kyma_bindings_reconciles_in_flight 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
