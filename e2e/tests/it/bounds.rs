//! Bounds of requests: how large, how slow, how many.

use anyhow::anyhow;
use e2e::osb::answer;
use e2e::stage::SOON;
use e2e::{Operator, eventually};
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{program, stage};

/// Waits for a line of the metrics.
pub async fn metric(operator: &Operator, line: &str) {
    eventually(line, SOON, async || {
        let (_, metrics) = operator.admin("/metrics").await?;
        if metrics.lines().any(|seen| seen == line) { Ok(()) } else { Err(anyhow!(metrics)) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn heads_that_are_too_large_are_told_so_in_json() {
    let (stage, instance) = stage("heads").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let here = format!("/v2/service_instances/{instance}/service_bindings/heads-1");
    let get = |query: &str| {
        osb.bare(Method::GET, &format!("{here}?{query}")).header("X-Broker-API-Version", "2.17")
    };
    let many = (0..101).fold(get(""), |request, number| request.header(format!("x-{number}"), "v"));
    for (request, status, word) in [
        (get(&"q".repeat(9 * 1024)), 414, "8192"),
        (get("").header("x-large", "v".repeat(33 * 1024)), 431, "32768"),
        (many, 431, "100"),
    ] {
        let refused = answer(request).await.unwrap();
        assert_eq!(refused.status, status);
        assert!(refused.description().contains(word), "{}", refused.description());
        assert_eq!(refused.headers["content-type"], "application/json");
    }
    // Beyond what is read at all, no body can be had, but the status is the same, if it still arrives:
    // the connection ends while there is something to be read.
    let request = get("").header("x-huge", "v".repeat(100 * 1024));
    if let Ok(refused) = request.send().await {
        assert_eq!(refused.status(), 431);
    }
    let ended = "kyma_bindings_connections_ended_total{listener=\"api\",reason";
    metric(&operator, &format!("{ended}=\"head_too_large\"}} 1")).await;
    let mut stream = TcpStream::connect(operator.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.unwrap();
    let mut refusal = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut refusal)).await.unwrap().unwrap();
    assert!(refusal.starts_with("HTTP/1.1 400"), "{refusal}");
    metric(&operator, &format!("{ended}=\"malformed\"}} 1")).await;
    let identity = get("").header("X-Broker-API-Request-Identity", "i".repeat(257));
    let unshown = answer(identity).await.unwrap();
    assert_eq!((unshown.status, unshown.headers.get("x-broker-api-request-identity")), (404, None));
    assert!(!operator.log().contains("iiiiii"), "what is too long is not logged");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (stage, instance) = stage("slow").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let address = operator.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /v2/service_instances/{instance}/service_bindings/slow-1 HTTP/1.1\r\nHost: {address}\r\n\
         X-Broker-API-Version: 2.17\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // Until the server closes it: what is left of the body can't be told from another request.
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("the body did not arrive"), "{answer}");
    metric(&operator, "kyma_bindings_connections{listener=\"api\"} 0").await;
}

#[tokio::test]
async fn more_requests_than_allowed_are_told_to_come_again() {
    let (stage, instance) = stage("flight").await;
    // Without a kubeconfig a bind waits for as long as it may.
    stage.rotate("r-flight", None).await.unwrap();
    let operator =
        stage.operator(program(), &["--max-in-flight", "2", "--create-timeout", "5s"]).await.unwrap();
    let osb = operator.osb();
    let waiting =
        async { tokio::join!(osb.bind(&instance, "flight-1", None), osb.bind(&instance, "flight-2", None)) };
    let third = async {
        metric(&operator, "kyma_bindings_http_requests_in_flight 2").await;
        osb.fetch(&instance, "flight-3").await.unwrap()
    };
    let ((first, second), third) = tokio::join!(waiting, third);
    assert_eq!((first.unwrap().status, second.unwrap().status), (503, 503));
    assert_eq!(third.status, 429);
    assert!(third.headers.contains_key("retry-after"));
    assert!(third.description().contains("too many requests"), "{}", third.description());
    assert_eq!(osb.fetch(&instance, "flight-3").await.unwrap().status, 404, "when they are done");
    metric(&operator, "kyma_bindings_http_requests_in_flight 0").await;
}
