//! Trouble in the control plane: what the operator waits for, survives, and takes up again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::osb::answer;
use e2e::stage::{SOON, install_crd, prove, prove_refused};
use e2e::{Cluster, Operator, Rights, Stage, WorkDir, eventually};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use reqwest::Method;
use serde_json::json;

use crate::cleanup::cleanup;
use crate::lifecycle::objects;
use crate::world::{program, world};

const CRD: &str = "kymabindings.bindings.kyma-project.io";

/// A control plane of the test's own, with one instance `i-{name}`.
async fn control(name: &str) -> Cluster {
    Cluster::start(name).await.unwrap()
}

async fn staged<'a>(control: &'a Cluster, name: &str) -> (Stage<'a>, String) {
    let stage = Stage::new(control, name).await.unwrap();
    let instance = format!("i-{name}");
    stage.register(&instance, &format!("r-{name}"), &world().await.managed.admin_kubeconfig()).await.unwrap();
    (stage, instance)
}

async fn launch(stage: &Stage<'_>, kubeconfig: &Path, args: &[&str]) -> Operator {
    let dir = Arc::new(WorkDir::new("trouble").unwrap());
    let ours = ["--namespace", &stage.namespace, "--instance-namespace", &stage.instance_namespace];
    Operator::launch(&dir, program(), kubeconfig, &[&ours, args].concat()).await.unwrap()
}

/// Binds as a platform does and returns the kubeconfig; the API server may be gone for a while.
async fn binds(operator: &Operator, instance: &str, name: &str) -> String {
    operator.osb().bound(instance, name).await.unwrap().kubeconfig().unwrap().to_owned()
}

#[tokio::test]
async fn a_missing_crd_is_waited_for_without_a_flood() {
    let control = control("no-crd").await;
    let (stage, instance) = staged(&control, "no-crd").await;
    let operator = launch(&stage, control.kubeconfig_path(), &[]).await;
    eventually("the log to say what is missing", SOON, async || {
        let log = operator.log();
        let said = "the list failed: no such kind is served (HTTP 404); its CRD must be installed";
        if log.contains("KymaBindings") && log.contains(said) { Ok(()) } else { Err(log) }
    })
    .await
    .unwrap();
    let (code, text) = operator.admin("/readyz").await.unwrap();
    assert_eq!((code, text.contains("KymaBindings")), (503, true), "{text}");
    assert!(cleanup(&stage, "10s").await.status.success(), "no kind, no bindings");
    install_crd(&control).await.unwrap();
    operator.ready().await.unwrap();
    prove(&binds(&operator, &instance, "no-crd-1").await).await.unwrap();
    let warnings = operator.log().lines().filter(|l| l.contains("\"WARN\"")).count();
    assert!(
        warnings <= 5,
        "one line a watch and a minute, and one that no binding can be made, not {warnings}"
    );
}

#[tokio::test]
async fn a_crd_that_is_deleted_takes_its_bindings_along_and_can_come_back() {
    let control = control("crd-again").await;
    install_crd(&control).await.unwrap();
    let (stage, instance) = staged(&control, "crd-again").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let kubeconfig = binds(&operator, &instance, "crd-again-1").await;

    let crds: Api<CustomResourceDefinition> = Api::all(control.client());
    crds.delete(CRD, &DeleteParams::default()).await.unwrap();
    eventually("the CRD to be gone", SOON, async || match crds.get_opt(CRD).await.unwrap() {
        None => Ok(()),
        Some(crd) => Err(format!("{:?}", crd.status)),
    })
    .await
    .unwrap();
    // The finalizers held it until everything was removed.
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(&world().await.managed, "crd-again-1").await, 0);

    install_crd(&control).await.unwrap();
    prove(&binds(&operator, &instance, "crd-again-2").await).await.unwrap();
}

