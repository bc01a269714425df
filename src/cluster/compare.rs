//! Is what a managed cluster has what we asked it for? Pure.
//!
//! Between a request and what is stored there are mutating webhooks and admission policies, and somebody may have
//! changed since what was stored. A binding is ready only when its access is what was asked for: an account, its role,
//! and nobody beside.

use serde_json::{Map, Value};

use super::manifest::{earlier_rules, rules};

/// What is other than asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Another object altogether.
    #[error("it has another kind or name")]
    Identity,
    /// It would not be found again, or by others, too.
    #[error("it lacks labels of ours")]
    Marks,
    /// Of a role binding.
    #[error("it refers to another role")]
    Role,
    /// Of a role binding.
    #[error("its subjects are not the binding's ServiceAccount alone")]
    Subjects,
    /// Of a role.
    #[error("its rules are not those that every binding has")]
    Rules,
    /// Of an account.
    #[error("it would be mounted into pods (automountServiceAccountToken)")]
    Automount,
}

impl Difference {
    /// Whether that may be so of an object of ours that is there: the cluster's owner may have changed it, and a former
    /// version marked it with another id.
    pub(super) fn is_tolerated(self) -> bool {
        match self {
            Self::Rules | Self::Automount | Self::Marks => true,
            Self::Identity | Self::Role | Self::Subjects => false,
        }
    }
}

/// How `found` differs from what was asked for. Labels and other metadata that somebody has added are no difference.
pub(super) fn differences(asked: &Value, found: &Value) -> impl Iterator<Item = Difference> {
    let identity = asked["kind"] == found["kind"] && asked["metadata"]["name"] == found["metadata"]["name"];
    let mut labels = asked["metadata"]["labels"].as_object().into_iter().flatten();
    let marks = labels.all(|(key, value)| found["metadata"]["labels"][key] == *value);
    let same = |key: &str| plain(&asked[key]) == plain(&found[key]);
    [
        (identity, Difference::Identity),
        (marks, Difference::Marks),
        (same("roleRef"), Difference::Role),
        (same("subjects"), Difference::Subjects),
        (same("rules") && same("aggregationRule"), Difference::Rules),
        (same("automountServiceAccountToken"), Difference::Automount),
    ]
    .into_iter()
    .filter_map(|(holds, difference)| (!holds).then_some(difference))
}

/// Whether the cluster's owner has changed the rules of a role of ours. One that was made before the rules of today
/// has those of then.
pub(super) fn rules_were_changed(role: &Value) -> bool {
    let ours = [rules(), earlier_rules()].iter().any(|rules| plain(rules) == plain(&role["rules"]));
    !ours || !plain(&role["aggregationRule"]).is_null()
}

