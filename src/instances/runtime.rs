//! The part of a `Runtime` that we read, and the labels that it shares with the Secrets.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};

use super::state::{RuntimeFacts, SecretFacts};
use crate::api::names::{CLUSTER_NAME, SUSPENDED};
use crate::api::text;

/// Label: the instance that a Secret or Runtime describes.
pub const INSTANCE_ID: &str = "kyma-project.io/instance-id";
/// Label: the runtime of a kubeconfig Secret.
pub const RUNTIME_ID: &str = "kyma-project.io/runtime-id";
/// Label: the plan's name, by which bindability is decided.
pub const PLAN_NAME: &str = "kyma-project.io/broker-plan-name";
/// Label: the cluster's technical name.
pub const SHOOT_NAME: &str = "kyma-project.io/shoot-name";
/// Group and version of `Runtime`.
pub const API_VERSION: &str = "infrastructuremanager.kyma-project.io/v1";

/// How `Runtime`s are addressed.
#[must_use]
pub fn api_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("infrastructuremanager.kyma-project.io", "v1", "Runtime");
    ApiResource::from_gvk_with_plural(&kind, "runtimes")
}

/// What we keep of a kubeconfig Secret's metadata.
#[must_use]
pub fn secret_facts(secret: &PartialObjectMeta<Secret>) -> SecretFacts {
    let name = secret.name_any();
    let from_name = name.strip_prefix("kubeconfig-").unwrap_or(&name).to_owned();
    SecretFacts {
        resource_version: secret.resource_version().unwrap_or_default(),
        runtime_id: label(secret, RUNTIME_ID).unwrap_or(from_name),
        plan: label(secret, PLAN_NAME),
        cluster_name: cluster_name(secret),
        suspended: is_suspended(secret),
        name,
    }
}

/// What we keep of a `Runtime`. Whatever is missing or of another type counts as not said.
#[must_use]
pub fn runtime_facts(runtime: &DynamicObject) -> RuntimeFacts {
    let status = &runtime.data["status"];
    let state = status["state"].as_str().unwrap_or_default();
    RuntimeFacts {
        name: runtime.name_any(),
        plan: label(runtime, PLAN_NAME),
        cluster_name: cluster_name(runtime),
        suspended: is_suspended(runtime),
        // A failed deletion reads Failed, so the timestamp is looked at first.
        terminating: runtime.metadata.deletion_timestamp.is_some() || state == "Terminating",
        failed: state == "Failed",
        provisioned: status["provisioningCompleted"].as_bool().unwrap_or(false),
    }
}

/// The instance that an object describes.
pub fn instance_of(object: &impl ResourceExt) -> Option<String> {
    label(object, INSTANCE_ID).filter(|id| !id.is_empty())
}

fn label(object: &impl ResourceExt, key: &str) -> Option<String> {
    object.labels().get(key).filter(|v| !v.is_empty()).cloned()
}

fn cluster_name(object: &impl ResourceExt) -> Option<String> {
    let annotated = object.annotations().get(CLUSTER_NAME).filter(|v| !v.is_empty() && text::is_plain(v));
    annotated.cloned().or_else(|| label(object, SHOOT_NAME))
}

fn is_suspended(object: &impl ResourceExt) -> bool {
    object.annotations().get(SUSPENDED).is_some_and(|v| v == "true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_runtime_being_deleted_is_terminating_whatever_its_state_says() {
        let runtime: DynamicObject = serde_json::from_value(json!({
            "apiVersion": API_VERSION, "kind": "Runtime",
            "metadata": {"name": "r", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {SHOOT_NAME: "c-1"}},
            "status": {"state": "Failed", "provisioningCompleted": true},
        }))
        .unwrap();
        let facts = runtime_facts(&runtime);
        assert!(facts.terminating && facts.failed && facts.provisioned);
        assert_eq!(facts.cluster_name.as_deref(), Some("c-1"));
    }

    #[test]
    fn the_annotated_cluster_name_wins() {
        let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "kubeconfig-r", "labels": {SHOOT_NAME: "c-1"}, "annotations": {CLUSTER_NAME: "my-cluster"}},
        }))
        .unwrap();
        let facts = secret_facts(&secret);
        assert_eq!((facts.runtime_id.as_str(), facts.cluster_name.as_deref()), ("r", Some("my-cluster")));
    }

    #[test]
    fn an_annotated_name_that_a_terminal_would_obey_is_not_taken() {
        for odd in ["\u{1b}[31mc", "c\u{202e}x", "c\n", "\u{200b}"] {
            let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "kubeconfig-r", "labels": {SHOOT_NAME: "c-1"}, "annotations": {CLUSTER_NAME: odd}},
            }))
            .unwrap();
            assert_eq!(secret_facts(&secret).cluster_name.as_deref(), Some("c-1"), "{odd:?}");
        }
    }
}
