//! What `/readyz` says while nothing can be made, and how an election that can't be won or kept is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::stage::{SOON, install_crd};
use e2e::{Cluster, Conduct, Operator, Relay, Rights, Stage, WorkDir, eventually};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::Role;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, PostParams};

use crate::world::{program, stage, world};

/// A moment of trouble is passed over for 30 s.
const LASTING: Duration = Duration::from_secs(75);
/// An election that is over within seconds.
const ELECTION: [&str; 3] =
    ["--lease-duration=4s", "--lease-renew-deadline=3s", "--lease-retry-period=500ms"];

async fn launch(kubeconfig: &Path, args: &[&str]) -> Operator {
    let dir = Arc::new(WorkDir::new("readiness").unwrap());
    Operator::launch(&dir, program(), kubeconfig, args).await.unwrap()
}

/// Waits until it is not ready for that reason.
async fn not_ready(operator: &Operator, words: &[&str], within: Duration) {
    eventually(&format!("not to be ready: {words:?}"), within, async || {
        let (code, said) = operator.admin("/readyz").await.unwrap();
        let all = words.iter().all(|words| said.contains(words));
        if code == 503 && all { Ok(()) } else { Err(format!("{code} {said}")) }
    })
    .await
    .unwrap();
}

/// How often the log has those words.
fn lines(operator: &Operator, words: &str) -> usize {
    operator.log().lines().filter(|line| line.contains(words)).count()
}

