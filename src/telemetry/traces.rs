//! Traces by OpenTelemetry, with W3C Trace Context (<https://www.w3.org/TR/trace-context/>) in and
//! out. Every request and every reconcile has a span and so a trace id, which the log names; spans
//! leave the process only where an OTLP endpoint is set.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::throttle::Sparingly;

/// Either switches the export on (OpenTelemetry, "OTLP Exporter Configuration").
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Longest wait for an answer of the endpoint.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest `tracestate` that is passed on, bytes: what the standard asks for at least.
const MAX_STATE: usize = 512;

/// Why traces can't be exported. The causes' own words may quote a header's value: they end here.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The client could not be made.
    #[error(
        "the client for OTEL_EXPORTER_OTLP_ENDPOINT could not be made: no TLS, or no certificates to trust"
    )]
    Client,
    /// The variables are wrong.
    #[error(
        "the variables OTEL_EXPORTER_OTLP_… can't be used: the endpoint must be a URL such as http://127.0.0.1:4318, \
         without compression"
    )]
    Exporter,
}

/// The source of all spans of the process.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// As the `OTEL_…` variables say. Must be called outside of an async runtime.
    ///
    /// # Errors
    /// When an endpoint is set and can't be used.
    pub fn from_env() -> Result<Self, TracesError> {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        if !ENDPOINTS.into_iter().any(set) {
            return Ok(Self(SdkTracerProvider::builder().build()));
        }
        // A proxy or another place named by whoever answers is not ours to obey.
        let client = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|_| TracesError::Client)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|_| TracesError::Exporter)?;
        let named =
            std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|said| said.contains("service.name="));
        let mut resource = Resource::builder();
        if !named && !set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("kyma-bindings");
        }
        // Its queue is bounded and drops what doesn't fit; its thread alone waits for the endpoint.
        let exporter = Told { exporter, sparingly: Mutex::default() };
        Ok(Self(
            SdkTracerProvider::builder()
                .with_resource(resource.build())
                .with_batch_exporter(exporter)
                .build(),
        ))
    }

    /// What makes spans of ours into spans of a trace. Events stay in the log alone.
    #[must_use]
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> {
        let ours = Targets::new().with_target("kyma_bindings", LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("kyma-bindings"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.and(filter_fn(|metadata| !metadata.is_event())))
    }

    /// Sends what is left. Blocks for a second at most.
    pub fn flush(&self) {
        if self.0.shutdown_with_timeout(FLUSH_TIMEOUT).is_err() {
            tracing::warn!("the last spans were not taken by OTEL_EXPORTER_OTLP_ENDPOINT");
        }
    }
}

/// Says in our own words, sparingly, that spans are lost.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    sparingly: Mutex<Sparingly>,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        if result.is_err() && self.sparingly.lock().due() {
            tracing::warn!(spans, "OTEL_EXPORTER_OTLP_ENDPOINT does not take our spans; they are lost");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// What carries a trace to another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The `traceparent`.
    pub parent: String,
    /// The `tracestate`, unless it is empty.
    pub state: Option<String>,
}

/// The carrier of the span that is entered.
#[must_use]
pub fn here() -> Option<Carrier> {
    let mut carried = HashMap::new();
    TraceContextPropagator::new().inject_context(&Context::current(), &mut carried);
    let parent = carried.remove("traceparent")?;
    Some(Carrier { parent, state: carried.remove("tracestate").filter(|state| !state.is_empty()) })
}

/// Makes a span that was not entered yet a child of what another process says. A malformed parent
/// is ignored, and so is a state without a parent.
pub fn follow(span: &Span, parent: Option<&str>, state: Option<&str>) {
    let state = state.filter(|state| state.len() <= MAX_STATE);
    let carried: HashMap<String, String> = [("traceparent", parent), ("tracestate", state)]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    let context = TraceContextPropagator::new().extract(&carried);
    if context.span().span_context().is_valid() {
        // Where nobody listens to spans there is none to follow.
        let _ = span.set_parent(context);
    }
}

/// Trace id of the span that is entered, 32 hexadecimal digits.
#[must_use]
pub fn id() -> Option<String> {
    let context = Context::current();
    let trace = context.span().span_context().trace_id();
    (trace != opentelemetry::TraceId::INVALID).then(|| trace.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// What is carried on from a span that follows the given headers.
    fn carried(parent: Option<&str>, state: Option<&str>) -> Carrier {
        let traces = Traces(SdkTracerProvider::builder().build());
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("test");
            follow(&span, parent, state);
            let _entered = span.enter();
            assert_eq!(id().as_deref(), here().unwrap().parent.get(3..35));
            here().unwrap()
        })
    }

    #[test]
    fn a_trace_goes_on_under_a_span_of_ours() {
        for flags in ["01", "00"] {
            let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let carrier = carried(Some(&parent), Some("vendor=x"));
            assert!(carrier.parent.starts_with(&format!("00-{TRACE}-")), "{}", carrier.parent);
            assert!(carrier.parent.ends_with(flags) && carrier.parent != parent);
            assert_eq!(carrier.state.as_deref(), Some("vendor=x"));
        }
    }

    #[test]
    fn what_is_malformed_begins_a_trace_of_our_own() {
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let upper = format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase());
        for parent in [None, Some(""), Some("00"), Some(TRACE), Some(&*zeros), Some(&*upper), Some("ä-ä-ä-ä")]
        {
            let carrier = carried(parent, Some("vendor=x"));
            assert_eq!(carrier.parent.len(), 55, "{}", carrier.parent);
            assert!(!carrier.parent.contains(TRACE));
            assert_eq!(carrier.state, None);
        }
        let long = format!("vendor={}", "x".repeat(600));
        assert_eq!(carried(Some(&format!("00-{TRACE}-00f067aa0ba902b7-01")), Some(&long)).state, None);
    }

    #[test]
    fn without_a_span_there_is_nothing_to_carry() {
        assert_eq!((here(), id()), (None, None));
    }
}
