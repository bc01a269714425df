//! Around every request: a span, a bound on how many, the echo of its identity, metrics, and one
//! line in the log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::auth::Asker;
use super::ids::Ids;
use super::limits;
use super::request::{self, REQUEST_IDENTITY};
use super::service::Broker;
use crate::broker::error::Problem;
use crate::telemetry::identity::identified;
use crate::telemetry::{logs, traces};

/// The route of what leads nowhere.
const UNKNOWN: &str = "unknown";
/// Status of a request whose client went away before the answer, as nginx logs it.
const CLIENT_CLOSED: u16 = 499;

/// Answers a request and says so.
pub async fn observe(
    State(broker): State<Arc<Broker>>,
    ids: Result<Ids, Problem>,
    mut request: Request,
    next: Next,
) -> Response {
    let line = Line::begin(&broker, ids.ok(), &request);
    request.extensions_mut().insert(line.asker.clone());
    let answering = identified(line.request_id.clone(), limits::bounded(&broker, request, next));
    let mut response = answering.instrument(line.span.clone()).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(identity) = line.request_id.as_deref().and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(REQUEST_IDENTITY, identity);
    }
    line.end(response.status().as_u16());
    response
}

/// What is said of a request, once: at its answer, or when it is dropped because its client went
/// away. All of it is bounded: the route's template instead of the path, never the query, and ids
/// only where they are legal.
struct Line {
    broker: Arc<Broker>,
    began: Instant,
    status: u16,
    template: Option<String>,
    method: &'static str,
    request_id: Option<Arc<str>>,
    ids: Option<Ids>,
    asker: Asker,
    span: Span,
}

impl Line {
    fn begin(broker: &Arc<Broker>, ids: Option<Ids>, request: &Request) -> Self {
        let request_id = request::identity(request.headers()).map(Arc::from);
        let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let (method, route) = (method(request.method()), template.as_deref().unwrap_or(UNKNOWN));
        // Names of OpenTelemetry's semantic conventions for HTTP.
        let span = tracing::info_span!(
            "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            request_id = request_id.as_deref(),
            instance_id = ids.as_ref().map(|ids| ids.instance.as_str()),
            binding_id = ids.as_ref().map(|ids| ids.binding.as_str())
        );
        let header = |name| text(request.headers(), name);
        traces::follow(&span, header("traceparent"), header("tracestate"));
        Self {
            broker: broker.clone(),
            began: Instant::now(),
            status: CLIENT_CLOSED,
            template,
            method,
            request_id,
            ids,
            asker: Asker::default(),
            span,
        }
    }

    fn end(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { status, method, ref template, ref request_id, .. } = *self;
        let (route, took) = (template.as_deref().unwrap_or(UNKNOWN), self.began.elapsed());
        self.broker.metrics.answered(label(template.as_deref()), method, status, took);
        self.span.record("http.response.status_code", status);
        if status >= 500 {
            self.span.record("otel.status_code", "ERROR");
        }
        let instance_id = self.ids.as_ref().map(|ids| ids.instance.as_str());
        let binding_id = self.ids.as_ref().map(|ids| ids.binding.as_str());
        let principal = self.asker.0.get().map(|principal| principal.name.as_str());
        self.span.in_scope(|| {
            let (trace_id, duration_ms) = (traces::id(), logs::rounded(took.as_secs_f64() * 1e3));
            tracing::info!(
                route,
                method,
                status,
                duration_ms,
                request_id = request_id.as_deref(),
                instance_id,
                binding_id,
                principal,
                trace_id,
                "answered"
            );
        });
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A label of few values, whatever the prefix.
fn label(template: Option<&str>) -> &'static str {
    let Some(template) = template else { return UNKNOWN };
    match template.rsplit('/').next() {
        Some("{binding_id}") => "service_binding",
        Some("last_operation") => "last_operation",
        Some("catalog") => "catalog",
        _ => "docs",
    }
}

/// A label of few values: clients may send any word as their method.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_few() {
        let binding = "/service_instances/{instance_id}/service_bindings/{binding_id}";
        for prefix in ["/v2", "/oauth/v2", "/oauth/{region}/v2"] {
            assert_eq!(label(Some(&format!("{prefix}{binding}"))), "service_binding");
            assert_eq!(label(Some(&format!("{prefix}{binding}/last_operation"))), "last_operation");
            assert_eq!(label(Some(&format!("{prefix}/catalog"))), "catalog");
        }
        assert_eq!(label(Some("/docs/{*file}")), "docs");
        assert_eq!(label(None), "unknown");
        assert_eq!((method(&Method::PUT), method(&Method::from_bytes(b"ANY").unwrap())), ("PUT", "other"));
    }
}
