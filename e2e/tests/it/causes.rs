//! Each cause for which a managed cluster can't be used, in words of its own.

use std::time::{Duration, Instant};

use e2e::fake::{Death, Fake, Flaw};
use e2e::stage::{SOON, prove};
use e2e::{Stage, eventually};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{program, stage, world};

/// Waits until the condition of a new binding of the instance says that.
async fn expect(stage: &Stage<'_>, name: &str, reason: &str, says: &str) {
    stage.apply(name, &format!("i-{name}"), None).await.unwrap();
    eventually(&format!("{name} to say: {says}"), SOON, async || {
        let binding = stage.bindings().get(name).await.unwrap();
        let conditions = binding.status.unwrap_or_default().conditions;
        let fits =
            conditions.iter().any(|c| c.type_ == "Ready" && c.reason == reason && c.message.contains(says));
        if fits { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn each_defect_on_the_way_to_a_cluster_has_its_own_sentence() {
    let (stage, _) = stage("causes").await;
    let _operator = stage.operator(program(), &[]).await.unwrap();
    let mut fakes = Vec::new();
    for (i, (flaw, says)) in [
        (Flaw::Expired, "the certificate of its server has expired"),
        (Flaw::NotYetValid, "the certificate of its server is not valid yet"),
        (Flaw::OtherName, "the certificate of its server is not for the name or address"),
        (Flaw::OtherAuthority, "no trusted authority has issued the certificate of its server"),
        (Flaw::Authority, "its server shows the certificate of an authority"),
        (Flaw::ClientsOnly, "the certificate of its server is not meant for servers"),
    ]
    .into_iter()
    .enumerate()
    {
        let fake = Fake::start(Death::Certificate(flaw)).await.unwrap();
        let name = format!("causes-tls-{i}");
        stage.register(&format!("i-{name}"), &format!("r-{name}"), fake.kubeconfig()).await.unwrap();
        fakes.push(fake);
        expect(&stage, &name, "ClusterUnreachable", says).await;
    }
    let garbage = Fake::start(Death::Garbage).await.unwrap();
    stage.register("i-causes-garbage", "r-causes-garbage", garbage.kubeconfig()).await.unwrap();
    expect(&stage, "causes-garbage", "ClusterUnreachable", "does not speak TLS").await;

    let managed = &world().await.managed;
    let nowhere = managed.admin_kubeconfig().replace(managed.url(), "https://api.nowhere.invalid:6443");
    stage.register("i-causes-name", "r-causes-name", &nowhere).await.unwrap();
    expect(&stage, "causes-name", "ClusterUnreachable", "the name of its server can't be resolved").await;
}

#[tokio::test]
async fn a_refused_call_is_named() {
    let (stage, _) = stage("weak").await;
    let managed = &world().await.managed;
    let _operator = stage.operator(program(), &[]).await.unwrap();
    let weak = managed.kubeconfig_for("weak", &[]).unwrap();
    for name in ["weak-1", "weak-2"] {
        stage.register(&format!("i-{name}"), &format!("r-{name}"), &weak).await.unwrap();
    }
    expect(&stage, "weak-1", "ClusterForbidden", "refuses to get Namespaces (HTTP 403)").await;
    // All but one.
    let grants = json!({"metadata": {"name": "weak"}, "rules": [
        {"apiGroups": [""], "resources": ["namespaces", "serviceaccounts", "serviceaccounts/token"], "verbs": ["*"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]},
    ]});
    let bound = json!({
        "metadata": {"name": "weak"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "weak"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "weak"}],
    });
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(managed.client());
    roles.create(&PostParams::default(), &serde_json::from_value(grants).unwrap()).await.unwrap();
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(managed.client());
    bindings.create(&PostParams::default(), &serde_json::from_value(bound).unwrap()).await.unwrap();
    expect(&stage, "weak-2", "ClusterForbidden", "refuses to create ClusterRoleBindings (HTTP 403)").await;
}

#[tokio::test]
async fn a_secret_without_a_kubeconfig_is_named_with_the_key_that_it_lacks() {
    let (stage, instance) = stage("emptied").await;
    stage.rotate("r-emptied", None).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let mut bound = 0;
    let mut expect = async |says: &str| {
        bound += 1;
        let name = format!("emptied-{bound}");
        let began = Instant::now();
        let waiting = osb.bind(&instance, &name, None).await.unwrap();
        assert_eq!(waiting.status, 503);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(waiting.headers.contains_key("retry-after"));
        assert!(waiting.description().contains(says), "{}", waiting.description());
        stage.condition(&name, "Ready", "False", "KubeconfigMissing").await.unwrap();
    };
    expect("Secret kubeconfig-r-emptied has no key 'config'").await;
    let empty = Patch::Merge(json!({"data": {"config": ""}}));
    stage.instance_secrets().patch("kubeconfig-r-emptied", &PatchParams::default(), &empty).await.unwrap();
    expect("the key 'config' of Secret kubeconfig-r-emptied, which must hold it, is empty").await;
    let managed = &world().await.managed;
    stage.rotate("r-emptied", Some(&managed.admin_kubeconfig())).await.unwrap();
    for name in ["emptied-1", "emptied-2"] {
        prove(&stage.ready(name).await.unwrap()).await.unwrap();
        assert_eq!(osb.bound(&instance, name).await.unwrap().status, 200, "the same PUT joins it");
    }
    // A moment without it, as in a forced rotation, is waited for.
    stage.rotate("r-emptied", None).await.unwrap();
    let refilled = async {
        stage.condition("emptied-3", "Ready", "False", "KubeconfigMissing").await.unwrap();
        stage.rotate("r-emptied", Some(&managed.admin_kubeconfig())).await.unwrap();
    };
    let (made, ()) = futures::join!(osb.bind(&instance, "emptied-3", None), refilled);
    assert_eq!(made.unwrap().status, 201);
}
