//! What tools that know nothing of a `KymaBinding` make of it, in each state that it goes through: kstatus
//! (Flux, Helm, `kubectl wait`) and Argo CD.

mod argocd;
mod kstatus;

use e2e::eventually;
use e2e::stage::{MANAGED_NAMESPACE, SOON};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use kyma_bindings::api::binding::KymaBinding;
use serde_json::{Value, json};

use crate::world::{claim, program, stage, world};
use argocd::{Argo, Health};
use kstatus::{Status, kstatus};

fn value(binding: &KymaBinding) -> Value {
    serde_json::to_value(binding).unwrap()
}

#[tokio::test]
async fn each_state_of_a_binding_is_told_right() {
    let (stage, instance) = stage("manners").await;
    let (bindings, argo) = (stage.bindings(), Argo::new());
    let is = |binding: &KymaBinding, status: Status, health: Health, message: &str| {
        let object = value(binding);
        assert_eq!(kstatus(&object), status, "{object}");
        let (found, said) = argo.health(&object);
        assert_eq!(found, health, "{said}: {object}");
        assert!(said.contains(message), "{message} is not in: {said}");
    };
    // All that is ever seen from now on; the watch begins with what is there, which is nothing.
    let mut seen = bindings.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let merge = async |name: &str, patch: Value| {
        bindings.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    };
    let keep = json!({"metadata": {"finalizers": ["example.com/keep", "bindings.kyma-project.io/cleanup"]}});
    let dropped = json!({"metadata": {"finalizers": null}});

    let created = stage.apply("manners-1", &instance, None).await.unwrap();
    is(&created, Status::InProgress, Health::Progressing, "Waiting for the controller");

    // The sweep looks at what is older than 16 s.
    let operator = stage.operator(
        program(),
        &["--max-bindings-per-instance", "2", "--sweep-interval", "1s", "--create-timeout", "1s"],
    );
    let _operator = operator.await.unwrap();
    let bound = stage.condition("manners-1", "Ready", "True", "Issued").await.unwrap();
    is(&bound, Status::Current, Health::Healthy, "holds a kubeconfig that works until");

    stage.apply("manners-lost", &instance, None).await.unwrap();
    stage.ready("manners-lost").await.unwrap();
    stage.apply("manners-rejected", &instance, None).await.unwrap();
    let rejected = stage.condition("manners-rejected", "Stalled", "True", "LimitReached").await.unwrap();
    is(&rejected, Status::Failed, Health::Degraded, "LimitReached: maximum number of non expired bindings");

    let accounts: Api<ServiceAccount> = Api::namespaced(world().await.managed.client(), MANAGED_NAMESPACE);
    accounts.delete("kyma-binding-manners-lost", &DeleteParams::default()).await.unwrap();
    let admin = world().await.managed.admin_kubeconfig();
    stage.register("i-manners-foreign", "r-manners-foreign", &admin).await.unwrap();
    claim("manners-foreign").await;
    stage.apply("manners-foreign", "i-manners-foreign", None).await.unwrap();
    let failed = stage.condition("manners-foreign", "Stalled", "True", "ForeignObject").await.unwrap();
    is(&failed, Status::Failed, Health::Degraded, "ForeignObject: ");

    stage.apply("manners-held", "i-manners-unknown", None).await.unwrap();
    let held = stage.condition("manners-held", "Ready", "False", "InstanceUnknown").await.unwrap();
    is(&held, Status::InProgress, Health::Progressing, "instance does not exist");

    let nobody = admin.replace(world().await.managed.url(), "https://127.0.0.1:9");
    stage.register("i-manners-dead", "r-manners-dead", &nobody).await.unwrap();
    stage.apply("manners-dead", "i-manners-dead", None).await.unwrap();
    let failing = stage.condition("manners-dead", "Ready", "False", "ClusterUnreachable").await.unwrap();
    is(&failing, Status::InProgress, Health::Progressing, "connection refused");

    let suspend = async |suspended: Option<&str>| {
        let patch = json!({"metadata": {"annotations": {"bindings.kyma-project.io/suspended": suspended}}});
        let (secrets, patch) = (stage.instance_secrets(), Patch::Merge(patch));
        secrets.patch("kubeconfig-r-manners", &PatchParams::default(), &patch).await.unwrap();
    };
    suspend(Some("true")).await;
    let suspended = stage.condition("manners-1", "Ready", "False", "InstanceSuspended").await.unwrap();
    is(&suspended, Status::InProgress, Health::Suspended, "suspended");
    suspend(None).await;
    let back = stage.condition("manners-1", "Ready", "True", "Issued").await.unwrap();
    is(&back, Status::Current, Health::Healthy, "");

    // A finalizer of somebody else keeps the object, so that it can be looked at.
    merge("manners-1", keep.clone()).await;
    bindings.delete("manners-1", &DeleteParams::default()).await.unwrap();
    let deleted = bindings.get("manners-1").await.unwrap();
    is(&deleted, Status::Terminating, Health::Progressing, "Being removed");
    merge("manners-1", dropped.clone()).await;

    stage.apply("manners-2", &instance, None).await.unwrap();
    stage.ready("manners-2").await.unwrap();
    merge("manners-2", keep).await;
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let expire = Patch::Merge(json!({"status": {"expiresAt": past}}));
    bindings.patch_status("manners-2", &PatchParams::default(), &expire).await.unwrap();
    let expired = eventually("an expired binding to be deleted", SOON, async || {
        let binding = bindings.get("manners-2").await.unwrap();
        if binding.is_deleting() { Ok(binding) } else { Err("not yet") }
    });
    is(&expired.await.unwrap(), Status::Terminating, Health::Progressing, "Being removed");
    merge("manners-2", dropped).await;

    let lost = stage.condition("manners-lost", "Stalled", "True", "AccessLost").await.unwrap();
    is(&lost, Status::Failed, Health::Degraded, "AccessLost: the ServiceAccount was deleted");
    stage.gone("manners-2", SOON).await.unwrap();
    merge("manners-rejected", json!({"metadata": {"labels": {"last": "yes"}}})).await;
    let mut versions = 0;
    loop {
        let object = match seen.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(binding) | WatchEvent::Modified(binding) => value(&binding),
            _ => continue,
        };
        if object["metadata"]["labels"]["last"] == "yes" {
            break;
        }
        versions += 1;
        let bound = object["status"]["phase"] == "Ready" && object["status"]["binding"]["name"].is_string();
        let going = object["metadata"]["deletionTimestamp"].is_string();
        assert_eq!(kstatus(&object) == Status::Current, bound && !going, "{object}");
        assert_eq!(argo.health(&object).0 == Health::Healthy, bound && !going, "{object}");
    }
    assert!(versions > 20, "{versions}");
}

