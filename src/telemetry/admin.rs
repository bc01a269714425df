//! The admin listener: probes and metrics, apart from the API and its authentication.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::metrics::Metrics;

type Missing = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// A named condition of readiness.
pub struct Check {
    name: &'static str,
    /// Nothing while it holds, else why it doesn't; empty where the name says it.
    missing: Missing,
}

impl Check {
    /// One whose name says all.
    pub fn holds(name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { name, missing: Box::new(move || (!holds()).then(String::new)) }
    }

    /// One that says why it doesn't hold.
    pub fn explained(
        name: &'static str,
        why_not: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { name, missing: Box::new(why_not) }
    }

    fn missing(&self) -> Option<String> {
        let why = (self.missing)()?;
        Some(if why.is_empty() { self.name.to_owned() } else { format!("{} ({why})", self.name) })
    }
}

/// What the admin listener shows.
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// All must hold for the process to be ready.
    pub checks: Vec<Check>,
}

/// The routes `/healthz`, `/livez`, `/readyz` and `/metrics`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(admin))
}

async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let missing: Vec<_> = admin.checks.iter().filter_map(Check::missing).collect();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_named_with_its_cause() {
        let ready = async |checks| {
            let admin = Admin { metrics: Arc::default(), checks };
            let response = ready(State(Arc::new(admin))).await.into_response();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let good = || Check::holds("good", || true);
        assert_eq!(ready(vec![good(), Check::explained("well", || None)]).await, (200, "ok\n".to_owned()));
        let bad = vec![good(), Check::holds("bad", || false), Check::explained("ill", || Some("why".into()))];
        assert_eq!(ready(bad).await, (503, "not ready: bad, ill (why)\n".to_owned()));
    }
}
