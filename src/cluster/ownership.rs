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
    /// UID of the bindings' namespace: an API server gives it, and no backup brings it elsewhere.
    pub id: String,
    /// UID of its `kube-system` namespace, by which former versions marked, where it may be read.
    pub former: Option<String>,
    /// Name of the bindings' namespace.
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
    /// The label selector that finds all that this control plane has made, under whatever id.
    #[must_use]
    pub fn selector(&self) -> String {
        format!(
            "{MANAGED_BY}={MANAGED_BY_VALUE},{CONTROL_PLANE},{CONTROL_PLANE_NAMESPACE}={}",
            self.namespace
        )
    }

    /// UID of the binding that an object was made for, if this control plane has made it: it has our id, or
    /// `lives` knows the binding, whose UID nobody else gives.
    #[must_use]
    pub fn marked<'a>(&self, object: &'a ObjectMeta, lives: impl Fn(&str) -> bool) -> Option<&'a str> {
        let label = |key: &str| object.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
        let (uid, by) = (label(BINDING_UID)?, label(CONTROL_PLANE)?);
        let ours = label(MANAGED_BY) == Some(MANAGED_BY_VALUE)
            && label(CONTROL_PLANE_NAMESPACE) == Some(&self.namespace)
            && (by == self.id || self.former.as_deref() == Some(by) || lives(uid));
        ours.then_some(uid)
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
        match self.control_plane.marked(object, |uid| uid == self.uid) {
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
            control_plane: ControlPlane {
                id: control_plane.into(),
                former: Some("former".into()),
                namespace: "kyma-bindings".into(),
            },
        }
    }

    #[test]
    fn only_all_marks_together_are_ours() {
        let me = owner("u1", "cp1");
        let marked = |by: &Owner| ObjectMeta { labels: Some(by.labels()), ..ObjectMeta::default() };
        assert_eq!(me.verdict(&marked(&me)), Verdict::Ours);
        assert_eq!(me.verdict(&marked(&owner("u0", "cp1"))), Verdict::Leftover);
        assert_eq!(me.verdict(&marked(&owner("u0", "cp2"))), Verdict::Foreign);
        assert_eq!(me.verdict(&ObjectMeta::default()), Verdict::Foreign);
        for missing in me.labels().into_keys() {
            let mut object = marked(&me);
            object.labels.as_mut().unwrap().remove(&missing);
            assert_eq!(me.verdict(&object), Verdict::Foreign, "without {missing}");
        }
        let mut other_tool = me.labels();
        other_tool.insert(MANAGED_BY.into(), "kcp-kyma-environment-broker".into());
        let other_tool = ObjectMeta { labels: Some(other_tool), ..ObjectMeta::default() };
        assert_eq!(me.verdict(&other_tool), Verdict::Foreign);
    }

    #[test]
    fn what_a_former_version_has_marked_is_ours_and_another_control_planes_is_not() {
        let marked = |by: &Owner| ObjectMeta { labels: Some(by.labels()), ..ObjectMeta::default() };
        let knows = owner("u1", "cp1");
        let mut may_not_read = knows.clone();
        may_not_read.control_plane.former = None;
        // The binding's own UID is nobody else's.
        for me in [&knows, &may_not_read] {
            assert_eq!(me.verdict(&marked(&owner("u1", "former"))), Verdict::Ours);
        }
        assert_eq!(knows.verdict(&marked(&owner("u0", "former"))), Verdict::Leftover);
        assert_eq!(may_not_read.verdict(&marked(&owner("u0", "former"))), Verdict::Foreign);
        // A second release in the same control plane.
        let mut neighbour = owner("u0", "former");
        neighbour.control_plane.namespace = "another".into();
        assert_eq!(knows.verdict(&marked(&neighbour)), Verdict::Foreign);
    }
}
