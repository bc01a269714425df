//! Broker and controller as two processes, and how a process ends.

use std::sync::Arc;
use std::time::Duration;

use e2e::fake::{Death, Fake};
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Operator, Stage, WorkDir, eventually};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::world::{program, stage, world};

/// A kubeconfig file for a user that may do what the broker needs, and nothing else.
async fn least_rights(stage: &Stage<'_>, user: &str) -> std::path::PathBuf {
    let client = stage.control().client();
    let role = json!({"metadata": {"name": user}, "rules": [
        {"apiGroups": ["bindings.kyma-project.io"], "resources": ["kymabindings"],
            "verbs": ["get", "list", "watch", "create", "delete"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    ]});
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    let roles: Api<Role> = Api::namespaced(client.clone(), &stage.namespace);
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(client, &stage.namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let path = stage.control().dir().join(format!("{user}.yaml"));
    std::fs::write(&path, stage.control().kubeconfig_for(user, &[]).unwrap()).unwrap();
    path
}

#[tokio::test]
async fn the_broker_alone_needs_no_right_to_the_clusters_keys() {
    let (stage, instance) = stage("roles").await;
    let _controller = stage.operator(program(), &["--role", "controller"]).await.unwrap();
    let kubeconfig = least_rights(&stage, "broker-only").await;
    let args = ["--role", "broker", "--namespace", &stage.namespace, "--create-timeout", "10s"];
    let broker = Operator::start(program(), &kubeconfig, &args).await.unwrap();
    let osb = broker.osb();
    let made = osb.bind(&instance, "roles-1", None).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    prove(made.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(osb.fetch(&instance, "roles-1").await.unwrap().status, 200);
    assert_eq!(osb.unbind(&instance, "roles-1").await.unwrap().status, 200);
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(osb.bind("i-nobody", "roles-2", None).await.unwrap().status, 404);
    stage.gone("roles-2", Duration::from_secs(2)).await.unwrap();
}

#[tokio::test]
async fn requests_in_flight_end_with_an_answer_after_sigterm() {
    let (stage, instance) = stage("drain").await;
    let silent = Fake::start(Death::BlackHole).await.unwrap();
    stage.rotate("r-drain", Some(silent.kubeconfig())).await.unwrap();
    // It would wait for longer than the process may take to end.
    let operator = stage.operator(program(), &["--create-timeout", "60s"]).await.unwrap();
    let osb = operator.osb();
    let in_flight = osb.bind(&instance, "drain-1", None);
    let ended = async {
        eventually("the request to be under way", SOON, async || {
            stage.bindings().get("drain-1").await.map(drop)
        })
        .await
        .unwrap();
        operator.terminate().await.unwrap();
    };
    let (answer, ()) = tokio::join!(in_flight, ended);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 503, "answered, not cut off");
    assert!(answer.description().contains("being stopped"), "{}", answer.description());
    assert!(answer.headers.contains_key("retry-after"));
    assert!(operator.osb().fetch(&instance, "drain-1").await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_process_that_is_not_ready_names_what_it_waits_for() {
    // A cluster without the CRD; the namespace is one that it has.
    let managed = &world().await.managed;
    let dir = Arc::new(WorkDir::new("not-ready").unwrap());
    let operator =
        Operator::launch(&dir, program(), managed.kubeconfig_path(), &["--namespace", MANAGED_NAMESPACE])
            .await
            .unwrap();
    assert_eq!(operator.admin("/healthz").await.unwrap().0, 200);
    let expected = "not ready: control plane (kymabindings are not served; install the CRD: kyma-bindings crd | kubectl apply \
                    --server-side -f -), broker's KymaBindings, controller's KymaBindings\n";
    eventually("only the KymaBindings to be missing", SOON, async || {
        let answer = operator.admin("/readyz").await.unwrap();
        if answer == (503, expected.to_owned()) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await
    .unwrap();
    operator.terminate().await.unwrap();
}

#[tokio::test]
async fn a_controller_alone_is_ready_and_ends_when_asked() {
    let (stage, _) = stage("ready").await;
    let operator = stage.operator(program(), &["--role", "controller"]).await.unwrap();
    assert_eq!(operator.admin("/readyz").await.unwrap(), (200, "ok\n".to_owned()));
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_build_info"), "{metrics}");
    operator.terminate().await.unwrap();
}
