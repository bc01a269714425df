//! What the operator may do in the control plane: the one table that `check` asks about and the tests
//! grant. The README and the chart's Roles are held to it by tests.

use serde_json::{Value, json};

use crate::cli::Account;

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The namespace of the bindings.
    Bindings,
    /// The namespace of what describes the instances.
    Instances,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 2] = [Self::Bindings, Self::Instances];

    /// Its namespace, for an operator with these flags.
    #[must_use]
    pub fn namespace<'a>(self, bindings: &'a str, instances: &'a str) -> &'a str {
        match self {
            Self::Bindings => bindings,
            Self::Instances => instances,
        }
    }
}

/// What may be done with some resources of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub place: Place,
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resources, or `resource/subresource`.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const BINDINGS: &str = "bindings.kyma-project.io";
const API: &str = "rbac.authorization.k8s.io";

/// For the broker alone.
pub const BROKER: &[Rule] = &[
    rule(Place::Bindings, BINDINGS, &["kymabindings"], &["get", "list", "watch", "create", "delete"]),
    rule(Place::Bindings, "", &["secrets"], &["get"]),
];

/// For the controller, alone or together with the broker.
pub const CONTROLLER: &[Rule] = &[
    rule(
        Place::Bindings,
        BINDINGS,
        &["kymabindings", "kymabindings/status"],
        &["get", "list", "watch", "create", "update", "patch", "delete"],
    ),
    rule(Place::Bindings, "", &["secrets"], &["get", "list", "watch", "create", "delete"]),
    rule(Place::Bindings, "coordination.k8s.io", &["leases"], &["get", "create", "update"]),
    rule(Place::Bindings, "events.k8s.io", &["events"], &["create", "patch"]),
    // In a Role, that is the namespace of the Role alone.
    rule(Place::Bindings, "", &["namespaces"], &["get"]),
    rule(Place::Instances, "", &["secrets"], &["get", "list", "watch"]),
    rule(Place::Instances, "infrastructuremanager.kyma-project.io", &["runtimes"], &["get", "list", "watch"]),
];

const fn rule(
    place: Place,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { place, group, resources, verbs }
}

/// One verb on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Right {
    /// Where.
    pub place: Place,
    /// API group.
    pub group: &'static str,
    /// Resource, or `resource/subresource`.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
}

/// The rights that rules give, one by one.
#[must_use]
pub fn rights(rules: &[Rule]) -> Vec<Right> {
    let mut rights = Vec::new();
    for Rule { place, group, resources, verbs } in rules.iter().copied() {
        for resource in resources {
            rights.extend(verbs.iter().map(|verb| Right { place, group, resource, verb }));
        }
    }
    rights
}

/// Roles of that name for these rules, one for each namespace, for an operator with these flags: the bindings' namespace and
/// the instances'. With an account, what binds it to them, too.
#[must_use]
pub fn objects(
    rules: &[Rule],
    name: &str,
    (bindings, instances): (&str, &str),
    account: Option<&Account>,
) -> Vec<Value> {
    // Two places may be one namespace, which has one object of a name.
    let mut namespaces: Vec<(&str, Vec<&Rule>)> = Vec::new();
    for rule in rules {
        let namespace = rule.place.namespace(bindings, instances);
        match namespaces.iter_mut().find(|(known, _)| *known == namespace) {
            Some((_, rules)) => rules.push(rule),
            None => namespaces.push((namespace, vec![rule])),
        }
    }
    let mut objects = Vec::new();
    for (namespace, rules) in namespaces {
        let metadata = json!({"name": name, "namespace": namespace});
        let rules: Vec<_> = rules.into_iter().map(policy_rule).collect();
        let api_version = format!("{API}/v1");
        objects
            .push(json!({"apiVersion": api_version, "kind": "Role", "metadata": metadata, "rules": rules}));
        objects.extend(account.map(|account| {
            json!({
                "apiVersion": api_version, "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": API, "kind": "Role", "name": name},
                "subjects": [
                    {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace},
                ],
            })
        }));
    }
    objects
}

fn policy_rule(rule: &Rule) -> Value {
    let Rule { group, resources, verbs, .. } = rule;
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// Why the objects can't be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the Roles as YAML")]
pub struct RenderError(#[from] serde_saphyr::ser::Error);

/// Objects as one YAML stream.
///
/// # Errors
/// When one can't be serialized, which would be a defect.
pub fn render(objects: &[Value]) -> Result<String, RenderError> {
    let documents: Result<Vec<_>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The table as the README has it.
    fn table() -> String {
        let words = |words: &[&str]| words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
        let mut table =
            "| role | in the namespace | resources | verbs |\n| --- | --- | --- | --- |\n".to_owned();
        for (role, rules) in [("`broker`", BROKER), ("`controller`, `all`", CONTROLLER)] {
            for Rule { place, group, resources, verbs } in rules {
                let place = match place {
                    Place::Bindings => "`--namespace`",
                    Place::Instances => "`--instance-namespace`",
                };
                let group = if group.is_empty() { String::new() } else { format!(" of `{group}`") };
                let resources = words(resources);
                let verbs = words(verbs);
                writeln!(table, "| {role} | {place} | {resources}{group} | {verbs} |").unwrap();
            }
        }
        table
    }

    #[test]
    fn the_readme_names_these_rights_and_no_others() {
        let readme = include_str!("../../README.md");
        let after = readme.split_once("What the operator needs in the control plane:\n\n").unwrap().1;
        let committed: Vec<_> = after.lines().take_while(|line| line.starts_with('|')).collect();
        assert_eq!(committed, table().lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_printed_gives_each_namespace_its_rules_and_no_object_twice() {
        let account = Account { namespace: "own".into(), name: "operator".into() };
        for (instances, namespaces) in [("i", vec!["b", "i"]), ("b", vec!["b"])] {
            let objects = objects(CONTROLLER, "name", ("b", instances), Some(&account));
            let of = |kind: &str| {
                let of = objects.iter().filter(|object| object["kind"] == kind);
                of.map(|object| object["metadata"]["namespace"].as_str().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!((of("Role"), of("RoleBinding")), (namespaces.clone(), namespaces));
            let rules = objects.iter().filter_map(|object| object["rules"].as_array()).map(Vec::len);
            assert_eq!(rules.sum::<usize>(), CONTROLLER.len());
            let read: Vec<Value> = render(&objects)
                .unwrap()
                .split("---\n")
                .map(|document| serde_saphyr::from_str(document).unwrap())
                .collect();
            assert_eq!(read, objects);
        }
        assert_eq!(objects(BROKER, "name", ("b", "i"), None).len(), 1);
    }

    #[test]
    fn the_controller_may_all_that_the_broker_may() {
        let controller = rights(CONTROLLER);
        assert!(rights(BROKER).iter().all(|right| controller.contains(right)));
        assert_eq!(controller.len(), 31);
    }
}
