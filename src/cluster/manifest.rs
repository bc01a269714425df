//! What is made of a binding in a managed cluster. Pure.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Resource as _;
use serde_json::{Value, json};

use super::ownership::Owner;

/// The three kinds of objects of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the managed namespace.
    ServiceAccount,
    /// Its rules belong to the cluster's owner.
    ClusterRole,
    /// From the account to the role.
    ClusterRoleBinding,
}

impl Kind {
    /// Where the objects of that kind are; `namespace` is that of the accounts.
    pub(super) fn path(self, namespace: &str) -> String {
        match self {
            Self::ServiceAccount => ServiceAccount::url_path(&(), Some(namespace)),
            Self::ClusterRole => ClusterRole::url_path(&(), None),
            Self::ClusterRoleBinding => ClusterRoleBinding::url_path(&(), None),
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::ClusterRole => "ClusterRole",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
        }
    }

    /// The object of that kind and `name`; `namespace` is that of the accounts.
    pub(super) fn manifest(self, owner: &Owner, name: &str, namespace: &str) -> Value {
        let metadata = json!({
            "name": name,
            "labels": owner.labels(),
            "annotations": {"bindings.kyma-project.io/binding": owner.binding.as_str()},
        });
        match self {
            Self::ServiceAccount => json!({
                "apiVersion": "v1", "kind": self.word(), "metadata": metadata,
                "automountServiceAccountToken": false,
            }),
            Self::ClusterRole => json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": self.word(), "metadata": metadata,
                "rules": rules(),
            }),
            Self::ClusterRoleBinding => json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": self.word(), "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            }),
        }
    }
}

/// All objects, as Kyma's own broker gives them. What is no object, such as `/metrics`, is not a binding's business.
pub(super) fn rules() -> Value {
    json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
}

/// What roles were made with before: one that has these rules was changed by nobody.
pub(super) fn earlier_rules() -> Value {
    json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ])
}
