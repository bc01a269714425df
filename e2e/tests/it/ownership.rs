//! What isn't ours stays as it is; what is ours goes, whatever its holder did to it.

use e2e::eventually;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::world::{program, stage, world};

#[tokio::test]
async fn a_foreign_object_of_our_name_is_reported_and_left_alone() {
    let (stage, instance) = stage("foreign").await;
    let managed = &world().await.managed;
    let roles: Api<ClusterRole> = Api::all(managed.client());
    let foreign: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "kyma-binding-foreign-1", "labels": {"app.kubernetes.io/managed-by": "kcp-kyma-environment-broker"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }))
    .unwrap();
    let before = roles.create(&PostParams::default(), &foreign).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();

    let refused = operator.osb().bind(&instance, "foreign-1", None).await.unwrap();
    assert_eq!(refused.status, 409);
    assert!(
        refused.description().contains("ClusterRole kyma-binding-foreign-1"),
        "{}",
        refused.description()
    );
    assert_eq!(objects(managed, "foreign-1").await, 1, "only the foreign one");
    stage.gone("foreign-1", SOON).await.unwrap();

    stage.apply("foreign-1", &instance, None).await.unwrap();
    let failed = stage.condition("foreign-1", "Stalled", "True", "ForeignObject").await.unwrap();
    assert_eq!(failed.status.unwrap().phase.unwrap().as_str(), "Failed");
    assert_eq!(objects(managed, "foreign-1").await, 1);
    stage.bindings().delete("foreign-1", &DeleteParams::default()).await.unwrap();
    stage.gone("foreign-1", SOON).await.unwrap();
    assert_eq!(roles.get("kyma-binding-foreign-1").await.unwrap(), before);
}

#[tokio::test]
async fn a_narrowed_role_stays_narrowed() {
    let (stage, instance) = stage("narrow").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bind(&instance, "narrow-1", None).await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    prove(kubeconfig).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(managed.client());
    let narrow = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    roles.patch("kyma-binding-narrow-1", &PatchParams::default(), &Patch::Merge(&narrow)).await.unwrap();
    eventually("the kubeconfig to be narrowed", SOON, async || prove_refused(kubeconfig).await)
        .await
        .unwrap();

    // A reconcile for another reason, then one of a new process.
    let touch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    stage.bindings().patch("narrow-1", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
    operator.kill().await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    assert_eq!(operator.osb().bind(&instance, "narrow-1", None).await.unwrap().status, 200);
    let left = roles.get("kyma-binding-narrow-1").await.unwrap().rules.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].resources.as_deref(), Some(&["pods".to_owned()][..]));
    prove_refused(kubeconfig).await.unwrap();
}

#[tokio::test]
async fn a_finalizer_of_the_holder_keeps_no_access_alive() {
    let (stage, instance) = stage("holder").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bind(&instance, "holder-1", None).await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap().to_owned();
    // The token's holder may do this: it is an admin of its cluster while the token lives.
    let holder = e2e::cluster::client_from(&kubeconfig).await.unwrap();
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep-me"]}}));
    let name = "kyma-binding-holder-1";
    let params = PatchParams::default();
    Api::<ClusterRoleBinding>::all(holder.clone()).patch(name, &params, &finalizer).await.unwrap();
    Api::<ClusterRole>::all(holder.clone()).patch(name, &params, &finalizer).await.unwrap();
    Api::<ServiceAccount>::namespaced(holder, MANAGED_NAMESPACE)
        .patch(name, &params, &finalizer)
        .await
        .unwrap();

    assert_eq!(operator.osb().unbind(&instance, "holder-1").await.unwrap().status, 200);
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(managed, "holder-1").await, 0);
}
