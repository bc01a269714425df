//! Schemathesis makes requests from the `OpenAPI` document, right ones and wrong ones, and looks whether
//! the answers are those that the document promises.

use std::path::Path;
use std::time::Duration;

use e2e::eventually;
use kube::api::ListParams;
use tokio::process::Command;

use crate::world::{program, stage};

#[tokio::test]
#[ignore = "slow: needs Python and its package index; .ci/run runs it"]
async fn schemathesis() {
    let (stage, instance) = stage("schemathesis").await;
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "1000"]).await.unwrap();
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let mut run = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/run"));
    run.arg(venv).arg(operator.url()).env("INSTANCE", &instance).current_dir(env!("CARGO_TARGET_TMPDIR"));
    // The operator is on this machine; the package index may not be.
    run.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let done = run.kill_on_drop(true).status().await.unwrap();
    assert!(done.success(), "Schemathesis found an answer that the document doesn't promise: see above");
    assert!(operator.runs());

    // Nothing half-made: what is left is a binding that works, or ends by itself.
    let bindings = stage.bindings();
    eventually("all bindings to be decided", Duration::from_mins(1), async || {
        let left = bindings.list(&ListParams::default()).await?.items;
        let pending =
            left.iter().filter(|b| b.status.as_ref().is_none_or(|s| s.conditions.is_empty())).count();
        if pending == 0 { Ok(()) } else { Err(anyhow::anyhow!("{pending} are not")) }
    })
    .await
    .unwrap();
}
