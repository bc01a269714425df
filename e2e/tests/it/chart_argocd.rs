//! What Argo CD, from 3.3 on, makes of the chart when its Application is deleted: it makes all objects with the
//! annotation of a `PreDelete` hook in no order, waits for their health, removes them, and then deletes the rest, by
//! descending sync waves. Argo CD itself is not run here.

use std::fs;

use e2e::operator::AS_OPERATOR;
use e2e::stage::{prove, prove_refused};
use e2e::{Operator, eventually};
use kyma_bindings::cli::Command;
use serde_json::Value;

use crate::chart::{LEAST, command_line, objects, rendered};
use crate::world::{program, stage};

const KINDS: [&str; 4] = ["ServiceAccount", "Role", "RoleBinding", "Job"];

fn is_hook(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    !annotations["argocd.argoproj.io/hook"].is_null() || !annotations["helm.sh/hook"].is_null()
}

#[tokio::test]
async fn its_hook_is_one_job_that_needs_nothing_but_what_the_release_has() {
    let rendered = rendered(&LEAST).await;
    let hooks: Vec<_> = KINDS.iter().flat_map(|kind| objects(&rendered, kind)).filter(is_hook).collect();
    let [job] = &hooks[..] else { panic!("no order is kept among several: {hooks:?}") };
    let said = |key: &str| job["metadata"]["annotations"][key].as_str().unwrap();
    assert_eq!((said("argocd.argoproj.io/hook"), said("helm.sh/hook")), ("PreDelete", "pre-delete"));
    // Each word of Helm's policy is one of Argo CD's.
    let policy = said("helm.sh/hook-delete-policy").split(',').map(|word| word.replace('-', ""));
    let theirs = said("argocd.argoproj.io/hook-delete-policy").to_lowercase();
    assert_eq!(policy.collect::<Vec<_>>(), theirs.split(',').collect::<Vec<_>>());
    // Argo CD deletes a Job that failed and makes it again; a second try within it would only be later.
    assert_eq!(job["spec"]["backoffLimit"], 0);
    let account = &job["spec"]["template"]["spec"]["serviceAccountName"];
    let accounts = objects(&rendered, "ServiceAccount");
    assert!(accounts.iter().any(|known| &known["metadata"]["name"] == account && !is_hook(known)));
}

#[tokio::test]
async fn with_the_account_of_its_job_all_bindings_are_revoked_before_anything_else_goes() {
    let (stage, instance) = stage("argocd-hooks").await;
    let control = stage.control();
    let set = format!(
        "namespaceOverride={0},config.namespace={0},config.instanceNamespace={1},fullnameOverride=argocd",
        stage.namespace, stage.instance_namespace
    );
    let rendered = rendered(&[&LEAST[..], &["--set", &set]].concat()).await;
    let kept =
        |document: &&str| KINDS[..3].iter().any(|kind| document.contains(&format!("\nkind: {kind}\n")));
    let file = control.dir().join("argocd.yaml");
    fs::write(&file, rendered.split("\n---\n").filter(kept).collect::<Vec<_>>().join("\n---\n")).unwrap();
    control.kubectl(&["apply", "-f", file.to_str().unwrap()]).await.unwrap();
    let as_account = async |account: &str| {
        let token = control.kubectl(&["create", "token", account, "-n", &stage.namespace]).await.unwrap();
        let kubeconfig = control.dir().join(format!("{account}.yaml"));
        fs::write(&kubeconfig, control.token_kubeconfig(token.trim())).unwrap();
        kubeconfig
    };
    let controller = as_account("argocd-controller").await;
    let operator = Operator::start(program(), &controller, &stage.args()).await.unwrap();
    let made = operator.osb().bound(&instance, "argocd-1").await.unwrap();
    prove(made.kubeconfig().unwrap()).await.unwrap();

    let job = objects(&rendered, "Job")[0]["spec"]["template"].clone();
    let Command::Cleanup(_) = command_line(&job) else { panic!("not cleanup") };
    let account = as_account(job["spec"]["serviceAccountName"].as_str().unwrap()).await;
    let args =
        job["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let output = tokio::process::Command::new(program())
        .arg(AS_OPERATOR)
        .args(args)
        .arg("--kubeconfig")
        .arg(&account)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 were removed"), "{said}");
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();

    // Nothing waits for the operator, in whatever order the rest goes.
    operator.kill().await.unwrap();
    control.kubectl(&["delete", "-f", file.to_str().unwrap()]).await.unwrap();
    eventually("no binding to be left", e2e::stage::SOON, async || {
        let left =
            stage.bindings().list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
}
