//! The OpenAPI document and Swagger UI, which is a part of this program. Both tell what anybody may
//! know and are served to anybody.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use super::openapi;
use crate::broker::error::Problem;

/// Where the document is served.
const DOCUMENT: &str = "/openapi.json";

/// What a browser lets the page do: run and show what this server sends, and talk to it; nothing
/// inline. Swagger UI has pictures in its style sheet.
const PAGE: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The routes `/openapi.json` and `/docs`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Without a document there is nothing to show; a test sees that there is one.
    let Ok(document) = openapi::render() else { return Router::new() };
    let document = Bytes::from(document);
    let json = async move || ([(header::CONTENT_TYPE, "application/json")], document.clone());
    // Relative, so that it is found behind a proxy that serves all of this under a path of its own.
    let config = Config::new([format!("..{DOCUMENT}")])
        .try_it_out_enabled(true)
        .validator_url("none")
        .query_config_enabled(false)
        .use_base_layout();
    let config = Arc::new(config);
    let page = move |path: Option<Path<String>>| {
        let config = config.clone();
        async move { file(path.as_ref().map_or("", |path| path.as_str()), config) }
    };
    Router::new()
        .route("/docs", get(async || Redirect::to("docs/")).fallback(read_only))
        .route("/docs/", get(page.clone()).fallback(read_only))
        .route("/docs/{*file}", get(page).fallback(read_only))
        .layer(middleware::map_response(guarded))
        .route(DOCUMENT, get(json).fallback(read_only))
}

async fn read_only() -> impl IntoResponse {
    ([(header::ALLOW, "GET,HEAD")], Problem::WrongMethod)
}

fn file(path: &str, config: Arc<Config<'static>>) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(path, config) else {
        return Problem::UnknownPath.into_response();
    };
    let kind = [(header::CONTENT_TYPE, file.content_type)];
    // Nobody proves who they are here: however often it is asked for, it is in memory once.
    let content = match file.bytes {
        Cow::Borrowed(part_of_us) => Bytes::from_static(part_of_us),
        Cow::Owned(settings) => settings.into(),
    };
    let mut response = (kind, content).into_response();
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

async fn guarded(mut response: Response) -> Response {
    for (name, value) in PAGE {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn what_strangers_ask_for_is_in_memory_once() {
        let router = router::<()>();
        for path in [DOCUMENT, "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"] {
            let ask = async || {
                let request = axum::extract::Request::get(path).body(axum::body::Body::empty()).unwrap();
                let body = router.clone().oneshot(request).await.unwrap().into_body();
                body.collect().await.unwrap().to_bytes()
            };
            let (first, second) = (ask().await, ask().await);
            assert!(first.len() > 1024, "{path}");
            assert_eq!(first.as_ptr(), second.as_ptr(), "{path} is copied");
        }
    }
}
