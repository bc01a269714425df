//! Bindings in few bytes: most of those that live only wait for their end.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::json;

use crate::api::binding::KymaBinding;
use crate::api::conditions::{Kind, Reason};
use crate::api::names::{FINALIZER, ORIGIN, ORIGIN_OSB, REQUEST_ID, TRACEPARENT};
use crate::support::codec::{pack, unpack};

/// What all bindings say alike, which none of them has to hold by itself.
static ALIKE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // Without it, all would still be packed, only not as well. With what differs left out: a UUID is never alike.
    typical().and_then(|typical| serde_json::to_vec(&typical)).unwrap_or_default()
});

/// A binding as it is kept.
#[derive(Debug, Clone)]
pub enum Kept {
    /// One that something happens to.
    Whole(Arc<KymaBinding>),
    /// One at rest: see [`crate::support::codec`].
    Packed(Box<[u8]>),
}

impl Kept {
    /// Keeps a binding.
    #[must_use]
    pub fn keep(binding: KymaBinding) -> Self {
        let at_rest = !binding.is_deleting() && (binding.is(Kind::Ready) || binding.is(Kind::Stalled));
        match at_rest.then(|| pack(&binding, &ALIKE)).flatten() {
            Some(packed) => Self::Packed(packed),
            None => Self::Whole(Arc::new(binding)),
        }
    }

    /// The binding; `None` never, since all that is packed is JSON of one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<KymaBinding>> {
        match self {
            Self::Whole(binding) => Some(binding.clone()),
            Self::Packed(packed) => unpack(packed, &ALIKE).map(Arc::new),
        }
    }
}

/// A binding like most.
fn typical() -> serde_json::Result<KymaBinding> {
    const SOME: &str = "00000000-0000-0000-0000-000000000000";
    const THEN: &str = "2026-01-01T00:00:00Z";
    let condition = |kind: Kind, reason: Reason, message: String| {
        json!({
            "type": kind.as_str(), "status": "True", "reason": reason.as_str(), "message": message,
            "observedGeneration": 1, "lastTransitionTime": THEN,
        })
    };
    let annotations = [(ORIGIN, ORIGIN_OSB), (REQUEST_ID, SOME), (TRACEPARENT, "00-")];
    serde_json::from_value(json!({
        "metadata": {
            "name": SOME, "namespace": "kyma-bindings", "uid": SOME, "resourceVersion": "1", "generation": 1,
            "creationTimestamp": THEN, "finalizers": [FINALIZER],
            "annotations": BTreeMap::from(annotations),
        },
        "spec": {
            "instanceId": SOME, "expirationSeconds": 600, "serviceId": SOME, "planId": SOME, "createdBy": "",
        },
        "status": {
            "observedGeneration": 1, "phase": "Ready", "expiresAt": THEN, "runtimeId": SOME, "clusterId": SOME,
            "binding": {"name": format!("kyma-binding-{SOME}")},
            "conditions": [
                condition(Kind::Accepted, Reason::Accepted, "instance, plan and limit allow this binding".into()),
                condition(
                    Kind::Ready,
                    Reason::Issued,
                    format!("Secret kyma-binding-{SOME} holds a kubeconfig that works until {THEN}"),
                ),
            ],
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled() -> KymaBinding {
        let mut binding = typical().unwrap();
        let status = binding.status.get_or_insert_default();
        status.conditions[1].type_ = "Stalled".into();
        status.conditions[1].message = "\u{fffd} \"quoted\" \\ and more".repeat(500);
        binding
    }

    #[test]
    fn what_is_at_rest_is_packed_and_comes_back_as_it_was() {
        for binding in [typical().unwrap(), stalled()] {
            let kept = Kept::keep(binding.clone());
            assert!(matches!(kept, Kept::Packed(_)));
            assert_eq!(kept.get().as_deref(), Some(&binding));
        }
        let mut ready = typical().unwrap();
        ready.metadata.name = Some("6f1d9c0e-8a35-4b7c-9d2e-1f0a5b6c7d8e".into());
        ready.metadata.uid = Some("0b9e8d7c-6f5a-4e3d-8c2b-1a0f9e8d7c6b".into());
        let Kept::Packed(packed) = Kept::keep(ready) else { panic!("not at rest") };
        assert!(packed.len() < 250, "{}: is all that is alike in what is said once?", packed.len());
    }

    #[test]
    fn what_is_under_way_is_not() {
        let (mut pending, mut deleted) = (typical().unwrap(), typical().unwrap());
        pending.status = None;
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        for binding in [pending, deleted] {
            let kept = Kept::keep(binding.clone());
            assert!(matches!(kept, Kept::Whole(_)));
            assert_eq!(kept.get().as_deref(), Some(&binding));
        }
    }
}