#[test]
fn what_is_said_of_an_older_generation_counts_for_nothing() {
    let argo = Argo::new();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    for (generation, observed, kind, status, health) in [
        (2, json!(1), "Ready", Status::InProgress, Health::Progressing),
        (2, json!(1), "Stalled", Status::InProgress, Health::Progressing),
        (2, json!(2), "Ready", Status::Current, Health::Healthy),
        (2, json!(2), "Stalled", Status::Failed, Health::Degraded),
        (1, Value::Null, "Ready", Status::Current, Health::Healthy),
    ] {
        let object = json!({
            "metadata": {"name": "b", "generation": generation},
            "status": {"observedGeneration": observed, "conditions": [condition(kind)]},
        });
        assert_eq!(kstatus(&object), status, "{object}");
        assert_eq!(argo.health(&object).0, health, "{object}");
    }
    // Before any status, which the CRD's default keeps from being seen.
    let bare = json!({"metadata": {"name": "b", "generation": 1}});
    assert_eq!(argo.health(&bare), (Health::Progressing, "Waiting for the controller".to_owned()));
}

#[tokio::test]
async fn the_documented_command_puts_the_health_check_into_argo_cds_settings() {
    let (stage, _) = stage("argocd").await;
    let control = stage.control();
    let key = "resource.customizations.health.bindings.kyma-project.io_KymaBinding";
    let from_file = format!("{key}={}", argocd::PATH);
    assert!(
        include_str!("../../../../README.md").contains(&format!("--from-file {key}=docs/argocd-health.lua)"))
    );
    control.kubectl(&["-n", &stage.namespace, "create", "configmap", "argocd-cm"]).await.unwrap();
    let create = [
        "create",
        "configmap",
        "argocd-cm",
        "--dry-run=client",
        "--output",
        "yaml",
        "--from-file",
        &from_file,
    ];
    let patch = control.kubectl(&create).await.unwrap();
    let apply = ["-n", &stage.namespace, "patch", "configmap", "argocd-cm", "--patch", &patch];
    control.kubectl(&apply).await.unwrap();
    let get = ["-n", &stage.namespace, "get", "configmap", "argocd-cm", "-o", "json"];
    let settings: Value = serde_json::from_str(&control.kubectl(&get).await.unwrap()).unwrap();
    assert_eq!(settings["data"][key], std::fs::read_to_string(argocd::PATH).unwrap());
}
