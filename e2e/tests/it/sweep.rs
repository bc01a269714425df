//! What is left in managed clusters of bindings that are gone, and what is missing of those that are not.

use std::time::Duration;

use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Cluster, Operator, Stage, eventually};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::lifecycle::objects;
use crate::world::{program, stage, world};

#[tokio::test]
async fn a_binding_deleted_past_our_finalizer_is_revoked_at_once() {
    let (stage, instance) = stage("forced").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bound(&instance, "forced-1").await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    // Paused, it can't put the finalizer on again before the object is gone.
    operator.pause().await.unwrap();
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    stage.bindings().patch("forced-1", &PatchParams::default(), &strip).await.unwrap();
    stage.bindings().delete("forced-1", &DeleteParams::default()).await.unwrap();
    assert!(stage.bindings().get_opt("forced-1").await.unwrap().is_none());
    prove(kubeconfig).await.unwrap();
    operator.resume();
    eventually("the kubeconfig to be refused", SOON, async || prove_refused(kubeconfig).await).await.unwrap();
    eventually("all objects to be gone", SOON, async || match objects(managed, "forced-1").await {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await
    .unwrap();
    stage.gone("forced-1", SOON).await.unwrap();

    // The usual end is none of these.
    assert_eq!(operator.osb().bound(&instance, "forced-2").await.unwrap().status, 201);
    assert_eq!(operator.osb().unbind(&instance, "forced-2").await.unwrap().status, 200);
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 1"), "{metrics}");
}

/// Makes the three objects of a binding `name` as the control plane `id` would for `namespace`.
async fn plant(managed: &Cluster, name: &str, id: &str, namespace: &str) {
    let object = |more: Value| {
        let mut object = json!({"metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/managed-by": "kyma-bindings",
                "bindings.kyma-project.io/binding-uid": "00000000-0000-0000-0000-000000000000",
                "bindings.kyma-project.io/control-plane": id,
                "bindings.kyma-project.io/control-plane-namespace": namespace,
            },
        }});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let (client, params) = (managed.client(), PostParams::default());
    let account: ServiceAccount = serde_json::from_value(object(json!({}))).unwrap();
    Api::namespaced(client.clone(), MANAGED_NAMESPACE).create(&params, &account).await.unwrap();
    let role: ClusterRole = serde_json::from_value(object(json!({"rules": []}))).unwrap();
    Api::all(client.clone()).create(&params, &role).await.unwrap();
    let binding = object(json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": MANAGED_NAMESPACE}],
    }));
    let binding: ClusterRoleBinding = serde_json::from_value(binding).unwrap();
    Api::all(client).create(&params, &binding).await.unwrap();
}

/// An operator that sweeps every second and takes what is older than 16 s for settled.
async fn sweeping(stage: &Stage<'_>) -> Operator {
    stage.operator(program(), &["--create-timeout", "3s", "--sweep-interval", "1s"]).await.unwrap()
}

/// How many sweeps have ended as they should.
async fn sweeps(operator: &Operator) -> u64 {
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    let count = |result: &str| {
        let start = format!("kyma_bindings_sweeps_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok()).unwrap_or(0)
    };
    count("clean") + count("removed")
}

/// Waits until two more sweeps have ended, so that one began after now.
async fn swept(operator: &Operator) {
    let before = sweeps(operator).await;
    eventually("two more sweeps", SOON, async || match sweeps(operator).await - before {
        0 | 1 => Err("not yet"),
        _ => Ok(()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn orphans_are_removed_and_nothing_else_is() {
    let (stage, instance) = stage("orphans").await;
    let managed = &world().await.managed;
    let namespaces: Api<Namespace> = Api::all(stage.control().client());
    let id = namespaces.get("kube-system").await.unwrap().metadata.uid.unwrap();
    let operator = sweeping(&stage).await;
    let alive = operator.osb().bound(&instance, "orphans-alive").await.unwrap();

    let began = Timestamp::now();
    plant(managed, "kyma-binding-orphans-1", &id, &stage.namespace).await;
    plant(managed, "kyma-binding-orphans-cp", "another-control-plane", &stage.namespace).await;
    plant(managed, "kyma-binding-orphans-ns", &id, "another-namespace").await;
    plant(managed, "orphans-copy", &id, &stage.namespace).await;
    // A finalizer would keep its rights alive.
    let bindings: Api<ClusterRoleBinding> = Api::all(managed.client());
    let keep = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep-me"]}}));
    bindings.patch("kyma-binding-orphans-1", &PatchParams::default(), &keep).await.unwrap();

    eventually("the orphans to be removed", Duration::from_secs(40), async || {
        match objects(managed, "orphans-1").await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    })
    .await
    .unwrap();
    let age = Timestamp::now().duration_since(began).as_secs();
    assert!(age >= 15, "swept at the age of {age} s");

    // Old enough by now, all of them; and one that is young.
    plant(managed, "kyma-binding-orphans-young", &id, &stage.namespace).await;
    swept(&operator).await;
    for name in ["orphans-cp", "orphans-ns", "orphans-young", "orphans-alive"] {
        assert_eq!(objects(managed, name).await, 3, "{name}");
    }
    assert!(bindings.get_opt("orphans-copy").await.unwrap().is_some());
    prove(alive.kubeconfig().unwrap()).await.unwrap();
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 1"), "{metrics}");
}
