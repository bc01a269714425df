//! What the API says about itself.

use e2e::osb::answer;
use kyma_bindings::broker::openapi;
use reqwest::Method;

use crate::world::{program, stage};

#[tokio::test]
async fn the_document_is_served_as_it_is_printed_and_the_page_is_fenced_in() {
    let (stage, _) = stage("docs").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    // Neither needs the version header or a login.
    let document = osb.bare(Method::GET, "/openapi.json").send().await.unwrap();
    assert_eq!(document.headers()["content-type"], "application/json");
    assert_eq!(document.text().await.unwrap(), openapi::render().unwrap());

    let page = osb.bare(Method::GET, "/docs").send().await.unwrap();
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs/"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let settings = osb.bare(Method::GET, "/docs/swagger-initializer.js").send().await.unwrap();
    assert!(settings.text().await.unwrap().contains("../openapi.json"));
    for (method, path, status) in [
        (Method::GET, "/docs/nothing", 404),
        (Method::POST, "/docs/", 405),
        (Method::PUT, "/openapi.json", 405),
    ] {
        let refused = answer(osb.bare(method, path)).await.unwrap();
        assert_eq!(refused.status, status, "{path} {}", refused.description());
    }
}

#[tokio::test]
async fn both_can_be_switched_off() {
    let (stage, _) = stage("no-docs").await;
    let operator = stage.operator(program(), &["--api-docs=false"]).await.unwrap();
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.html"] {
        assert_eq!(answer(operator.osb().bare(Method::GET, path)).await.unwrap().status, 404, "{path}");
    }
}
