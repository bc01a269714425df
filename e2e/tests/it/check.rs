//! `kyma-bindings check` and `version`, as processes against real API servers.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use e2e::operator::AS_OPERATOR;
use e2e::stage::{SOON, install_crd, install_runtime_crd};
use e2e::{Cluster, Conduct, Relay, Rights, Stage, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::Role;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kyma_bindings::api::crd::custom_resource_definition;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{program, stage};

/// Runs it; exit code and lines.
pub async fn check(kubeconfig: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.args([AS_OPERATOR, "check", "--kubeconfig"]).arg(kubeconfig).args(args).kill_on_drop(true);
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The lines that don't begin with a tick.
fn not_right(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.starts_with("✔ ")).collect()
}

#[tokio::test]
async fn version_is_that_of_the_package() {
    let output = Command::new(program()).args([AS_OPERATOR, "version"]).output().await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let expected = format!("kyma-bindings {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[tokio::test]
async fn where_all_is_right_it_says_so_with_the_documented_rights_and_leaves_nothing() {
    let (stage, _) = stage("check").await;
    let operator = stage.operator(program(), &["--lease-duration", "15s"]).await.unwrap();
    eventually("it to lead", SOON, async || if operator.leads().await { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();
    let rights = Rights::new(&stage, "check-right");
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("check-right.yaml", None).unwrap();
    let (code, said) = check(&kubeconfig, &stage.args()).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        not_right(&said),
        [
            "► namespace instances-check: this account can't see whether it is there, and need not",
            "► Runtimes: not served here, so an instance is what its kubeconfig Secret says",
        ]
    );
    assert!(said.contains("✔ control plane: Kubernetes v1."), "{said}");
    assert!(said.contains("✔ rights: this account has all 31 that --role all needs\n"), "{said}");
    assert!(said.contains("✔ namespace bindings-check: it is there\n"), "by the trial: {said}");
    assert!(said.contains(" leads, and renews it\n"), "{said}");
    let (code, said) = check(&kubeconfig, &[&stage.args()[..], &["--role", "broker"]].concat()).await;
    assert_eq!((code, said.lines().count(), not_right(&said)), (Some(0), 5, vec![]), "{said}");
    assert!(stage.bindings().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn each_kubeconfig_that_is_refused_is_named_and_no_cluster_is_asked() {
    let (stage, _) = stage("check-kubeconfigs").await;
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/instance-secret.yaml"));
    let example = example.unwrap().replace("kcp-system", &stage.instance_namespace);
    let file = stage.control().dir().join("check-example.yaml");
    std::fs::write(&file, example).unwrap();
    stage.control().kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]).await.unwrap();
    // Nobody answers there, and nobody is asked.
    let nobody = stage.instance_secrets().get("kubeconfig-r-check-kubeconfigs").await.unwrap().data.unwrap();
    let nobody = String::from_utf8(nobody["config"].0.clone()).unwrap();
    let url = &crate::world::world().await.managed.url().to_owned();
    stage.register("i-nobody", "r-nobody", &nobody.replace(url, "https://127.0.0.1:9")).await.unwrap();
    stage.register("i-empty", "r-empty", "").await.unwrap();
    let (code, said) = check(stage.control().kubeconfig_path(), &stage.args()).await;
    assert_eq!(code, Some(1), "{said}");
    let wrong: Vec<_> = said.lines().filter(|line| line.starts_with("✗ ")).collect();
    assert_eq!(wrong.len(), 2, "{said}");
    for words in [
        "✗ instances: Secret kubeconfig-r-empty in instances-check-kubeconfigs, of instance i-empty: its key config is empty",
        "✗ instances: Secret kubeconfig-my-runtime in instances-check-kubeconfigs, of instance my-instance: its kubeconfig",
    ] {
        assert!(wrong.iter().any(|line| line.starts_with(words)), "{words} is not in: {said}");
    }
    assert!(said.contains("✔ instances: 2 with a kubeconfig that is accepted"), "{said}");
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let (stage, _) = stage("check-lacks").await;
    let rights = Rights::new(&stage, "check-lacks");
    rights.grant().await.unwrap();
    let roles: Api<Role> = Api::namespaced(stage.control().client(), &stage.namespace);
    let mut role = roles.get("check-lacks").await.unwrap();
    for rule in role.rules.iter_mut().flatten() {
        let secrets = rule.resources.iter().flatten().any(|resource| resource == "secrets");
        rule.verbs.retain(|verb| !(secrets && verb == "delete"));
    }
    roles.replace("check-lacks", &PostParams::default(), &role).await.unwrap();
    let kubeconfig = rights.kubeconfig("check-lacks.yaml", None).unwrap();
    let missing =
        "✗ rights: this account may not delete secrets in bindings-check-lacks; a Role there must allow it";
    // The API server's authorizer learns of it a moment later.
    let said = eventually("the right to be missed", SOON, async || {
        let (code, said) = check(&kubeconfig, &stage.args()).await;
        if code == Some(1) { Ok(said) } else { Err(said) }
    });
    let said = said.await.unwrap();
    let wrong: Vec<_> = not_right(&said).into_iter().filter(|line| !line.starts_with('►')).collect();
    assert_eq!(wrong[0], missing, "{said}");
    assert_eq!(wrong[1], "error: 1 of 9 checks failed; each line with ✗ says what would be right");
    let (code, said) = check(&kubeconfig, &[&stage.args()[..], &["--role", "broker"]].concat()).await;
    assert_eq!(code, Some(0), "it needs no such right: {said}");
}

#[tokio::test]
async fn a_kind_that_is_missing_or_older_and_namespaces_that_are_missing_are_named() {
    let control = Cluster::start("check").await.unwrap();
    let args = ["--namespace", "here", "--instance-namespace", "there"];
    let kubeconfig = control.kubeconfig_path();
    let (code, said) = check(kubeconfig, &args).await;
    assert_eq!(code, Some(1));
    for line in [
        "✗ CRD: KymaBindings are not served as v1alpha1; install it: kyma-bindings crd | kubectl apply --server-side -f -",
        "✗ namespace here: it is not there; create it, or let --namespace name the right one",
        "✗ namespace there: it is not there; create it, or let --instance-namespace name the right one",
        "► instances: they can be read, but no Secret in there has the label kyma-project.io/instance-id",
        "► Runtimes: not served here, so an instance is what its kubeconfig Secret says",
        "► lease: there is none; nobody has led here yet, or without an election",
        "► trial: a KymaBinding that is not kept could not be tried: its kind or its namespace is missing",
        "error: 3 of 9 checks failed; each line with ✗ says what would be right",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in: {said}");
    }

    let mut older = serde_json::to_value(custom_resource_definition()).unwrap();
    let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    schema["spec"]["properties"].as_object_mut().unwrap().remove("predecessorBindingId");
    schema["status"]["default"] = Value::Null;
    let crds: Api<CustomResourceDefinition> = Api::all(control.client());
    crds.create(&PostParams::default(), &serde_json::from_value(older).unwrap()).await.unwrap();
    Stage::with_namespaces(&control, "here", "there").await.unwrap();
    let older = "✗ CRD: it is older than this program, and lacks spec.predecessorBindingId, the default of status; upgrade";
    says(kubeconfig, &args, older).await;

    install_crd(&control).await.unwrap();
    install_runtime_crd(&control).await.unwrap();
    let said = says(kubeconfig, &args, "✔ CRD: KymaBindings are served as v1alpha1, with all that").await;
    assert!(said.contains("✔ namespace there: it is there\n"), "{said}");
    assert!(said.contains("✔ Runtimes: they are served"), "{said}");
    assert!(!said.contains('✗'), "{said}");
}

/// What it says once it has that line: what is published of a kind follows its change a moment later.
async fn says(kubeconfig: &Path, args: &[&str], line: &str) -> String {
    let said = eventually(line, SOON, async || {
        let (_, said) = check(kubeconfig, args).await;
        if said.lines().any(|said| said.starts_with(line)) { Ok(said) } else { Err(said) }
    });
    said.await.unwrap()
}

#[tokio::test]
async fn a_control_plane_that_is_away_is_waited_for_no_longer_than_the_timeout() {
    let (stage, _) = stage("check-away").await;
    let relay = Relay::start(stage.control().url()).await.unwrap();
    let rights = Rights::new(&stage, "check-away");
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("check-away.yaml", Some(&relay)).unwrap();
    let args = [&stage.args()[..], &["--timeout", "2s"]].concat();
    for (conduct, expected) in [
        (Conduct::Hole, "✗ control plane: no answer in time;"),
        (Conduct::Refuse, "✗ control plane: no connection;"),
    ] {
        relay.set(conduct);
        let began = Instant::now();
        let (code, said) = check(&kubeconfig, &args).await;
        assert!(code == Some(1) && said.starts_with(expected), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
    // Some answers come, and not all of them in time.
    relay.set(Conduct::Slow(Duration::from_millis(450)));
    let began = Instant::now();
    let (code, said) = check(&kubeconfig, &args).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let stranger = rights.kubeconfig("check-stranger.yaml", None).unwrap();
    let text = stage.control().token_kubeconfig("of nobody");
    std::fs::write(&stranger, text).unwrap();
    let (code, said) = check(&stranger, &args).await;
    assert!(
        code == Some(1) && said.starts_with("✗ control plane: it does not accept the credentials"),
        "{said}"
    );
}

#[tokio::test]
async fn a_lease_is_stale_when_nobody_renews_it_while_it_is_looked_at() {
    let (stage, _) = stage("check-lease").await;
    let leases: Api<Lease> = Api::namespaced(stage.control().client(), &stage.namespace);
    let old = "2020-01-01T00:00:00.000000Z";
    let lease = |holder: &str, seconds: i32| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "kyma-bindings"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": old},
        }))
        .unwrap()
    };
    leases.create(&PostParams::default(), &lease("gone", 1)).await.unwrap();
    let (kubeconfig, args) = (stage.control().kubeconfig_path(), stage.args());
    let (code, said) = check(kubeconfig, &args).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\n✗ lease: gone does not renew it, and nobody has taken it"), "{said}");

    // Old by the clock, and renewed nevertheless.
    let change = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        leases.patch("kyma-bindings", &PatchParams::default(), &patch).await.map(drop).unwrap();
    };
    change(json!({"leaseDurationSeconds": 14})).await;
    let renewals = async {
        let mut transitions = 0;
        loop {
            transitions += 1;
            change(json!({"leaseTransitions": transitions})).await;
        }
    };
    let (code, said) = tokio::select! {
        done = check(kubeconfig, &args) => done,
        never = renewals => never,
    };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\n✔ lease: gone leads, and renews it\n"), "{said}");

    change(json!({"holderIdentity": ""})).await;
    let (code, said) = check(kubeconfig, &args).await;
    assert!(code == Some(0) && said.contains("\n► lease: it was given up"), "{said}");
}
