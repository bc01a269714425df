//! What is left in managed clusters of bindings that are gone, and what is missing of those that are not.

use e2e::eventually;
use e2e::stage::{SOON, prove, prove_refused};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::world::{program, stage, world};

#[tokio::test]
async fn a_binding_deleted_past_our_finalizer_is_revoked_at_once() {
    let (stage, instance) = stage("forced").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bind(&instance, "forced-1", None).await.unwrap();
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
    assert_eq!(operator.osb().bind(&instance, "forced-2", None).await.unwrap().status, 201);
    assert_eq!(operator.osb().unbind(&instance, "forced-2").await.unwrap().status, 200);
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 1"), "{metrics}");
}