#[tokio::test]
async fn an_api_server_that_restarts_costs_nothing_but_time() {
    let control = control("restarted").await;
    install_crd(&control).await.unwrap();
    let (stage, instance) = staged(&control, "restarted").await;
    let operator = stage.operator(program(), &["--create-timeout", "2s"]).await.unwrap();
    let kubeconfig = binds(&operator, &instance, "restarted-1").await;
    let osb = operator.osb();

    control.stop_apiserver().await.unwrap();
    let refused = osb.bind(&instance, "restarted-2", None).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(osb.unbind(&instance, "restarted-1").await.unwrap().status, 503);
    prove(&kubeconfig).await.unwrap();

    control.start_apiserver().await.unwrap();
    let second = binds(&operator, &instance, "restarted-2").await;
    eventually("the unbind to succeed", SOON, async || {
        let answer = osb.unbind(&instance, "restarted-1").await.map_err(|e| format!("{e:#}"))?;
        if matches!(answer.status, 200 | 410) { Ok(()) } else { Err(answer.description().to_owned()) }
    })
    .await
    .unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    prove(&second).await.unwrap();
    assert_eq!(operator.admin("/readyz").await.unwrap().0, 200);
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_can_be_taken_and_given_back() {
    let control = control("rights").await;
    install_crd(&control).await.unwrap();
    let (stage, instance) = staged(&control, "rights").await;
    let rights = Rights::new(&stage, "operator");
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("operator.yaml", None).unwrap();
    let args = ["--create-timeout", "2s", "--lease-duration", "15s"];
    let operator = launch(&stage, &kubeconfig, &args).await;
    operator.ready().await.unwrap();
    let kubeconfig = binds(&operator, &instance, "rights-1").await;
    assert_eq!(operator.osb().unbind(&instance, "rights-1").await.unwrap().status, 200);
    prove_refused(&kubeconfig).await.unwrap();
    stage.apply("rights-2", &instance, None).await.unwrap();
    stage.ready("rights-2").await.unwrap();

    rights.take_away().await.unwrap();
    eventually("binds to be refused", Duration::from_secs(10), async || {
        let answer = operator.osb().bind(&instance, "rights-3", None).await.unwrap();
        if answer.status == 503 { Ok(()) } else { Err(answer.status) }
    })
    .await
    .unwrap();
    let request = operator
        .osb()
        .bare(Method::PUT, &format!("/v2/service_instances/{instance}/service_bindings/rights-5"))
        .json(&json!({"service_id": "s", "plan_id": "p"}))
        .header("X-Broker-API-Version", "2.17")
        .header("X-Broker-API-Request-Identity", "req-refused");
    assert_eq!(answer(request).await.unwrap().status, 503);
    let log = operator.log();
    assert!(
        log.lines().any(|line| line.contains("refused a request") && line.contains("req-refused")),
        "{log}"
    );
    rights.grant().await.unwrap();
    prove(&binds(&operator, &instance, "rights-4").await).await.unwrap();
}

/// How long it is watched how often an end is tried.
const WATCHED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_end_that_the_control_plane_refuses_is_tried_ever_more_seldom() {
    let control = control("refused-end").await;
    install_crd(&control).await.unwrap();
    let (stage, instance) = staged(&control, "refused-end").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    stage.apply("refused-end-1", &instance, None).await.unwrap();
    let kubeconfig = stage.ready("refused-end-1").await.unwrap();

    let name = "keep-bindings";
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["bindings.kyma-project.io"], "apiVersions": ["*"], "resources": ["kymabindings"],
                "operations": ["DELETE"],
            }]},
            "validations": [{"expression": "false", "message": "kept by the test"}],
        },
    }))
    .unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(control.client());
    policies.create(&PostParams::default(), &policy).await.unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }))
    .unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(control.client());
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let tried = DeleteParams { dry_run: true, ..DeleteParams::default() };
    eventually("deletions to be refused", SOON, async || {
        match stage.bindings().delete("refused-end-1", &tried).await {
            Ok(_) => Err("not yet"),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();

    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let over = Patch::Merge(json!({"status": {"expiresAt": past}}));
    stage.bindings().patch_status("refused-end-1", &PatchParams::default(), &over).await.unwrap();
    tokio::time::sleep(WATCHED).await;
    let failures = operator.log().matches("cannot delete the binding").count();
    // At once, and after waits of 1, 2, 4 and 8 s, each shortened by a quarter at most.
    assert!((2..=5).contains(&failures), "{failures} tries in {WATCHED:?}");
    // Its rights are gone all the same.
    prove_refused(&kubeconfig).await.unwrap();

    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    stage.gone("refused-end-1", SOON).await.unwrap();
    operator.terminate().await.unwrap();
}
