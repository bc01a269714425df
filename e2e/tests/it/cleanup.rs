//! `kyma-bindings cleanup`, with an operator and without.

use std::process::Output;

use e2e::Stage;
use e2e::operator::AS_OPERATOR;
use e2e::stage::{prove, prove_refused};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::process::Command;

use crate::world::{program, stage, world};

/// Runs it in the stage's namespace.
pub async fn cleanup(stage: &Stage<'_>, timeout: &str) -> Output {
    let kubeconfig = stage.control().kubeconfig_path();
    let args =
        [AS_OPERATOR, "cleanup", "--namespace", &stage.namespace, "--timeout", timeout, "--kubeconfig"];
    Command::new(program()).args(args).arg(kubeconfig).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn all_bindings_are_revoked_before_the_operator_goes() {
    let (stage, instance) = stage("cleanup").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let by_http = osb.bind(&instance, "cleanup-1", None).await.unwrap().kubeconfig().unwrap().to_owned();
    stage.apply("cleanup-2", &instance, None).await.unwrap();
    let applied = stage.ready("cleanup-2").await.unwrap();
    prove(&applied).await.unwrap();
    let output = cleanup(&stage, "60s").await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("2 were removed"), "{}", said(&output));
    for kubeconfig in [by_http, applied] {
        prove_refused(&kubeconfig).await.unwrap();
    }
    let output = cleanup(&stage, "60s").await;
    assert!(output.status.success() && said(&output).contains("0 were removed"), "{}", said(&output));
}

#[tokio::test]
async fn a_cluster_that_can_not_be_reached_is_given_up_when_the_time_is_over() {
    let (stage, instance) = stage("cleanup-dead").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    operator.osb().bind(&instance, "cleanup-dead-1", None).await.unwrap().kubeconfig().unwrap();
    let dead =
        world().await.managed.admin_kubeconfig().replace(world().await.managed.url(), "https://127.0.0.1:9");
    stage.rotate("r-cleanup-dead", Some(&dead)).await.unwrap();
    let output = cleanup(&stage, "2s").await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("could not be reached: cleanup-dead-1;"), "{}", said(&output));
    assert!(stage.bindings().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn without_an_operator_it_ends_and_says_what_is_left() {
    let (stage, instance) = stage("cleanup-alone").await;
    stage.apply("cleanup-alone-1", &instance, None).await.unwrap();
    let finalizers = |finalizers| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let (bindings, params) = (stage.bindings(), PatchParams::default());
    let ours = finalizers(Some(["bindings.kyma-project.io/cleanup"]));
    bindings.patch("cleanup-alone-1", &params, &ours).await.unwrap();
    // Not the word that counts.
    let odd = Patch::Merge(json!({"metadata": {"annotations": {"bindings.kyma-project.io/forget": "yes"}}}));
    bindings.patch("cleanup-alone-1", &params, &odd).await.unwrap();
    let output = cleanup(&stage, "1s").await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("still there: cleanup-alone-1. Only a running operator"),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("give up their managed cluster: cleanup-alone-1"), "{}", said(&output));
    bindings.patch("cleanup-alone-1", &params, &finalizers(None)).await.unwrap();
}
