//! Which control plane has made what is in a managed cluster.

use e2e::stage::{MANAGED_NAMESPACE, prove, prove_refused, uid_of};
use e2e::{Operator, Rights};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::sweep::{plant, swept};
use crate::world::{program, stage, world};

const CONTROL_PLANE: &str = "bindings.kyma-project.io/control-plane";

#[tokio::test]
async fn what_a_former_version_has_marked_is_looked_after_without_a_right_in_kube_system() {
    let (stage, instance) = stage("identity").await;
    let managed = &world().await.managed;
    let rights = Rights::new(&stage, "identity");
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("identity.yaml", None).unwrap();
    let args = [&stage.args()[..], &["--create-timeout", "3s", "--sweep-interval", "1s"]].concat();
    let operator = Operator::start(program(), &kubeconfig, &args).await.unwrap();
    let made = operator.osb().bound(&instance, "identity-1").await.unwrap();
    let access = made.kubeconfig().unwrap();

    let name = "kyma-binding-identity-1";
    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    let account = accounts.get(name).await.unwrap();
    let id = uid_of(stage.control(), &stage.namespace).await.unwrap();
    assert_eq!(account.metadata.labels.unwrap()[CONTROL_PLANE], id);

    // As the version before would have left it; and what it left of a binding that is gone.
    operator.kill().await.unwrap();
    let former = uid_of(stage.control(), "kube-system").await.unwrap();
    let mark = Patch::Merge(json!({"metadata": {"labels": {CONTROL_PLANE: former}}}));
    let params = PatchParams::default();
    accounts.patch(name, &params, &mark).await.unwrap();
    Api::<ClusterRole>::all(managed.client()).patch(name, &params, &mark).await.unwrap();
    Api::<ClusterRoleBinding>::all(managed.client()).patch(name, &params, &mark).await.unwrap();
    plant(managed, "kyma-binding-identity-2", &former, &stage.namespace).await;

    let operator = Operator::start(program(), &kubeconfig, &args).await.unwrap();
    swept(&operator).await;
    assert_eq!(prove(access).await.unwrap(), "managed");
    assert!(!operator.log().contains("Repaired"), "nothing was missed");
    assert_eq!(operator.osb().fetch(&instance, "identity-1").await.unwrap().status, 200);

    assert_eq!(operator.osb().unbind(&instance, "identity-1").await.unwrap().status, 200);
    prove_refused(access).await.unwrap();
    assert_eq!(objects(managed, "identity-1").await, 0);
    assert_eq!(objects(managed, "identity-2").await, 3, "whose that is can't be known");
}
