//! Around every request: a span, a bound on how many, the echo of its identity, metrics, and one
//! line in the log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::auth::Principal;
use super::limits;
use super::problem::Problem;
use super::request::{self, Ids, REQUEST_IDENTITY};
use super::service::Broker;
use crate::telemetry::traces;

/// Answers a request and says so. What is logged is bounded: the route's template instead of the
/// path, never the query, and ids only where they are legal.
pub async fn observe(
    State(broker): State<Arc<Broker>>,
    ids: Result<Ids, Problem>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let identity = request::identity(request.headers()).map(str::to_owned);
    let request_id = identity.as_deref();
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).map(str::to_owned);
    let route = template.as_deref().unwrap_or("unknown");
    let method = method(request.method());
    let ids = ids.as_ref().ok();
    let (instance_id, binding_id) = (ids.map(|i| i.instance.as_str()), ids.map(|i| i.binding.as_str()));
    // Names of OpenTelemetry's semantic conventions for HTTP.
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request_id,
        instance_id,
        binding_id
    );
    traces::follow(&span, text(request.headers(), "traceparent"), text(request.headers(), "tracestate"));
    let mut response = limits::bounded(&broker, request, next).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    broker.metrics.answered(label(template.as_deref()), method, status, took);
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    let principal = response.extensions().get::<Principal>().map(|principal| principal.name.clone());
    span.in_scope(|| {
        let (trace_id, duration_ms) = (traces::id(), took.as_secs_f64() * 1e3);
        tracing::info!(
            route,
            method,
            status,
            duration_ms,
            request_id,
            instance_id,
            binding_id,
            principal,
            trace_id,
            "answered"
        );
    });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(identity) = identity.and_then(|identity| HeaderValue::try_from(identity).ok()) {
        response.headers_mut().insert(REQUEST_IDENTITY, identity);
    }
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A label of few values, whatever the prefix.
fn label(template: Option<&str>) -> &'static str {
    let Some(template) = template else { return "unknown" };
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
