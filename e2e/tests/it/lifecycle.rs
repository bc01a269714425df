//! The whole life of a binding, by HTTP and by `kubectl apply`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Cluster, eventually};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{program, stage, world};

/// Claims of the token in a kubeconfig.
fn claims(kubeconfig: &str) -> Value {
    let token = kubeconfig.lines().find_map(|l| l.trim().strip_prefix("token: ")).unwrap();
    let payload = token.trim_matches('"').split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// How many of the three objects of a binding are in a cluster.
pub async fn objects(cluster: &Cluster, binding: &str) -> usize {
    let name = format!("kyma-binding-{binding}");
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), MANAGED_NAMESPACE);
    let roles: Api<ClusterRole> = Api::all(cluster.client());
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client());
    usize::from(accounts.get_opt(&name).await.unwrap().is_some())
        + usize::from(roles.get_opt(&name).await.unwrap().is_some())
        + usize::from(bindings.get_opt(&name).await.unwrap().is_some())
}

#[tokio::test]
async fn by_http() {
    let (stage, instance) = stage("http").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();

    let made = osb.bind(&instance, "http-1", Some(900)).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    assert_eq!(made.headers["cache-control"], "no-store");
    let kubeconfig = made.kubeconfig().unwrap().to_owned();
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");

    let claims = claims(&kubeconfig);
    let seconds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(seconds, 900, "the token lives as long as was asked");
    let expires_at: Timestamp = made.body["metadata"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires_at.as_second(), claims["exp"].as_i64().unwrap());
    assert!(kubeconfig.contains("current-context: shoot-r-http"));
    assert!(kubeconfig.starts_with(&format!("# This kubeconfig stops working at {expires_at}")));

    let fetched = osb.fetch(&instance, "http-1").await.unwrap();
    assert_eq!(fetched.status, 200);
    assert_eq!(fetched.body["credentials"], made.body["credentials"]);
    assert_eq!(fetched.body["metadata"]["expires_at"], made.body["metadata"]["expires_at"]);
    assert_eq!(fetched.body["parameters"]["expiration_seconds"], 900);

    assert_eq!(osb.unbind(&instance, "http-1").await.unwrap().status, 200);
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(managed, "http-1").await, 0);
    stage.gone("http-1", Duration::from_secs(1)).await.unwrap();
    assert_eq!(osb.fetch(&instance, "http-1").await.unwrap().status, 404);
    assert_eq!(osb.unbind(&instance, "http-1").await.unwrap().status, 410);
    operator.terminate().await.unwrap();
}

#[tokio::test]
async fn by_kubectl_apply() {
    let (stage, instance) = stage("apply").await;
    let world = world().await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let applied = stage.apply("apply-1", &instance, None).await.unwrap();
    let before = applied.status.unwrap();
    assert_eq!(
        (before.conditions[0].type_.as_str(), before.conditions[0].status.as_str()),
        ("Ready", "Unknown")
    );

    let kubeconfig = stage.ready("apply-1").await.unwrap();
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");
    let table = world.control.kubectl(&["-n", &stage.namespace, "get", "kb", "-o", "wide"]).await.unwrap();
    for word in ["READY", "INSTANCE", "PHASE", "EXPIRES", "MESSAGE", "True", "Ready", "kyma-binding-apply-1"]
    {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }

    // Both ways in meet in the object: what was applied can be fetched, and joined.
    let osb = operator.osb();
    assert_eq!(osb.fetch(&instance, "apply-1").await.unwrap().kubeconfig().unwrap(), kubeconfig);
    let joined = osb.bind(&instance, "apply-1", Some(600)).await.unwrap();
    assert_eq!((joined.status, joined.kubeconfig().unwrap()), (200, kubeconfig.as_str()));

    let delete = ["-n", &stage.namespace, "delete", "kb", "apply-1"];
    world.control.kubectl(&delete).await.unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(&world.managed, "apply-1").await, 0);
}

#[tokio::test]
async fn the_secret_is_a_service_binding_and_carries_no_label_of_others() {
    let (stage, instance) = stage("secret").await;
    let _operator = stage.operator(program(), &[]).await.unwrap();
    stage.apply("secret-1", &instance, None).await.unwrap();
    stage.ready("secret-1").await.unwrap();
    let secret = stage.secrets().get("kyma-binding-secret-1").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("servicebinding.io/kubernetes"));
    assert_eq!(secret.immutable, Some(true));
    let data = secret.data.unwrap();
    let keys: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, ["binding_id", "created_at", "expires_at", "kubeconfig", "provider", "type"]);
    let owner = &secret.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("KymaBinding", "secret-1"));
    for label in secret.metadata.labels.unwrap().keys() {
        let others = label.starts_with("kyma-project.io/") || label.starts_with("operator.kyma-project.io/");
        assert!(!others, "{label} makes other controllers fail");
    }
}

#[tokio::test]
async fn an_expired_binding_is_gone_within_two_seconds() {
    let (stage, instance) = stage("expired").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bind(&instance, "expired-1", None).await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let patch = Patch::Merge(json!({"status": {"expiresAt": past}}));
    stage.bindings().patch_status("expired-1", &PatchParams::default(), &patch).await.unwrap();
    stage.gone("expired-1", Duration::from_secs(2)).await.unwrap();
    prove_refused(kubeconfig).await.unwrap();
    assert_eq!(objects(&world().await.managed, "expired-1").await, 0);
    assert_eq!(operator.osb().fetch(&instance, "expired-1").await.unwrap().status, 404);
    eventually("the lag to be counted", SOON, async || {
        let (_, metrics) = operator.admin("/metrics").await.map_err(|e| e.to_string())?;
        if metrics.contains("kyma_bindings_expiry_lag_seconds_count 1\n") { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_expired_id_can_be_bound_again() {
    let (stage, instance) = stage("again").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let first = osb.bind(&instance, "again-1", None).await.unwrap();
    // Over for everybody who looks at the clock, though the controller has not removed it yet.
    let soon = Timestamp::now() + SignedDuration::from_millis(300);
    let patch = Patch::Merge(json!({"status": {"expiresAt": soon}}));
    stage.bindings().patch_status("again-1", &PatchParams::default(), &patch).await.unwrap();
    let again = eventually("a new binding of the same id", SOON, async || {
        let answer = osb.bind(&instance, "again-1", Some(700)).await.unwrap();
        if answer.status == 201 {
            Ok(answer)
        } else {
            Err(format!("{} {}", answer.status, answer.description()))
        }
    })
    .await
    .unwrap();
    assert_ne!(first.kubeconfig().unwrap(), again.kubeconfig().unwrap());
    prove(again.kubeconfig().unwrap()).await.unwrap();
    // The new account has the name of the old one, and an API server remembers a token that it has taken for 10 s.
    eventually("the first kubeconfig to be refused", SOON, async || {
        prove_refused(first.kubeconfig().unwrap()).await
    })
    .await
    .unwrap();
}
