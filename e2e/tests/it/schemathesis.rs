//! Schemathesis makes requests from the `OpenAPI` document, right ones and wrong ones, and looks whether
//! the answers are those that the document promises.

use std::path::Path;
use std::time::Duration;

use e2e::{Operator, eventually};
use kube::api::ListParams;
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::conditions::Kind;
use tokio::process::Command;

use crate::world::{program, stage};

/// Sends what the document makes likely, and fails when an answer isn't one that it promises.
async fn run(operator: &Operator, instance: &str, args: &[&str]) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut run = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/run"));
    run.arg(place.join("schemathesis")).arg(operator.url()).args(args).current_dir(place);
    // The operator is on this machine; the package index may not be.
    run.env("INSTANCE", instance).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let done = run.kill_on_drop(true).status().await.unwrap();
    assert!(done.success(), "Schemathesis found an answer that the document doesn't promise: see above");
    assert!(operator.runs());
}

#[tokio::test]
#[ignore = "slow: needs Python and its package index; .ci/run runs it"]
async fn every_answer_is_one_that_the_document_promises() {
    let (stage, instance) = stage("schemathesis").await;
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "1000"]).await.unwrap();
    run(&operator, &instance, &[]).await;
    // It got past the checks.
    for status in ["201", "200", "410"] {
        assert!(
            operator.log().contains(&format!(r#""status":{status}"#)),
            "nothing was answered with {status}"
        );
    }

    // Nothing half-made: what is left is decided.
    let bindings = stage.bindings();
    eventually("all bindings to be decided", Duration::from_mins(1), async || {
        let left = bindings.list(&ListParams::default()).await?.items;
        let ready = |b: &KymaBinding| b.condition(Kind::Ready).is_some_and(|c| c.status != "Unknown");
        let decided = left.iter().filter(|b| ready(b)).count();
        let told = format!("{decided} of {} are", left.len());
        if decided == left.len() { Ok(()) } else { Err(anyhow::anyhow!(told)) }
    })
    .await
    .unwrap();
    operator.kill().await.unwrap();

    // With a catalog, no other ids are good: only what it changes is asked for.
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/catalog.yaml");
    let operator = stage.operator(program(), &["--catalog", catalog]).await.unwrap();
    run(&operator, &instance, &["--include-path-regex", "/catalog$"]).await;
}
