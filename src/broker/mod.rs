//! The Open Service Broker API over HTTP. It writes `KymaBinding`s, turns their conditions into
//! answers and reads their Secrets; it knows no instance and no managed cluster.

pub mod auth;
mod bind;
pub mod catalog;
mod docs;
pub mod error;
mod fetch;
pub mod ids;
mod last_operation;
mod limits;
mod message;
mod middleware;
pub mod openapi;
mod operation;
pub mod request;
pub mod response;
mod service;
pub mod store_view;
mod unbind;

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::broker::error::{Problem, Why};
use auth::Authenticator;
use bind::Bound;
use ids::Ids;
use last_operation::Stands;
use limits::Place;
use operation::Operation;
use request::{Asked, BindRequest};

use crate::telemetry::identity::{identified, identity};

pub use service::{Broker, Settings};

/// Where a binding is.
const BINDING: &str = "/service_instances/{instance_id}/service_bindings/{binding_id}";

/// Seconds after which to ask again how an operation stands.
const POLL: u16 = 2;

impl Broker {
    /// The routes, under each of the three prefixes, for those who are let in.
    pub fn router(self, auth: Authenticator) -> Router {
        let broker = Arc::new(self);
        let binding = get(fetch_binding).put(put_binding).delete(delete_binding);
        let auth = Arc::new(auth);
        // Methods for those who are let in and speak a version that is served; for anybody else, which
        // methods there are.
        let only = |allowed, methods: MethodRouter<Arc<Self>>| {
            methods
                .route_layer(from_fn(api_version))
                .route_layer(from_fn_with_state(auth.clone(), auth::authenticate))
                .fallback(async move || wrong_method(allowed))
        };
        let osb = Router::new()
            .route("/catalog", only("GET,HEAD", get(fetch_catalog)))
            .route(BINDING, only("GET,HEAD,PUT,DELETE", binding))
            .route(&format!("{BINDING}/last_operation"), only("GET,HEAD", get(fetch_last_operation)));
        let docs = if broker.settings.api_docs { docs::router() } else { Router::new() };
        let routes = docs
            .nest("/v2", osb.clone())
            .nest("/oauth/v2", osb.clone())
            .nest("/oauth/{region}/v2", osb.layer(from_fn(region)))
            .fallback(async || Problem::UnknownPath)
            .layer(from_fn_with_state(broker.clone(), middleware::observe))
            .with_state(broker);
        // Before anything is routed.
        Router::new().fallback_service(routes.map_request(one_slash))
    }
}

async fn put_binding(
    State(broker): State<Arc<Broker>>,
    ids: Ids,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let incomplete = Asked::read(&parts.uri)?.incomplete()?;
    let request = BindRequest::read(&parts.headers, body, broker.settings.lifetimes).await?;
    if let Some(catalog) = &broker.settings.catalog {
        catalog.check(request.service_id.as_deref(), request.plan_id.as_deref())?;
    }
    let ids = Arc::new(ids);
    // A task of its own goes on when the client hangs up: what is refused is cleaned up even then.
    let task = {
        let (broker, ids, place) = (broker.clone(), ids.clone(), parts.extensions.get::<Place>().cloned());
        async move {
            let _place = place;
            bind::bind(&broker, &ids, &request, incomplete).await
        }
    };
    let bound = tokio::spawn(identified(identity(), task).in_current_span())
        .await
        .map_err(|_| Problem::NotReady(Why(None)))?;
    Ok(match bound? {
        Bound::Ready(credentials, true) => (StatusCode::CREATED, Json(credentials.bound())).into_response(),
        Bound::Ready(credentials, false) => Json(credentials.bound()).into_response(),
        Bound::Underway(operation) => accepted(&operation, &ids),
    })
}

async fn fetch_binding(State(broker): State<Arc<Broker>>, ids: Ids) -> Result<Response, Problem> {
    let credentials = fetch::fetch(&broker, &ids).await?;
    Ok(Json(credentials.fetched()).into_response())
}

async fn delete_binding(State(broker): State<Arc<Broker>>, ids: Ids, uri: Uri) -> Result<Response, Problem> {
    let asked = Asked::read(&uri)?;
    asked.check_ids()?;
    Ok(match unbind::unbind(&broker, &ids, asked.incomplete()?).await? {
        None => Json(response::Empty {}).into_response(),
        Some(operation) => accepted(&operation, &ids),
    })
}

async fn fetch_last_operation(
    State(broker): State<Arc<Broker>>,
    ids: Ids,
    uri: Uri,
) -> Result<Response, Problem> {
    let operation = Asked::read(&uri)?.operation(&ids)?;
    let stands = last_operation::last_operation(&broker, &ids, operation.as_ref()).await?;
    let goes_on = matches!(stands, Stands::InProgress(_));
    let response = Json(stands.body()).into_response();
    Ok(if goes_on { later(response) } else { response })
}

fn accepted(operation: &Operation, ids: &Ids) -> Response {
    later((StatusCode::ACCEPTED, Json(operation.accepted(ids))).into_response())
}

/// An answer that says when to ask again.
fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(POLL));
    response
}

async fn fetch_catalog(State(broker): State<Arc<Broker>>) -> Result<Response, Problem> {
    let catalog = broker.settings.catalog.as_ref().ok_or(Problem::NoCatalog)?;
    Ok(Json(catalog.body()).into_response())
}

fn wrong_method(allowed: &'static str) -> Response {
    let mut response = Problem::WrongMethod.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A doubled slash at the beginning counts as one: what joins a base URL and a path often makes two.
fn one_slash(mut request: Request) -> Request {
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    if target.starts_with("//") && !target.starts_with("///") {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = target.get(1..).and_then(|target| target.parse().ok());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// What a proxy in front could take for a step to another path is no region.
async fn region(
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let params = params.map_err(|_| Problem::Region)?;
    if params.iter().any(|(name, value)| name == "region" && !is_region(value)) {
        return Err(Problem::Region);
    }
    Ok(next.run(request).await)
}

fn is_region(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) && name.bytes().any(|c| c != b'.')
}

async fn api_version(request: Request, next: Next) -> Result<Response, Problem> {
    request::check_version(request.headers())?;
    limits::check_head(request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_name_and_no_step_to_another_path() {
        for name in ["cf-eu10", "a", "..a", "A_1.b"] {
            assert!(is_region(name), "{name}");
        }
        for odd in ["", ".", "..", "...", "a/b", "a b", "%2e", "a\\b", "\u{e4}", "a;b"] {
            assert!(!is_region(odd), "{odd}");
        }
    }

    #[test]
    fn only_a_doubled_slash_at_the_beginning_counts_as_one() {
        for (target, counts) in [
            ("//v2/catalog?a=//b", "/v2/catalog?a=//b"),
            ("https://h//v2/catalog", "https://h/v2/catalog"),
            ("/v2//catalog", "/v2//catalog"),
            ("///v2/catalog", "///v2/catalog"),
            ("/", "/"),
            ("//", "/"),
        ] {
            let request = Request::get(target).body(axum::body::Body::empty()).unwrap();
            assert_eq!(one_slash(request).uri(), counts, "{target}");
        }
    }
}