/// Changes what a Role allows to be done with leases.
async fn allow(stage: &Stage<'_>, role: &str, verbs: &[&str]) {
    let roles: Api<Role> = Api::namespaced(stage.control().client(), &stage.namespace);
    let mut changed = roles.get(role).await.unwrap();
    for rule in changed.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|resource| resource == "leases") {
            rule.verbs = verbs.iter().map(ToString::to_string).collect();
        }
    }
    roles.replace(role, &PostParams::default(), &changed).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_can_be_read_but_not_written_is_said_counted_and_shown() {
    let (stage, _) = stage("lease-read").await;
    let rights = Rights::new(&stage, "lease-read");
    rights.grant().await.unwrap();
    allow(&stage, "lease-read", &["get"]).await;
    let kubeconfig = rights.kubeconfig("lease-read.yaml", None).unwrap();
    let operator = launch(&kubeconfig, &[&stage.args()[..], &ELECTION].concat()).await;
    let why = "Lease ('create' on leases in namespace bindings-lease-read is forbidden (HTTP 403)";
    not_ready(&operator, &[why], SOON).await;
    eventually("several tries", SOON, async || {
        let (_, metrics) = operator.admin("/metrics").await.unwrap();
        let counted = metrics.lines().find_map(|line| {
            line.strip_prefix(r#"kyma_bindings_lease_failures_total{verb="create",reason="forbidden"} "#)
        });
        if counted.is_some_and(|counted| counted.parse::<u64>().unwrap() >= 3) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await
    .unwrap();
    assert_eq!(lines(&operator, "the Lease can't be held or taken"), 1, "{}", operator.log());

    allow(&stage, "lease-read", &["get", "create", "update"]).await;
    operator.ready().await.unwrap();
    eventually("it to lead", SOON, async || if operator.leads().await { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();

    // Somebody takes the right away while it leads: it ends, and the last line says why.
    allow(&stage, "lease-read", &["get"]).await;
    assert!(!operator.ended().await.unwrap().success());
    let log = operator.log();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let said = last["msg"].as_str().unwrap();
    assert_eq!(last["level"], "ERROR");
    for words in ["could not be renewed in time", "'update' on leases in namespace", "HTTP 403"] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}

#[tokio::test]
async fn what_keeps_it_from_the_control_plane_is_told_by_what_happened() {
    let control = &world().await.control;
    let nowhere = ["--namespace", "nowhere", "--lease-duration", "15s"];
    let operator = launch(control.kubeconfig_path(), &nowhere).await;
    let missing = "namespace nowhere, where the Lease must be, does not exist: create it, or let --namespace";
    not_ready(&operator, &[missing, "control plane (namespace nowhere does not exist;"], SOON).await;
    assert!(!operator.log().contains("HTTP 403"), "{}", operator.log());
    let broker = launch(control.kubeconfig_path(), &[&nowhere[..], &["--role", "broker"]].concat()).await;
    not_ready(
        &broker,
        &["control plane (namespace nowhere does not exist; create it, or let --namespace"],
        SOON,
    )
    .await;

    let admin = std::fs::read_to_string(control.kubeconfig_path()).unwrap();
    let with = |name: &str, text: String| -> PathBuf {
        let path = control.dir().join(format!("readiness-{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    for (kubeconfig, words) in [
        (
            with("closed", admin.replace(control.url(), "https://127.0.0.1:9")),
            "connection refused; its API server",
        ),
        (with("unknown", admin.replace(control.url(), "https://nowhere.invalid")), "can't be resolved"),
        (
            with("stranger", control.token_kubeconfig("of nobody")),
            "does not accept the credentials (HTTP 401)",
        ),
    ] {
        let operator = launch(&kubeconfig, &["--lease-duration", "15s"]).await;
        not_ready(&operator, &["Lease (", "control plane (", words], SOON).await;
        eventually("the log to say so", SOON, async || {
            let log = operator.log();
            let said = |what: &str| log.lines().any(|line| line.contains(what) && line.contains(words));
            if said("the Lease can't be") && said("a watch failed") { Ok(()) } else { Err(log) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_broker_whose_control_plane_hangs_is_not_ready_once_that_has_lasted() {
    let (stage, _) = stage("hangs").await;
    let relay = Relay::start(stage.control().url()).await.unwrap();
    let rights = Rights::new(&stage, "hangs");
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("hangs.yaml", Some(&relay)).unwrap();
    let broker = launch(&kubeconfig, &[&stage.args()[..], &["--role", "broker"]].concat()).await;
    broker.ready().await.unwrap();
    let began = Instant::now();
    relay.set(Conduct::Hole);
    not_ready(&broker, &["control plane (no answer in time;"], LASTING).await;
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
    relay.set(Conduct::Open);
    broker.ready().await.unwrap();
    assert_eq!(lines(&broker, "no binding could be made at this moment"), 1, "{}", broker.log());

    // Whoever may make none is of no use either.
    rights.take_away().await.unwrap();
    let forbidden = "'create' on kymabindings in namespace bindings-hangs is forbidden (HTTP 403)";
    not_ready(&broker, &[forbidden], LASTING).await;
    rights.grant().await.unwrap();
    broker.ready().await.unwrap();
}

#[tokio::test]
async fn a_namespace_and_a_crd_that_go_later_are_named() {
    let control = Cluster::start("goes").await.unwrap();
    install_crd(&control).await.unwrap();
    let [ends, stays] = [("b-ends", "i-ends"), ("b-stays", "i-stays")];
    let ends = Stage::with_namespaces(&control, ends.0, ends.1).await.unwrap();
    let stays = Stage::with_namespaces(&control, stays.0, stays.1).await.unwrap();
    let (first, second) =
        (ends.operator(program(), &[]).await.unwrap(), stays.operator(program(), &[]).await.unwrap());
    let namespaces: Api<Namespace> = Api::all(control.client());
    namespaces.delete("b-ends", &DeleteParams::default()).await.unwrap();
    // Nobody finishes it here.
    not_ready(&first, &["control plane (namespace b-ends is being deleted;"], LASTING).await;
    assert_eq!(second.admin("/readyz").await.unwrap().0, 200);
    let crds: Api<CustomResourceDefinition> = Api::all(control.client());
    crds.delete("kymabindings.bindings.kyma-project.io", &DeleteParams::default()).await.unwrap();
    not_ready(&second, &["control plane (kymabindings are not served; install the CRD"], LASTING).await;
    install_crd(&control).await.unwrap();
    second.ready().await.unwrap();
}
