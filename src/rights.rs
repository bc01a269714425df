//! What the operator may do in the control plane: the one table that `check` asks about and the tests
//! grant. The README and the chart's Roles are held to it by tests.

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
        let readme = include_str!("../README.md");
        let after = readme.split_once("What the operator needs in the control plane:\n\n").unwrap().1;
        let committed: Vec<_> = after.lines().take_while(|line| line.starts_with('|')).collect();
        assert_eq!(committed, table().lines().collect::<Vec<_>>());
    }

    #[test]
    fn the_controller_may_all_that_the_broker_may() {
        let controller = rights(CONTROLLER);
        assert!(rights(BROKER).iter().all(|right| controller.contains(right)));
        assert_eq!(controller.len(), 31);
    }
}
