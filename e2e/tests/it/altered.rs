//! API servers whose admission policies, as any mutating webhook, make something else than they are asked for; and
//! what is there already and is not what would be made.

use e2e::stage::{MANAGED_NAMESPACE, SOON, prepare_managed, prove};
use e2e::{Cluster, Stage, eventually};
use http::Request;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::events::told;
use crate::lifecycle::objects;
use crate::sweep::{sweeping, swept};
use crate::world::{program, stage, world};

/// A policy, what it is seen by, and what is said of it.
struct Case {
    resource: &'static str,
    /// A JSON patch, as a CEL expression.
    patch: &'static str,
    /// Where a probe shows it, and what is there then.
    seen: (&'static str, Value),
    reason: &'static str,
    says: &'static str,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            resource: "clusterrolebindings",
            patch: r#"[JSONPatch{op: "replace", path: "/roleRef/name", value: "view"}]"#,
            seen: ("/roleRef/name", json!("view")),
            reason: "ObjectAltered",
            says: "it refers to another role",
        },
        Case {
            resource: "clusterrolebindings",
            patch: r#"[JSONPatch{op: "replace", path: "/subjects/0/name", value: "default"}]"#,
            seen: ("/subjects/0/name", json!("default")),
            reason: "ObjectAltered",
            says: "its subjects are not the binding's ServiceAccount alone",
        },
        Case {
            resource: "clusterrolebindings",
            patch: r#"[JSONPatch{op: "add", path: "/subjects/-",
                value: {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "intruder"}}]"#,
            seen: ("/subjects/1/name", json!("intruder")),
            reason: "ObjectAltered",
            says: "its subjects are not the binding's ServiceAccount alone",
        },
        Case {
            resource: "clusterroles",
            patch: r#"[JSONPatch{op: "add", path: "/rules/-", value: {"nonResourceURLs": ["*"], "verbs": ["*"]}}]"#,
            seen: ("/rules/1/nonResourceURLs/0", json!("*")),
            reason: "ObjectAltered",
            says: "its rules are not those that every binding has",
        },
        Case {
            resource: "serviceaccounts",
            patch: r#"[JSONPatch{op: "replace", path: "/metadata/labels", value: {"team": "a"}}]"#,
            seen: ("/metadata/labels/team", json!("a")),
            reason: "ObjectAltered",
            says: "it lacks labels of ours",
        },
        Case {
            resource: "serviceaccounts/token",
            patch: r#"[JSONPatch{op: "add", path: "/spec/audiences", value: ["elsewhere"]}]"#,
            seen: ("/spec/audiences/0", json!("elsewhere")),
            reason: "TokenRefused",
            says: "the cluster's API server does not accept it",
        },
    ]
}

/// The two objects of a policy.
fn policies(cluster: &Cluster) -> [Api<DynamicObject>; 2] {
    ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"].map(|kind| {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(cluster.client(), &ApiResource::from_gvk(&kind))
    })
}

async fn install(cluster: &Cluster, case: &Case) {
    let group = if case.resource.starts_with("cluster") { "rbac.authorization.k8s.io" } else { "" };
    let rule = json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"],
        "resources": [case.resource]});
    let object = |kind: &str, spec: Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": "alters"}, "spec": spec,
        }))
        .unwrap()
    };
    let policy = object(
        "MutatingAdmissionPolicy",
        json!({
            "matchConstraints": {"resourceRules": [rule]},
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": case.patch}}],
        }),
    );
    let binding = object("MutatingAdmissionPolicyBinding", json!({"policyName": "alters"}));
    for (api, object) in policies(cluster).iter().zip([policy, binding]) {
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    eventually("the policy to be in force", SOON, async || {
        let made = probe(cluster, case.resource).await;
        if made.pointer(case.seen.0) == Some(&case.seen.1) { Ok(()) } else { Err(made.to_string()) }
    })
    .await
    .unwrap();
}

async fn uninstall(cluster: &Cluster) {
    for api in policies(cluster).iter().rev() {
        api.delete("alters", &DeleteParams::default()).await.unwrap();
    }
}

