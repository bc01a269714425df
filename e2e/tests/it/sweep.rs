//! What is left in managed clusters of bindings that are gone, and what is missing of those that are not.

use std::time::Duration;

use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused, uid_of};
use e2e::{Cluster, Operator, Stage, eventually};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::events::told;
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
    assert!(operator.pause().await.unwrap());
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
    told(&stage, "forced-1", "Normal", "Swept").await;

    // The usual end is none of these.
    assert_eq!(operator.osb().bound(&instance, "forced-2").await.unwrap().status, 201);
    assert_eq!(operator.osb().unbind(&instance, "forced-2").await.unwrap().status, 200);
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 1"), "{metrics}");
}

/// The marks of a control plane on what belongs to no binding.
pub fn marks(id: &str, namespace: &str) -> Value {
    json!({
        "app.kubernetes.io/managed-by": "kyma-bindings",
        "bindings.kyma-project.io/binding-uid": "00000000-0000-0000-0000-000000000000",
        "bindings.kyma-project.io/control-plane": id,
        "bindings.kyma-project.io/control-plane-namespace": namespace,
    })
}

/// Makes the three objects of a binding `name` as the control plane `id` would for `namespace`.
pub async fn plant(managed: &Cluster, name: &str, id: &str, namespace: &str) {
    let object = |more: Value| {
        let mut object = json!({"metadata": {
            "name": name, "labels": marks(id, namespace),
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
pub async fn sweeping(stage: &Stage<'_>) -> Operator {
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
pub async fn swept(operator: &Operator) {
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
    let id = uid_of(stage.control(), &stage.namespace).await.unwrap();
    let former = uid_of(stage.control(), "kube-system").await.unwrap();
    let operator = sweeping(&stage).await;
    stage.apply("orphans-alive", &instance, None).await.unwrap();
    let alive = stage.ready("orphans-alive").await.unwrap();

    let began = Timestamp::now();
    plant(managed, "kyma-binding-orphans-1", &id, &stage.namespace).await;
    plant(managed, "kyma-binding-orphans-former", &former, &stage.namespace).await;
    plant(managed, "kyma-binding-orphans-cp", "another-control-plane", &stage.namespace).await;
    plant(managed, "kyma-binding-orphans-ns", &id, "another-namespace").await;
    plant(managed, "orphans-copy", &id, &stage.namespace).await;
    // A finalizer would keep its rights alive.
    let bindings: Api<ClusterRoleBinding> = Api::all(managed.client());
    let keep = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep-me"]}}));
    bindings.patch("kyma-binding-orphans-1", &PatchParams::default(), &keep).await.unwrap();

    eventually("the orphans to be removed", Duration::from_secs(40), async || {
        match objects(managed, "orphans-1").await + objects(managed, "orphans-former").await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    })
    .await
    .unwrap();
    let age = Timestamp::now().duration_since(began).as_secs();
    assert!(age >= 15, "swept at the age of {age} s");
    told(&stage, "orphans-1", "Normal", "Swept").await;

    // Old enough by now, all of them; and one that is young.
    plant(managed, "kyma-binding-orphans-young", &id, &stage.namespace).await;
    swept(&operator).await;
    for name in ["orphans-cp", "orphans-ns", "orphans-young", "orphans-alive"] {
        assert_eq!(objects(managed, name).await, 3, "{name}");
    }
    assert!(bindings.get_opt("orphans-copy").await.unwrap().is_some());
    prove(&alive).await.unwrap();
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 2"), "{metrics}");
}

#[tokio::test]
async fn a_deleted_secret_is_made_again_for_the_time_that_is_left() {
    let (stage, instance) = stage("renewed").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let first = osb.bind(&instance, "renewed-1", Some(900)).await.unwrap();
    let (name, secrets) = ("kyma-binding-renewed-1", stage.secrets());
    let before = secrets.get(name).await.unwrap();
    secrets.delete(name, &DeleteParams::default()).await.unwrap();
    let after = eventually("another Secret", SOON, async || {
        secrets.get(name).await.map_err(|e| e.to_string()).and_then(|secret| {
            if secret.metadata.uid == before.metadata.uid {
                Err("the old one".to_owned())
            } else {
                Ok(secret)
            }
        })
    })
    .await
    .unwrap();
    assert_eq!(after.data.unwrap()["expires_at"], before.data.unwrap()["expires_at"]);

    let kubeconfig = stage.ready("renewed-1").await.unwrap();
    assert_ne!(kubeconfig, first.kubeconfig().unwrap());
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");
    prove(first.kubeconfig().unwrap()).await.unwrap();
    let fetched = osb.fetch(&instance, "renewed-1").await.unwrap();
    assert_eq!((fetched.status, fetched.kubeconfig().unwrap()), (200, kubeconfig.as_str()));
    assert_eq!(fetched.body["metadata"]["expires_at"], first.body["metadata"]["expires_at"]);
    let expires_at: Timestamp = first.body["metadata"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(kubeconfig.starts_with(&format!("# This kubeconfig stops working at {expires_at}")));

    assert_eq!(osb.unbind(&instance, "renewed-1").await.unwrap().status, 200);
    for gone in [kubeconfig.as_str(), first.kubeconfig().unwrap()] {
        prove_refused(gone).await.unwrap();
    }
    stage.gone("renewed-1", SOON).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_is_missing_for_the_moment_is_said_to_be_made_again() {
    let (stage, instance) = stage("missing").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    operator.osb().bound(&instance, "missing-1").await.unwrap();
    operator.kill().await.unwrap();
    stage.secrets().delete("kyma-binding-missing-1", &DeleteParams::default()).await.unwrap();
    // The moment lasts as long as there is no controller.
    let broker = stage.operator(program(), &["--role", "broker"]).await.unwrap();
    let osb = broker.osb();
    for answer in [osb.fetch(&instance, "missing-1").await, osb.bind(&instance, "missing-1", None).await] {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.description());
        assert!(answer.description().contains("it is made again"), "{}", answer.description());
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let _controller = stage.operator(program(), &["--role", "controller"]).await.unwrap();
    let made = osb.bound(&instance, "missing-1").await.unwrap();
    assert_eq!(made.status, 200);
    prove(made.kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_secret_deleted_while_nobody_looked_is_made_again() {
    let (stage, instance) = stage("unseen").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let first = operator.osb().bind(&instance, "unseen-1", None).await.unwrap();
    operator.kill().await.unwrap();
    stage.secrets().delete("kyma-binding-unseen-1", &DeleteParams::default()).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let fetched = eventually("the kubeconfig to be there again", SOON, async || {
        let answer = operator.osb().fetch(&instance, "unseen-1").await.unwrap();
        if answer.status == 200 { Ok(answer) } else { Err(answer.description().to_owned()) }
    })
    .await
    .unwrap();
    prove(fetched.kubeconfig().unwrap()).await.unwrap();
    // Less is left than the shortest token lives; what is said is the binding's end all the same.
    assert_eq!(fetched.body["metadata"]["expires_at"], first.body["metadata"]["expires_at"]);
}

#[tokio::test]
async fn vanished_or_changed_rights_are_restored_and_a_lost_account_is_said() {
    let (stage, instance) = stage("repaired").await;
    let managed = &world().await.managed;
    let operator = sweeping(&stage).await;
    let osb = operator.osb();
    stage.apply("repaired-1", &instance, None).await.unwrap();
    let kubeconfig = &stage.ready("repaired-1").await.unwrap();
    let name = "kyma-binding-repaired-1";
    let bindings: Api<ClusterRoleBinding> = Api::all(managed.client());
    let roles: Api<ClusterRole> = Api::all(managed.client());
    let restored = async |what: &str| {
        eventually(what, SOON, async || prove(kubeconfig).await).await.unwrap();
    };

    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the role binding to be back", SOON, async || {
        bindings.get_opt(name).await.unwrap().map(drop).ok_or("not yet")
    })
    .await
    .unwrap();
    restored("the kubeconfig to work with another role binding").await;
    roles.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the role to be back", SOON, async || {
        roles.get_opt(name).await.unwrap().map(drop).ok_or("not yet")
    })
    .await
    .unwrap();
    restored("the kubeconfig to work with another role").await;
    // Somebody else is let in by our object.
    let subjects = json!({"subjects": [
        {"kind": "ServiceAccount", "name": name, "namespace": MANAGED_NAMESPACE},
        {"kind": "User", "name": "intruder", "apiGroup": "rbac.authorization.k8s.io"},
    ]});
    bindings.patch(name, &PatchParams::default(), &Patch::Merge(&subjects)).await.unwrap();
    eventually("the intruder to be out", SOON, async || {
        let subjects = bindings.get_opt(name).await.unwrap().and_then(|b| b.subjects).unwrap_or_default();
        if subjects.len() == 1 { Ok(()) } else { Err(format!("{subjects:?}")) }
    })
    .await
    .unwrap();
    restored("the kubeconfig to work without the intruder").await;
    // A narrower role is the owner's business.
    let narrow = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    roles.patch(name, &PatchParams::default(), &Patch::Merge(&narrow)).await.unwrap();
    swept(&operator).await;
    let left = roles.get(name).await.unwrap().rules.unwrap();
    assert_eq!((left.len(), left[0].verbs.len()), (1, 1));
    stage.condition("repaired-1", "Ready", "True", "Issued").await.unwrap();

    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    accounts.delete(name, &DeleteParams::default()).await.unwrap();
    let failed = stage.condition("repaired-1", "Stalled", "True", "AccessLost").await.unwrap();
    assert_eq!(failed.status.unwrap().phase.unwrap().as_str(), "Failed");
    prove_refused(kubeconfig).await.unwrap();
    assert_eq!(objects(managed, "repaired-1").await, 0, "the rest is removed");
    assert!(stage.secrets().get_opt(name).await.unwrap().is_none());
    assert_eq!(osb.fetch(&instance, "repaired-1").await.unwrap().status, 404);
    let refused = osb.bind(&instance, "repaired-1", None).await.unwrap();
    assert_eq!(refused.status, 409);
    assert!(refused.description().contains("delete this binding"), "{}", refused.description());
    // It stays what it is.
    swept(&operator).await;
    stage.condition("repaired-1", "Stalled", "True", "AccessLost").await.unwrap();
    told(&stage, "repaired-1", "Normal", "Repaired").await;
    told(&stage, "repaired-1", "Warning", "AccessLost").await;
    stage.bindings().delete("repaired-1", &DeleteParams::default()).await.unwrap();
    stage.gone("repaired-1", SOON).await.unwrap();
}
