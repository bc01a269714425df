//! The marks on everything that we make, and what they say about an object that is found.
//!
//! Marks stop accidents. They can be copied, so they prove nothing against an attacker.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::names::{
    BINDING_UID, BindingId, CONTROL_PLANE, CONTROL_PLANE_NAMESPACE, MANAGED_BY, MANAGED_BY_VALUE,
};

/// Which control plane we are, so that two of them never take each other's objects for theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// UID of its `kube-system` namespace.
    pub id: String,
    /// Namespace of the bindings.
    pub namespace: String,
}

/// For which binding something is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The binding's id.
    pub binding: BindingId,
    /// UID of the `KymaBinding`.
    pub uid: String,
    /// Where it lives.
    pub control_plane: ControlPlane,
}

/// What the marks on an object say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Made for this binding.
    Ours,
    /// Made by this control plane for an earlier binding of the same name, which no longer exists.
    Leftover,
    /// Anybody's.
    Foreign,
}

impl ControlPlane {
    /// The label selector that finds all that this control plane has made.
    #[must_use]
    pub fn selector(&self) -> String {
        format!(
            "{MANAGED_BY}={MANAGED_BY_VALUE},{CONTROL_PLANE}={},{CONTROL_PLANE_NAMESPACE}={}",
            self.id, self.namespace
        )
    }

    /// UID of the binding that an object was made for, if this control plane has made it.
    #[must_use]
    pub fn marked<'a>(&self, object: &'a ObjectMeta) -> Option<&'a str> {
        let label = |key: &str| object.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
        let ours = label(MANAGED_BY) == Some(MANAGED_BY_VALUE)
            && label(CONTROL_PLANE) == Some(&self.id)
            && label(CONTROL_PLANE_NAMESPACE) == Some(&self.namespace);
        label(BINDING_UID).filter(|_| ours)
    }
}

impl Owner {
    /// The labels for everything made for this binding.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (MANAGED_BY, MANAGED_BY_VALUE),
            (BINDING_UID, &self.uid),
            (CONTROL_PLANE, &self.control_plane.id),
            (CONTROL_PLANE_NAMESPACE, &self.control_plane.namespace),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Whose an object is.
    #[must_use]
    pub fn verdict(&self, object: &ObjectMeta) -> Verdict {
        match self.control_plane.marked(object) {
            Some(uid) if uid == self.uid => Verdict::Ours,
            Some(_) => Verdict::Leftover,
            None => Verdict::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, control_plane: &str) -> Owner {
        Owner {
            binding: BindingId::parse("b").unwrap(),
            uid: uid.into(),
            control_plane: ControlPlane { id: control_plane.into(), namespace: "kyma-bindings".into() },
        }
    }

    #[test]
    fn only_all_marks_together_are_ours() {
        let me = owner("u1", "cp1");
        let marked = |by: &Owner| ObjectMeta { labels: Some(by.labels()), ..ObjectMeta::default() };
        assert_eq!(me.verdict(&marked(&me)), Verdict::Ours);
        assert_eq!(me.verdict(&marked(&owner("u0", "cp1"))), Verdict::Leftover);
        assert_eq!(me.verdict(&marked(&owner("u1", "cp2"))), Verdict::Foreign);
        assert_eq!(me.verdict(&ObjectMeta::default()), Verdict::Foreign);
        let mut other_tool = me.labels();
        other_tool.insert(MANAGED_BY.into(), "kcp-kyma-environment-broker".into());
        let other_tool = ObjectMeta { labels: Some(other_tool), ..ObjectMeta::default() };
        assert_eq!(me.verdict(&other_tool), Verdict::Foreign);
    }
}