/// Without what is empty: an API server leaves it out or says it, as it likes.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) if !items.is_empty() => Value::Array(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), plain(value)));
            let fields: Map<_, _> = fields.filter(|(_, value)| !value.is_null()).collect();
            if fields.is_empty() { Value::Null } else { Value::Object(fields) }
        }
        Value::String(text) if text.is_empty() => Value::Null,
        Value::Array(_) => Value::Null,
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::BindingId;
    use crate::cluster::manifest::Kind;
    use crate::cluster::ownership::{ControlPlane, Owner};
    use serde_json::json;

    fn asked(kind: Kind) -> Value {
        let owner = Owner {
            binding: BindingId::parse("b").unwrap(),
            uid: "u".into(),
            control_plane: ControlPlane { id: "cp".into(), former: None, namespace: "kyma-bindings".into() },
        };
        kind.manifest(&owner, "kyma-binding-b", "kyma-system")
    }

    /// What a cluster makes of it where one field is changed by somebody.
    fn changed(kind: Kind, path: &str, value: Value) -> Option<Difference> {
        let mut found = asked(kind);
        found["metadata"]["uid"] = json!("x");
        match found.pointer_mut(path) {
            Some(field) => *field = value,
            None => found[path.trim_start_matches('/')] = value,
        }
        differences(&asked(kind), &found).next()
    }

    const KINDS: [Kind; 3] = [Kind::ServiceAccount, Kind::ClusterRole, Kind::ClusterRoleBinding];

    #[test]
    fn what_an_honest_cluster_adds_is_no_difference() {
        for kind in KINDS {
            let mut found = asked(kind);
            found["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            found["metadata"]["labels"]["team"] = json!("a");
            found["metadata"]["annotations"] = json!({"policy": "b"});
            assert_eq!(differences(&asked(kind), &found).next(), None, "{kind:?}");
        }
        let more = json!([{"name": "registry"}]);
        assert_eq!(changed(Kind::ServiceAccount, "/imagePullSecrets", more), None);
        let ours = json!([{"kind": "ServiceAccount", "name": "kyma-binding-b", "namespace": "kyma-system"}]);
        let mut said = ours.clone();
        said[0]["apiGroup"] = json!("");
        assert_eq!(changed(Kind::ClusterRoleBinding, "/subjects", said), None, "the group of accounts");
        assert_eq!(changed(Kind::ClusterRoleBinding, "/subjects", ours), None);
    }

    #[test]
    fn each_difference_has_its_name() {
        for kind in KINDS {
            assert_eq!(changed(kind, "/kind", json!("Pod")), Some(Difference::Identity));
            assert_eq!(changed(kind, "/metadata/name", json!("x")), Some(Difference::Identity));
            assert_eq!(changed(kind, "/metadata/labels", json!({})), Some(Difference::Marks));
        }
        let ours = json!({"kind": "ServiceAccount", "name": "kyma-binding-b", "namespace": "kyma-system"});
        let somebody = json!({"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"});
        let elsewhere =
            json!({"kind": "ServiceAccount", "name": "kyma-binding-b", "namespace": "kyma-sytem"});
        for subjects in
            [json!([]), json!(null), json!([somebody]), json!([ours, somebody]), json!([elsewhere])]
        {
            assert_eq!(changed(Kind::ClusterRoleBinding, "/subjects", subjects), Some(Difference::Subjects));
        }
        for (field, value) in [("name", "cluster-admin"), ("kind", "Role")] {
            let path = format!("/roleRef/{field}");
            assert_eq!(changed(Kind::ClusterRoleBinding, &path, json!(value)), Some(Difference::Role));
        }
        let narrow = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let named = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["x"]}]);
        for rules in [narrow, named, earlier_rules(), json!([])] {
            assert_eq!(changed(Kind::ClusterRole, "/rules", rules), Some(Difference::Rules));
        }
        let aggregated = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        assert_eq!(changed(Kind::ClusterRole, "/aggregationRule", aggregated), Some(Difference::Rules));
        for mount in [json!(true), json!(null)] {
            let field = "/automountServiceAccountToken";
            assert_eq!(changed(Kind::ServiceAccount, field, mount), Some(Difference::Automount));
        }
    }

    #[test]
    fn what_is_tolerated_of_an_object_that_is_there_hides_nothing_else() {
        let mut found = asked(Kind::ClusterRoleBinding);
        found["metadata"]["labels"] = json!({});
        let tolerated = |found: &Value| {
            differences(&asked(Kind::ClusterRoleBinding), found).all(Difference::is_tolerated)
        };
        assert!(tolerated(&found));
        found["subjects"][0]["name"] = json!("somebody");
        assert!(!tolerated(&found));
    }

    #[test]
    fn the_rules_of_an_earlier_version_were_changed_by_nobody() {
        for rules in [rules(), earlier_rules()] {
            assert!(!rules_were_changed(&json!({"rules": rules, "aggregationRule": null})));
            // It selects every role.
            let aggregated = json!({"clusterRoleSelectors": [{}]});
            assert!(rules_were_changed(&json!({"rules": rules, "aggregationRule": aggregated})));
        }
        for other in
            [json!(null), json!([]), json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}])]
        {
            assert!(rules_were_changed(&json!({"rules": other})));
        }
    }
}
