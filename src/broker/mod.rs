//! The Open Service Broker API over HTTP. It writes `KymaBinding`s, turns their conditions into
//! answers and reads their Secrets; it knows no instance and no managed cluster.

mod answer;
mod bind;
pub mod bindings;
mod fetch;
pub mod problem;
pub mod request;
mod service;
mod unbind;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use problem::Problem;
use request::{BindRequest, Ids, REQUEST_IDENTITY};

pub use service::{Broker, Settings};

impl Broker {
    /// The routes, under each of the three prefixes.
    pub fn router(self) -> Router {
        let broker = Arc::new(self);
        let binding = get(fetch_binding).put(put_binding).delete(delete_binding).fallback(wrong_method);
        let osb = Router::new()
            .route("/service_instances/{instance_id}/service_bindings/{binding_id}", binding)
            .route_layer(middleware::from_fn(api_version));
        Router::new()
            .nest("/v2", osb.clone())
            .nest("/oauth/v2", osb.clone())
            .nest("/oauth/{region}/v2", osb)
            .fallback(async || Problem::UnknownPath)
            .layer(middleware::from_fn_with_state(broker.clone(), observe))
            .with_state(broker)
    }
}

async fn put_binding(
    State(broker): State<Arc<Broker>>,
    ids: Ids,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let request = BindRequest::read(&parts.headers, body, broker.settings.lifetimes).await?;
    let (credentials, created) = bind::bind(&broker, &ids, &request).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(credentials.bound())).into_response())
}

async fn fetch_binding(State(broker): State<Arc<Broker>>, ids: Ids) -> Result<Response, Problem> {
    let credentials = fetch::fetch(&broker, &ids).await?;
    Ok(Json(credentials.fetched()).into_response())
}

async fn delete_binding(
    State(broker): State<Arc<Broker>>,
    ids: Ids,
    request: Request,
) -> Result<Response, Problem> {
    request::check_unbind_query(&request.into_parts().0)?;
    unbind::unbind(&broker, &ids).await?;
    Ok(Json(json!({})).into_response())
}

async fn wrong_method() -> Response {
    let mut response = Problem::WrongMethod.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,PUT,DELETE"));
    response
}

async fn api_version(request: Request, next: Next) -> Result<Response, Problem> {
    request::check_version(request.headers())?;
    Ok(next.run(request).await)
}

/// Around every request: a bound on how many, the echo of its identity, metrics and one log line.
async fn observe(State(broker): State<Arc<Broker>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let identity = request.headers().get(REQUEST_IDENTITY).cloned();
    let route =
        if request.extensions().get::<MatchedPath>().is_some() { "service_binding" } else { "unknown" };
    let method = method(request.method());
    let mut response = match broker.in_flight.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Problem::Overloaded.into_response(),
    };
    let code = response.status().as_u16();
    let took = began.elapsed();
    broker.metrics.answered(route, method, code, took);
    let request_id = identity.as_ref().and_then(|v| v.to_str().ok());
    tracing::info!(route, method, code, request_id, took_ms = took.as_millis(), "answered");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(identity) = identity {
        response.headers_mut().insert(REQUEST_IDENTITY, identity);
    }
    response
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
