//! The HTTP contract, as far as it is served so far.

use e2e::osb::{Answer, Osb, answer};
use kube::api::ListParams;
use reqwest::Method;
use serde_json::json;

use crate::world::{program, stage};

fn path(instance: &str, binding: &str) -> String {
    format!("/v2/service_instances/{instance}/service_bindings/{binding}")
}

async fn put(osb: &Osb, path: &str, body: &str) -> Answer {
    osb.request(Method::PUT, path, Some(body.to_owned())).await.unwrap()
}

#[tokio::test]
async fn requests_that_are_wrong_are_told_what_would_be_right() {
    let (stage, instance) = stage("wrong").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let good = json!({"service_id": "s", "plan_id": "p"}).to_string();
    let with = |seconds: serde_json::Value| {
        json!({"service_id": "s", "plan_id": "p", "parameters": {"expiration_seconds": seconds}}).to_string()
    };
    let here = path(&instance, "wrong-1");
    for (path, body, status, word) in [
        (&here, String::new(), 400, "JSON object"),
        (&here, "[]".to_owned(), 400, "JSON object"),
        (&here, json!({"plan_id": "p"}).to_string(), 400, "service_id"),
        (&here, json!({"service_id": "s", "plan_id": ""}).to_string(), 400, "plan_id"),
        (&here, with(json!(599)), 400, "between 600 and 7200"),
        (&here, with(json!(7201)), 400, "between 600 and 7200"),
        (&here, with(json!("600")), 400, "between 600 and 7200"),
        (&here, with(json!(600.5)), 400, "between 600 and 7200"),
        (&here, " ".repeat(65 * 1024), 413, "65536"),
        (&path(&instance, "UPPER"), good.clone(), 400, "binding_id must be 1 to 240"),
        (&path(&instance, &"x".repeat(241)), good.clone(), 400, "binding_id"),
        (&path("a%20b", "b"), good.clone(), 400, "instance_id must be 1 to 63"),
        (&path(&instance, "%ff"), good.clone(), 400, "binding_id"),
        (&"/v2/nothing".to_owned(), good.clone(), 404, "nothing at this path"),
    ] {
        let answer = put(&osb, path, &body).await;
        assert_eq!(answer.status, status, "{path} {}", answer.description());
        assert!(answer.description().contains(word), "{word} is not in: {}", answer.description());
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let wrong_method = osb.request(Method::POST, &here, Some(good)).await.unwrap();
    assert_eq!(wrong_method.status, 405);
    assert_eq!(wrong_method.headers["allow"], "GET,HEAD,PUT,DELETE");
    let no_query = osb.request(Method::DELETE, &here, None).await.unwrap();
    assert_eq!(
        (no_query.status, no_query.description()),
        (400, "service_id must be given and must not be empty")
    );
    assert!(
        stage.bindings().list(&ListParams::default()).await.unwrap().items.is_empty(),
        "nothing half-made"
    );
}

#[tokio::test]
async fn the_version_is_asked_for_and_the_identity_is_echoed() {
    let (stage, instance) = stage("version").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let here = path(&instance, "version-1");
    for version in [None, Some("3.0"), Some("2"), Some("two")] {
        let mut request = osb.bare(Method::GET, &here);
        if let Some(version) = version {
            request = request.header("X-Broker-API-Version", version);
        }
        let refused = answer(request).await.unwrap();
        assert_eq!(refused.status, 412, "{version:?}");
        assert!(refused.description().contains("2.17"));
    }
    let body =
        json!({"service_id": "s", "plan_id": "p", "context": {"email": "a@example.com", "origin": "cf"}});
    let request = osb.bare(Method::PUT, &here).json(&body).header("X-Broker-API-Version", "2.14");
    let made = answer(request.header("X-Broker-API-Request-Identity", "req-42")).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    assert_eq!(made.headers["x-broker-api-request-identity"], "req-42");
    let binding = stage.bindings().get("version-1").await.unwrap();
    assert_eq!(binding.spec.created_by.as_deref(), Some("a@example.com cf"));
    assert_eq!(binding.metadata.annotations.unwrap()["bindings.kyma-project.io/request-id"], "req-42");
}

#[tokio::test]
async fn all_three_prefixes_lead_to_the_same_binding() {
    let (stage, instance) = stage("prefix").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let body = json!({"service_id": "s", "plan_id": "p"}).to_string();
    let here = path(&instance, "prefix-1");
    assert_eq!(put(&osb, &format!("/oauth{here}"), &body).await.status, 201);
    for prefix in ["", "/oauth", "/oauth/cf-eu10"] {
        let fetched = osb.request(Method::GET, &format!("{prefix}{here}?service_id=s"), None).await.unwrap();
        assert_eq!(fetched.status, 200, "{prefix}");
    }
    let gone = format!("/oauth/cf-eu10{here}?service_id=s&plan_id=p");
    assert_eq!(osb.request(Method::DELETE, &gone, None).await.unwrap().status, 200);
}
