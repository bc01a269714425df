//! The Secret that holds a binding's kubeconfig: its one shape, for writer and reader.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use super::binding::KymaBinding;
use super::names::{BINDING_UID, BindingId, MANAGED_BY, MANAGED_BY_VALUE};
use crate::api::issued;
use crate::support::secret::{ExposeSecret as _, SecretString, Zeroize as _};

/// Secret type for a binding of type `kubernetes` (Service Binding specification 1.1).
const SECRET_TYPE: &str = "servicebinding.io/kubernetes";
/// Key of the kubeconfig.
const KUBECONFIG: &str = "kubeconfig";
const TYPE: (&str, &str) = ("type", "kubernetes");
const PROVIDER: (&str, &str) = ("provider", "kyma");
const BINDING_ID: &str = "binding_id";
const CREATED_AT: &str = "created_at";
const EXPIRES_AT: &str = "expires_at";

/// The Secret for a binding. It is immutable: what it says is true until it is gone.
#[must_use]
pub fn secret(
    binding: &KymaBinding,
    id: &BindingId,
    labels: std::collections::BTreeMap<String, String>,
    kubeconfig: &SecretString,
    created_at: Timestamp,
    expires_at: Timestamp,
) -> Secret {
    let data = [
        (TYPE.0, TYPE.1.to_owned()),
        (PROVIDER.0, PROVIDER.1.to_owned()),
        (BINDING_ID, id.to_string()),
        (CREATED_AT, format!("{created_at:.0}")),
        (EXPIRES_AT, format!("{expires_at:.0}")),
        (KUBECONFIG, kubeconfig.expose_secret().to_owned()),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Secret {
        metadata: ObjectMeta {
            name: Some(id.object_name()),
            namespace: binding.namespace(),
            labels: Some(labels),
            owner_references: binding.controller_owner_ref(&()).map(|owner| {
                // Without it the owner could be deleted in the foreground only by whoever may
                // set finalizers on it; nothing of ours needs that.
                vec![OwnerReference { block_owner_deletion: None, ..owner }]
            }),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        immutable: Some(true),
        data: Some(data.into()),
        ..Secret::default()
    }
}

/// Whether a Secret of our name was made for this binding.
#[must_use]
pub fn is_ours(meta: &ObjectMeta, binding_uid: &str) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    label(MANAGED_BY) == Some(MANAGED_BY_VALUE) && label(BINDING_UID) == Some(binding_uid)
}

/// Whether a Secret of our name was made by this software for any binding.
#[must_use]
pub fn is_of_some_binding(meta: &ObjectMeta) -> bool {
    let uid = meta.labels.as_ref().and_then(|l| l.get(BINDING_UID));
    uid.is_some_and(|uid| is_ours(meta, uid))
}

/// Wipes the data of a Secret that is needed no more.
pub fn wipe(secret: &mut Secret) {
    secret.data.iter_mut().flat_map(|data| data.values_mut()).for_each(|value| value.0.zeroize());
}

/// The kubeconfig in a binding's Secret, only if the Secret has exactly the shape that we write:
/// whoever could swap it could otherwise have us hand out anything.
#[must_use]
pub fn kubeconfig(
    secret: Secret,
    id: &BindingId,
    binding_uid: &str,
    expires_at: Timestamp,
) -> Option<SecretString> {
    let owned = |owner: &OwnerReference| owner.uid == binding_uid && owner.kind == KymaBinding::kind(&());
    let shaped = secret.metadata.name.as_deref() == Some(id.object_name().as_str())
        && is_ours(&secret.metadata, binding_uid)
        && matches!(secret.metadata.owner_references.as_deref(), Some([only]) if owned(only))
        && secret.type_.as_deref() == Some(SECRET_TYPE)
        && secret.immutable == Some(true);
    let mut data = secret.data?;
    let says = |key: &str, value: &str| data.get(key).is_some_and(|v| v.0 == value.as_bytes());
    let shaped = shaped
        && data.len() == 6
        && says(TYPE.0, TYPE.1)
        && says(PROVIDER.0, PROVIDER.1)
        && says(BINDING_ID, id.as_str())
        && says(EXPIRES_AT, &format!("{expires_at:.0}"))
        && data.contains_key(CREATED_AT);
    let text: SecretString = String::from_utf8(data.remove(KUBECONFIG)?.0).ok()?.into();
    (shaped && issued::is_as_made(text.expose_secret(), id)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made() -> (Secret, BindingId, Timestamp) {
        let binding: KymaBinding = serde_json::from_value(json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {"name": "b", "namespace": "ns", "uid": "u"}, "spec": {"instanceId": "i"},
        }))
        .unwrap();
        let id = BindingId::parse("b").unwrap();
        let labels =
            [(MANAGED_BY, MANAGED_BY_VALUE), (BINDING_UID, "u")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let at = |s| Timestamp::from_second(s).unwrap();
        let text = issued::example(&id).into();
        (secret(&binding, &id, labels.into(), &text, at(1), at(601)), id, at(601))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (secret, id, ends) = made();
        assert_eq!(secret.data.as_ref().unwrap()[EXPIRES_AT].0, b"1970-01-01T00:10:01Z");
        assert_eq!(kubeconfig(secret, &id, "u", ends).unwrap().expose_secret(), issued::example(&id));
    }

    #[test]
    fn what_is_needed_no_more_is_wiped() {
        let (mut secret, ..) = made();
        wipe(&mut secret);
        assert!(secret.data.unwrap().values().all(|value| value.0.is_empty()));
    }

    #[test]
    fn any_other_shape_is_refused() {
        type Change = fn(&mut Secret);
        let changes: [Change; 9] = [
            |s| s.immutable = None,
            |s| s.type_ = Some("Opaque".into()),
            |s| s.metadata.owner_references = None,
            |s| s.metadata.labels = None,
            |s| s.metadata.name = Some("other".into()),
            |s| drop(s.data.as_mut().unwrap().insert("more".into(), ByteString(vec![]))),
            |s| drop(s.data.as_mut().unwrap().insert(BINDING_ID.into(), ByteString(b"c".to_vec()))),
            |s| drop(s.data.as_mut().unwrap().remove(KUBECONFIG)),
            |s| drop(s.data.as_mut().unwrap().insert(KUBECONFIG.into(), ByteString(b"users: []".to_vec()))),
        ];
        for change in changes {
            let (mut secret, id, ends) = made();
            change(&mut secret);
            assert!(kubeconfig(secret, &id, "u", ends).is_none());
        }
        let (secret, id, ends) = made();
        assert!(kubeconfig(secret, &id, "other", ends).is_none());
    }
}