/// What a dry run makes of something like ours.
async fn probe(cluster: &Cluster, resource: &str) -> Value {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let accounts = format!("/api/v1/namespaces/{MANAGED_NAMESPACE}/serviceaccounts");
    let metadata = json!({"name": "probe", "labels": {"a": "b"}});
    let (path, body) = match resource {
        "clusterroles" => (
            format!("{rbac}/{resource}"),
            json!({"metadata": metadata, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        "clusterrolebindings" => (
            format!("{rbac}/{resource}"),
            json!({
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "ServiceAccount", "name": "probe", "namespace": MANAGED_NAMESPACE}],
            }),
        ),
        "serviceaccounts" => (accounts, json!({"metadata": {"name": "another", "labels": {"a": "b"}}})),
        _ => (format!("{accounts}/probe/token"), json!({"spec": {}})),
    };
    let request = Request::post(format!("{path}?dryRun=All")).header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    cluster.client().request(request).await.unwrap()
}

#[tokio::test]
async fn what_a_policy_makes_of_it_is_seen_said_and_removed() {
    let managed = Cluster::start("altered").await.unwrap();
    prepare_managed(&managed).await.unwrap();
    let account = json!({"metadata": {"name": "probe"}});
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
    let stage = Stage::new(&world().await.control, "altered").await.unwrap();
    stage.register("i-altered", "r-altered", &managed.admin_kubeconfig()).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    for (i, case) in cases().iter().enumerate() {
        let name = format!("altered-{i}");
        install(&managed, case).await;
        stage.apply(&name, "i-altered", None).await.unwrap();
        let held = stage.condition(&name, "Ready", "False", case.reason).await.unwrap();
        let said = serde_json::to_string(&held.status).unwrap();
        assert!(said.contains(case.says), "{said}");
        told(&stage, &name, "Warning", case.reason).await;
        eventually("nothing half-made to be left", SOON, async || match objects(&managed, &name).await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        })
        .await
        .unwrap();
        assert!(stage.secrets().get_opt(&format!("kyma-binding-{name}")).await.unwrap().is_none());
        uninstall(&managed).await;
        let kubeconfig =
            eventually("it to be made when nobody alters it", SOON * 3, async || stage.ready(&name).await)
                .await
                .unwrap();
        prove(&kubeconfig).await.unwrap();
        println!("✔ {}: {} {}", case.resource, case.reason, case.says);
    }
    // A policy that comes when tokens have been taken before is noticed all the same.
    let token = cases().pop().unwrap();
    install(&managed, &token).await;
    let osb = operator.osb();
    let refused = osb.bind("i-altered", "altered-later", None);
    let held = async {
        stage.condition("altered-later", "Ready", "False", token.reason).await.unwrap();
        uninstall(&managed).await;
    };
    let (answer, ()) = futures::join!(refused, held);
    prove(answer.unwrap().kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_role_binding_that_is_there_is_compared_before_it_is_taken() {
    let (stage, instance) = stage("misplaced").await;
    let managed = &world().await.managed;
    let misspelt = ["--managed-namespace", "kyma-sytem", "--sweep-interval", "24h"];
    let operator = stage.operator(program(), &misspelt).await.unwrap();
    stage.apply("misplaced-1", &instance, None).await.unwrap();
    stage.condition("misplaced-1", "Ready", "False", "NamespaceMissing").await.unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(managed.client());
    let name = "kyma-binding-misplaced-1";
    let before = bindings.get(name).await.unwrap();
    assert_eq!(before.subjects.unwrap()[0].namespace.as_deref(), Some("kyma-sytem"));
    operator.kill().await.unwrap();

    let _operator = stage.operator(program(), &["--sweep-interval", "24h"]).await.unwrap();
    let kubeconfig = stage.ready("misplaced-1").await.unwrap();
    let after = bindings.get(name).await.unwrap();
    assert_eq!(after.subjects.unwrap()[0].namespace.as_deref(), Some(MANAGED_NAMESPACE));
    assert_ne!(after.metadata.uid, before.metadata.uid);
    prove(&kubeconfig).await.unwrap();
}

#[tokio::test]
async fn a_binding_has_objects_and_not_what_is_none_also_after_an_upgrade() {
    let (stage, instance) = stage("upgraded").await;
    let managed = &world().await.managed;
    let operator = sweeping(&stage).await;
    stage.apply("upgraded-1", &instance, None).await.unwrap();
    let kubeconfig = stage.ready("upgraded-1").await.unwrap();
    prove(&kubeconfig).await.unwrap();
    let metrics = ["get", "--raw", "/metrics"];
    let refused = managed.kubectl_as(&kubeconfig, &metrics).await.unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("orbidden"));

    // A version before has made it with a rule more: nobody has changed it, so it is made again where it is gone.
    let roles: Api<ClusterRole> = Api::all(managed.client());
    let name = "kyma-binding-upgraded-1";
    let earlier = json!({"rules": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]});
    roles.patch(name, &PatchParams::default(), &Patch::Merge(&earlier)).await.unwrap();
    swept(&operator).await;
    stage.condition("upgraded-1", "Ready", "True", "Issued").await.unwrap();
    assert_eq!(roles.get(name).await.unwrap().rules.unwrap().len(), 2, "it stays as it is");
    roles.delete(name, &DeleteParams::default()).await.unwrap();
    let made =
        eventually("the role to be back", SOON, async || roles.get_opt(name).await.unwrap().ok_or("not yet"))
            .await
            .unwrap();
    assert_eq!(made.rules.unwrap().len(), 1);
    eventually("the kubeconfig to work", SOON, async || prove(&kubeconfig).await).await.unwrap();
    stage.condition("upgraded-1", "Ready", "True", "Issued").await.unwrap();
}
