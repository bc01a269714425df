//! Objects as they are read, without `managedFields`: about half of an object is about who wrote which field of
//! it, which nobody here asks for. Skipping it costs much less than reading it and throwing it away.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::api::binding::{KymaBinding, KymaBindingSpec, KymaBindingStatus};

/// An object without its `managedFields`.
#[derive(Debug, Clone)]
pub struct Pruned<K>(pub K);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            generation: read.generation,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            labels: read.labels,
            annotations: read.annotations,
            finalizers: read.finalizers,
            owner_references: read.owner_references,
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Pruned<KymaBinding> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
            spec: KymaBindingSpec,
            status: Option<KymaBindingStatus>,
        }
        let Object { metadata, spec, status } = Object::deserialize(from)?;
        Ok(Self(KymaBinding { metadata: metadata.into(), spec, status }))
    }
}

impl<'de> Deserialize<'de> for Pruned<Secret> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
            data: Option<BTreeMap<String, ByteString>>,
            immutable: Option<bool>,
            #[serde(rename = "type")]
            type_: Option<String>,
        }
        let Object { metadata, data, immutable, type_ } = Object::deserialize(from)?;
        Ok(Self(Secret { metadata: metadata.into(), data, immutable, type_, ..Secret::default() }))
    }
}

impl<'de> Deserialize<'de> for Pruned<PartialObjectMeta<Secret>> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        let metadata = Object::deserialize(from)?.metadata.into();
        Ok(Self(PartialObjectMeta { metadata, ..PartialObjectMeta::default() }))
    }
}

impl<K: Resource> Resource for Pruned<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn metadata() -> Value {
        json!({
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:01Z",
            "labels": {"l": "1"}, "annotations": {"a": "2"}, "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "w"}],
        })
    }

    /// With what is skipped.
    fn sent(mut object: Value) -> String {
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
        object["metadata"]["selfLink"] = json!("/somewhere");
        object.to_string()
    }

    #[test]
    fn all_but_managed_fields_is_read() {
        let object = json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding", "metadata": metadata(),
            "spec": {"instanceId": "i"}, "status": {"phase": "Ready"},
        });
        let Pruned(read): Pruned<KymaBinding> = serde_json::from_str(&sent(object.clone())).unwrap();
        assert_eq!(read, serde_json::from_value(object.clone()).unwrap());
        assert!(serde_json::from_str::<Pruned<KymaBinding>>(&json!({"metadata": {}}).to_string()).is_err());

        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata()});
        let read: Pruned<PartialObjectMeta<Secret>> = serde_json::from_str(&sent(secret)).unwrap();
        assert_eq!(read.0.metadata, serde_json::from_value(metadata()).unwrap());
        assert!(Pruned::<PartialObjectMeta<Secret>>::metadata_api(), "or data would be sent");
        assert!(!Pruned::<KymaBinding>::metadata_api());

        let secret =
            json!({"metadata": metadata(), "type": "Opaque", "immutable": true, "data": {"a": "QQ=="}});
        let Pruned(read): Pruned<Secret> = serde_json::from_str(&sent(secret.clone())).unwrap();
        assert_eq!(read, serde_json::from_value(secret).unwrap());
    }
}
