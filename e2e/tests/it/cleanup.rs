//! `kyma-bindings cleanup`, with an operator and without.

use std::path::Path;
use std::process::Output;

use e2e::operator::AS_OPERATOR;
use e2e::stage::{SOON, prove, prove_refused};
use e2e::{Stage, eventually};
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
async fn a_namespace_that_is_not_there_is_an_error_for_whoever_can_tell() {
    let (stage, _) = stage("cleanup-typo").await;
    let control = stage.control();
    let clean = async |kubeconfig: &Path, namespace: &str| {
        let args = [AS_OPERATOR, "cleanup", "--namespace", namespace, "--timeout", "5s", "--kubeconfig"];
        let output = Command::new(program()).args(args).arg(kubeconfig).output().await.unwrap();
        (output.status.code(), said(&output))
    };
    let wrong = "error: namespace typo does not exist, so it has no bindings; --namespace must name";
    let (code, words) = clean(control.kubeconfig_path(), "typo").await;
    assert!(code == Some(1) && words.starts_with(wrong), "{words}");

    // Whoever may create bindings there, but not look at namespaces.
    let user = control.dir().join("cleanup-typo.yaml");
    std::fs::write(&user, control.kubeconfig_for("cleanup-typo", &[]).unwrap()).unwrap();
    let allow = async |name: &str, verbs: &str| {
        let role = format!("--verb={verbs}");
        let create =
            ["create", "clusterrole", name, &role, "--resource=kymabindings.bindings.kyma-project.io"];
        control.kubectl(&create).await.unwrap();
        let bind =
            ["create", "clusterrolebinding", name, "--user=cleanup-typo", &format!("--clusterrole={name}")];
        control.kubectl(&bind).await.unwrap();
    };
    allow("cleanup-typo-least", "list,patch,delete").await;
    let unseen = eventually("its rights", SOON, async || {
        let (code, words) = clean(&user, "typo").await;
        if code == Some(0) { Ok(words) } else { Err(words) }
    });
    let unseen = unseen.await.unwrap();
    assert!(unseen.contains("whether typo exists was not seen"), "{unseen}");
    allow("cleanup-typo-more", "create").await;
    eventually("it to be told by the trial", SOON, async || {
        let (code, words) = clean(&user, "typo").await;
        if code == Some(1) && words.starts_with(wrong) { Ok(()) } else { Err(words) }
    })
    .await
    .unwrap();
    let (code, words) = clean(&user, &stage.namespace).await;
    assert!(code == Some(0) && words.contains("0 were removed") && !words.contains("not seen"), "{words}");
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
