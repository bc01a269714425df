//! The `KymaBinding` custom resource.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{Kind, Phase};
use super::names::{FORGET, ORIGIN, ORIGIN_OSB};
use super::text;

/// Shortest lifetime of a binding, seconds: `TokenRequest` refuses less.
pub const MIN_EXPIRATION_SECONDS: i64 = 600;
/// Longest lifetime of a binding, seconds.
pub const MAX_EXPIRATION_SECONDS: i64 = 7200;

/// What a `KymaBinding` asks for.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "bindings.kyma-project.io",
    version = "v1alpha1",
    kind = "KymaBinding",
    plural = "kymabindings",
    namespaced,
    shortname = "kb",
    category = "kyma",
    status = "KymaBindingStatus",
    derive = "PartialEq",
    selectable = ".spec.instanceId",
    label("servicebinding.io/provisioned-service", "true"),
    doc = "A KymaBinding is one short-lived kubeconfig for one managed Kyma cluster. Creating one means holding that cluster's keys until it expires or is deleted.",
    validation = Rule::new("self.metadata.name.size() <= 240")
        .message("the name must be at most 240 characters long, because kyma-binding-{name} names objects that may have at most 253"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Instance","type":"string","jsonPath":".spec.instanceId"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expiresAt"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type=='Ready')].message"}"#,
    printcolumn = r#"{"name":"Secret","type":"string","priority":1,"jsonPath":".status.binding.name"}"#,
    printcolumn = r#"{"name":"Created by","type":"string","priority":1,"jsonPath":".spec.createdBy"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("spec is immutable: delete the KymaBinding and create another"))]
pub struct KymaBindingSpec {
    /// Service instance whose managed cluster the kubeconfig is for: the value of the label `kyma-project.io/instance-id` on the cluster's kubeconfig Secret or Runtime, 1 to 63 characters.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')")
        .message("instanceId must be a label value: 1 to 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit"))]
    #[schemars(length(max = 63))]
    pub instance_id: String,

    /// Lifetime of the kubeconfig in seconds, 600 (10 minutes) to 7200 (2 hours). Default: 600.
    #[serde(default = "default_expiration_seconds")]
    #[x_kube(validation = Rule::new("self >= 600 && self <= 7200")
        .message("expirationSeconds must be between 600 and 7200"))]
    pub expiration_seconds: i64,

    /// Service id that the Open Service Broker request named. For information only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(text::RULE)
        .message("serviceId must have no control characters, and none that are invisible or change the direction of text"))]
    #[schemars(length(max = 256))]
    pub service_id: Option<String>,

    /// Plan id that the Open Service Broker request named. For information only: what decides is the plan of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(text::RULE)
        .message("planId must have no control characters, and none that are invisible or change the direction of text"))]
    #[schemars(length(max = 256))]
    pub plan_id: Option<String>,

    /// Name of a binding of the same instance that this one takes over from. While both live they count as one towards the limit of bindings, unless that one has an older successor or is itself counted with its own predecessor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("predecessorBindingId must be the name of a KymaBinding: lower case letters, digits, '-' and '.'"))]
    #[schemars(length(max = 240))]
    pub predecessor_binding_id: Option<String>,

    /// Who asked for the binding, as far as the request said. For information only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(text::RULE)
        .message("createdBy must have no control characters, and none that are invisible or change the direction of text"))]
    #[schemars(length(max = 256))]
    pub created_by: Option<String>,
}

/// A word of a later version than ours must not make the whole object unreadable.
fn known_phase<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Phase>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?;
    Ok(word.and_then(|word| Phase::ALL.iter().copied().find(|phase| phase.as_str() == word)))
}

fn default_expiration_seconds() -> i64 {
    MIN_EXPIRATION_SECONDS
}

/// What became of a `KymaBinding`.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KymaBindingStatus {
    /// Generation of the object that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// State of the binding. Accepted: instance, plan and limit allow it. Ready: the Secret holds a working kubeconfig. Stalled: it has failed for good and will not be retried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".into()]))]
    #[schemars(with = "Vec<super::crd::ConditionSchema>")]
    pub conditions: Vec<Condition>,

    /// The conditions in one word, for people: Pending, Ready, Rejected, Failed, Expired or Terminating.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_phase")]
    pub phase: Option<Phase>,

    /// When the kubeconfig stops working (RFC 3339, UTC), as granted by the managed cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::crd::TimeSchema>")]
    pub expires_at: Option<Time>,

    /// Id of the runtime on which the token was made. An instance that comes back with another runtime doesn't inherit its bindings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,

    /// UID of the managed cluster's kube-system namespace: the cluster on which the token was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,

    /// The Secret with the kubeconfig, as the Service Binding specification's Provisioned Service says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<SecretReference>,
}

/// Names a Secret in the binding's own namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct SecretReference {
    /// Name of the Secret, in the namespace of the `KymaBinding`.
    pub name: String,
}

impl KymaBinding {
    /// The condition of that kind, if it was ever written.
    #[must_use]
    pub fn condition(&self, kind: Kind) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions.iter().find(|c| c.type_ == kind.as_str())
    }

    /// Whether that condition says `True`.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.condition(kind).is_some_and(|c| c.status == "True")
    }

    /// Whether somebody has asked for its deletion.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether a person said by annotation to give up on the managed cluster.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.annotations().get(FORGET).is_some_and(|v| v == "true")
    }

    /// Whether an OSB request created it, so that a refusal removes it again.
    #[must_use]
    pub fn is_from_osb(&self) -> bool {
        self.annotations().get(ORIGIN).is_some_and(|v| v == ORIGIN_OSB)
    }

    /// The expiry in the status.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        Some(self.status.as_ref()?.expires_at.as_ref()?.0)
    }

    /// The resource version, which compares as a number within one resource (KEP-5504); 0 where there is none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// When the object was created; the API server always sets it.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        Some(self.metadata.creation_timestamp.as_ref()?.0)
    }
}
