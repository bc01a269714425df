//! What can be seen of a request from outside: its line in the log, and its trace.

use std::collections::BTreeSet;
use std::sync::Arc;

use e2e::collector::Collected;
use e2e::osb::answer;
use e2e::stage::SOON;
use e2e::{Exit, Operator, WorkDir, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::canary::pieces;
use crate::world::{program, stage, world};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Names of services with the spans that they sent.
fn spans(collected: &Collected) -> Vec<(String, Span)> {
    let bodies = collected.bodies().into_iter();
    let sent = bodies.flat_map(|b| ExportTraceServiceRequest::decode(b).unwrap().resource_spans);
    sent.flat_map(|of_one| {
        let attributes = of_one.resource.unwrap().attributes;
        let service = attributes.into_iter().find(|a| a.key == "service.name").unwrap().value;
        let service = format!("{:?}", service.unwrap().value.unwrap());
        let spans = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(|span| (service.clone(), span)).collect::<Vec<_>>()
    })
    .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + format!("{byte:02x}").as_str())
}

/// The line about a request with this method.
fn access_line(log: &str, method: &str) -> Value {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut of_method = lines.filter(|line| line["msg"] == "answered" && line["method"] == method);
    of_method.next().unwrap_or_else(|| panic!("no line about {method} in {log}"))
}

#[tokio::test]
async fn a_request_and_its_reconcile_are_one_trace() {
    let (stage, instance) = stage("traces").await;
    let collected = Collected::begin().unwrap();
    let envs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
    ];
    let kubeconfig = world().await.control.kubeconfig_path();
    let start = async |role: &str, envs: &[(&str, &str)]| {
        let dir = Arc::new(WorkDir::new("operator").unwrap());
        let args = [&stage.args()[..], &["--role", role]].concat();
        let operator = Operator::launch_with(&dir, program(), kubeconfig, &args, envs).await.unwrap();
        operator.ready().await.unwrap();
        operator
    };
    // Two processes: all that they share is the object.
    let broker = start("broker", &envs).await;
    let controller =
        start("controller", &[&envs[..], &[("OTEL_SERVICE_NAME", "the-controller")]].concat()).await;

    let path = format!(
        "/v2/service_instances/{instance}/service_bindings/traces-1?accepts_incomplete=false&token=in-a-query"
    );
    let request = broker
        .osb()
        .bare(Method::PUT, &path)
        .json(&json!({"service_id": "s", "plan_id": "p"}))
        .header("X-Broker-API-Version", "2.17")
        .header("X-Broker-API-Request-Identity", "req-7")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=x");
    let made = answer(request).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());

    let annotations = stage.bindings().get("traces-1").await.unwrap().metadata.annotations.unwrap();
    let carried = &annotations["bindings.kyma-project.io/traceparent"];
    assert_eq!(carried.get(3..35), Some(TRACE));
    assert_eq!(annotations["bindings.kyma-project.io/tracestate"], "vendor=x");

    let both = eventually("both spans of the trace", SOON, async || {
        let all = spans(&collected);
        let ours: Vec<_> = all.into_iter().filter(|(_, span)| hex(&span.trace_id) == TRACE).collect();
        let names: BTreeSet<_> = ours.iter().map(|(_, span)| span.name.clone()).collect();
        if names.len() == 2 { Ok(ours) } else { Err(format!("{names:?}")) }
    })
    .await
    .unwrap();
    let (service, server) = both.iter().find(|(_, span)| span.name.starts_with("PUT ")).unwrap();
    assert!(service.contains("kyma-bindings"), "{service}");
    assert_eq!(server.name, "PUT /v2/service_instances/{instance_id}/service_bindings/{binding_id}");
    assert_eq!(hex(&server.parent_span_id), PARENT);
    let (service, reconcile) = both.iter().find(|(_, span)| span.name == "reconcile").unwrap();
    assert!(service.contains("the-controller"), "{service}");
    assert_eq!(reconcile.parent_span_id, server.span_id, "the annotation names the broker's span");

    let line = access_line(&broker.log(), "PUT");
    for (key, value) in [
        ("level", json!("INFO")),
        ("route", json!("/v2/service_instances/{instance_id}/service_bindings/{binding_id}")),
        ("status", json!(201)),
        ("request_id", json!("req-7")),
        ("instance_id", json!(instance)),
        ("binding_id", json!("traces-1")),
        ("trace_id", json!(TRACE)),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert!(line["duration_ms"].is_f64() && line["time"].is_string(), "{line}");
    assert!(!broker.log().contains("in-a-query") && !broker.log().contains("accepts_incomplete"));
    let reconciled = controller.log();
    let issued = reconciled.lines().find(|line| line.contains("kubeconfig issued")).unwrap();
    assert!(issued.contains(&format!(r#""trace_id":"{TRACE}""#)), "{issued}");

    // What was not sent yet is sent at the end.
    broker.osb().fetch(&instance, "traces-1").await.unwrap();
    broker.terminate().await.unwrap();
    controller.terminate().await.unwrap();
    assert!(
        spans(&collected).iter().any(|(_, span)| span.name.starts_with("GET ")),
        "the last spans are lost"
    );
    let sent: Vec<_> =
        collected.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    for piece in pieces(made.kubeconfig().unwrap()) {
        assert!(!sent.iter().any(|body| body.contains(piece)), "a piece of a credential was sent");
    }
    assert!(!sent.iter().any(|body| body.contains("in-a-query")));
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_nobody_up() {
    let (stage, instance) = stage("traces-mute").await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", mute.local_addr().unwrap());
    let connected = tokio::spawn(async move {
        let (mut first, _) = mute.accept().await.unwrap();
        first.read_u8().await.unwrap();
        (mute, first)
    });
    let envs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        // What isn't sent yet fills it at once.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let dir = Arc::new(WorkDir::new("operator").unwrap());
    let kubeconfig = world().await.control.kubeconfig_path();
    let operator = Operator::launch_with(&dir, program(), kubeconfig, &stage.args(), &envs).await.unwrap();
    operator.ready().await.unwrap();
    let osb = operator.osb();
    osb.fetch(&instance, "mute-1").await.unwrap();
    let held = tokio::time::timeout(SOON, connected).await.expect("a span is sent").unwrap();
    let fetches = async {
        for _ in 0..100 {
            assert_eq!(osb.fetch(&instance, "mute-1").await.unwrap().status, 404);
        }
    };
    tokio::time::timeout(SOON, fetches).await.expect("no request waits for the collector");
    assert_eq!(osb.bind(&instance, "mute-1", None).await.unwrap().status, 201);
    // Its end is in time, too, whatever is left to be sent.
    assert_eq!(operator.terminated().await.unwrap(), Exit::Code(0));
    drop(held);
}

#[tokio::test]
async fn what_can_not_be_used_is_ignored() {
    let (stage, instance) = stage("traces-odd").await;
    // Nobody listens there, which keeps nobody waiting.
    let envs = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let dir = Arc::new(WorkDir::new("operator").unwrap());
    let kubeconfig = world().await.control.kubeconfig_path();
    let operator = Operator::launch_with(&dir, program(), kubeconfig, &stage.args(), &envs).await.unwrap();
    operator.ready().await.unwrap();
    let request = operator
        .osb()
        .bare(Method::PUT, &format!("/v2/service_instances/{instance}/service_bindings/odd-1"))
        .json(&json!({"service_id": "s", "plan_id": "p"}))
        .header("X-Broker-API-Version", "2.17")
        .header("traceparent", format!("00-{TRACE}-nonsense-01"));
    assert_eq!(answer(request).await.unwrap().status, 201);
    // Ids that are no ids are not repeated.
    let odd = "/v2/service_instances/a%0Ab/service_bindings/UPPER";
    operator.osb().request(Method::GET, odd, None).await.unwrap();
    operator.osb().request(Method::DELETE, "/no/such/path", None).await.unwrap();
    let (put, get, delete) = {
        let log = operator.log();
        (access_line(&log, "PUT"), access_line(&log, "GET"), access_line(&log, "DELETE"))
    };
    let trace = put["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace != TRACE, "{put}");
    assert_eq!((get.get("binding_id"), get.get("instance_id")), (None, None), "{get}");
    assert_eq!((&delete["route"], &delete["status"]), (&json!("unknown"), &json!(404)));
    eventually("the loss to be said", SOON, async || {
        let log = operator.log();
        if log.contains("does not take our spans") { Ok(()) } else { Err("not said yet") }
    })
    .await
    .unwrap();
    operator.terminate().await.unwrap();
}
