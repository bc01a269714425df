//! What the kubeconfig Secrets and Runtimes of one instance add up to. Pure.

/// What we know of a labelled kubeconfig Secret: metadata only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFacts {
    /// Name of the Secret.
    pub name: String,
    /// Changes with every rotation of the kubeconfig.
    pub resource_version: String,
    /// Label `runtime-id`, else what follows `kubeconfig-` in the name, else the name.
    pub runtime_id: String,
    /// Label `broker-plan-name`.
    pub plan: Option<String>,
    /// Name for use in kubeconfigs: annotation, else shoot name.
    pub cluster_name: Option<String>,
    /// Annotated as suspended.
    pub suspended: bool,
}

/// What we know of a `Runtime`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own that a Runtime states")]
pub struct RuntimeFacts {
    /// Name of the Runtime, which is the runtime id.
    pub name: String,
    /// Label `broker-plan-name`.
    pub plan: Option<String>,
    /// Name for use in kubeconfigs: annotation, else shoot name.
    pub cluster_name: Option<String>,
    /// Annotated as suspended.
    pub suspended: bool,
    /// Being deleted, or its state says Terminating.
    pub terminating: bool,
    /// Its state says Failed.
    pub failed: bool,
    /// `status.provisioningCompleted`: it was ready once; what its state says later is an update.
    pub provisioned: bool,
}

/// Where the kubeconfig of a managed cluster is, and which edition of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KubeconfigRef {
    /// Name of the Secret in the instances' namespace.
    pub secret: String,
    /// Edition: a changed Secret means a new client.
    pub resource_version: String,
}

/// The managed cluster of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which cluster: the same instance comes back from suspension with another one.
    pub runtime_id: String,
    /// Plan of the instance, where it has a label.
    pub plan: Option<String>,
    /// Name for use in kubeconfigs.
    pub cluster_name: String,
    /// `None` while the Secret is missing: unreachable for now, never unknown.
    pub kubeconfig: Option<KubeconfigRef>,
}

/// In what state an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing describes such an instance.
    Unknown,
    /// Its cluster is being provisioned.
    InProgress,
    /// Provisioning failed.
    Failed,
    /// Bindings can be made.
    Ready(Target),
    /// Out of service because somebody said so; its cluster is there, even while the kubeconfig is not.
    Suspended(Target),
    /// Its Runtime is being deleted, and the cluster with it; revoking works only while the kubeconfig is still there.
    Deleting(Target),
    /// Two objects claim the instance; both named, in order.
    Ambiguous(String, String),
}

impl State {
    /// The cluster that can be reached, if there is one: of an instance in service, or of one out
    /// of service whose kubeconfig is still there.
    #[must_use]
    pub fn reachable(&self) -> Option<(&Target, &KubeconfigRef)> {
        let target = self.target()?;
        Some((target, target.kubeconfig.as_ref()?))
    }

    /// The cluster, if the instance has one, whether it can be reached or not.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Ready(target) | Self::Suspended(target) | Self::Deleting(target) => Some(target),
            Self::Unknown | Self::InProgress | Self::Failed | Self::Ambiguous(..) => None,
        }
    }
}

/// Adds up what describes `instance`. `runtimes_used` says whether this control plane has the
/// Runtime CRD; without it the Secrets alone are the instances.
#[must_use]
pub fn derive(
    instance: &str,
    secrets: &[&SecretFacts],
    runtimes: &[&RuntimeFacts],
    runtimes_used: bool,
) -> State {
    if !runtimes_used {
        return match secrets {
            [] => State::Unknown,
            [secret] if secret.suspended => State::Suspended(target(instance, None, Some(secret))),
            [secret] => State::Ready(target(instance, None, Some(secret))),
            more => ambiguous("Secret", more.iter().map(|s| s.name.as_str())),
        };
    }
    // For up to an hour after suspension the old Runtime stays, terminating, beside its successor.
    let live: Vec<_> = runtimes.iter().filter(|r| !r.terminating).collect();
    let runtime = match (live.as_slice(), runtimes) {
        ([], []) => {
            // The Secret may be seen a moment before its Runtime; nothing is concluded from it.
            return if secrets.is_empty() { State::Unknown } else { State::InProgress };
        }
        // Suspended twice within the hour: the one that can still be reached.
        ([], _) => {
            let reachable = |r: &RuntimeFacts| secrets.iter().any(|s| s.runtime_id == r.name);
            match runtimes.iter().max_by_key(|r| (reachable(r), &r.name)) {
                Some(old) => *old,
                None => return State::Unknown,
            }
        }
        ([only], _) => *only,
        (more, _) => return ambiguous("Runtime", more.iter().map(|r| r.name.as_str())),
    };
    let of_others =
        |s: &&&SecretFacts| runtimes.iter().all(|r| r.name != s.runtime_id || r.name == runtime.name);
    let candidates: Vec<_> = secrets.iter().filter(of_others).collect();
    if candidates.len() > 1 {
        return ambiguous("Secret", candidates.iter().map(|s| s.name.as_str()));
    }
    let secret = candidates.first().map(|s| **s).filter(|s| s.runtime_id == runtime.name);
    let target = target(instance, Some(runtime), secret);
    if runtime.terminating {
        State::Deleting(target)
    } else if runtime.suspended || secret.is_some_and(|s| s.suspended) {
        State::Suspended(target)
    } else if runtime.provisioned {
        State::Ready(target)
    } else if runtime.failed {
        State::Failed
    } else {
        State::InProgress
    }
}

fn target(instance: &str, runtime: Option<&RuntimeFacts>, secret: Option<&SecretFacts>) -> Target {
    let of_runtime = |field: fn(&RuntimeFacts) -> &Option<String>| runtime.and_then(|r| field(r).clone());
    let of_secret = |field: fn(&SecretFacts) -> &Option<String>| secret.and_then(|s| field(s).clone());
    Target {
        runtime_id: runtime
            .map(|r| r.name.clone())
            .or_else(|| secret.map(|s| s.runtime_id.clone()))
            .unwrap_or_default(),
        plan: of_runtime(|r| &r.plan).or_else(|| of_secret(|s| &s.plan)),
        cluster_name: of_runtime(|r| &r.cluster_name)
            .or_else(|| of_secret(|s| &s.cluster_name))
            .unwrap_or_else(|| instance.to_owned()),
        kubeconfig: secret
            .map(|s| KubeconfigRef { secret: s.name.clone(), resource_version: s.resource_version.clone() }),
    }
}

fn ambiguous<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> State {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let full = |i: usize| format!("{kind} {}", names.get(i).copied().unwrap_or_default());
    State::Ambiguous(full(0), full(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(runtime: &str) -> SecretFacts {
        SecretFacts {
            name: format!("kubeconfig-{runtime}"),
            resource_version: "7".into(),
            runtime_id: runtime.into(),
            plan: Some("aws".into()),
            cluster_name: None,
            suspended: false,
        }
    }

    fn runtime(name: &str) -> RuntimeFacts {
        RuntimeFacts {
            name: name.into(),
            plan: Some("aws".into()),
            cluster_name: Some("c-123".into()),
            suspended: false,
            terminating: false,
            failed: false,
            provisioned: true,
        }
    }

    fn with_runtimes(secrets: &[&SecretFacts], runtimes: &[&RuntimeFacts]) -> State {
        derive("i", secrets, runtimes, true)
    }

    #[test]
    fn without_runtimes_the_secrets_are_the_instances() {
        let one = secret("r");
        let State::Ready(target) = derive("i", &[&one], &[], false) else { panic!() };
        assert_eq!((target.runtime_id.as_str(), target.cluster_name.as_str()), ("r", "i"));
        assert_eq!(derive("i", &[], &[], false), State::Unknown);
        let suspended = SecretFacts { suspended: true, ..secret("r") };
        assert!(matches!(derive("i", &[&suspended], &[], false), State::Suspended(_)));
        assert_eq!(
            derive("i", &[&secret("b"), &secret("a")], &[], false),
            State::Ambiguous("Secret kubeconfig-a".into(), "Secret kubeconfig-b".into())
        );
    }

    #[test]
    fn a_runtime_decides_by_having_been_provisioned_once() {
        let updating = RuntimeFacts { failed: true, ..runtime("r") };
        assert!(matches!(with_runtimes(&[&secret("r")], &[&updating]), State::Ready(_)));
        let fresh = RuntimeFacts { provisioned: false, ..runtime("r") };
        assert_eq!(with_runtimes(&[], &[&fresh]), State::InProgress);
        let broken = RuntimeFacts { failed: true, ..fresh };
        assert_eq!(with_runtimes(&[], &[&broken]), State::Failed);
    }

    #[test]
    fn a_missing_secret_of_a_ready_runtime_is_unreachable_not_unknown() {
        let State::Ready(target) = with_runtimes(&[], &[&runtime("r")]) else { panic!() };
        assert_eq!(target.kubeconfig, None);
    }

    #[test]
    fn terminating_comes_before_failed() {
        let going = RuntimeFacts { terminating: true, failed: true, ..runtime("r") };
        let State::Deleting(target) = with_runtimes(&[&secret("r")], &[&going]) else { panic!() };
        assert!(target.kubeconfig.is_some());
    }

    #[test]
    fn a_suspension_is_no_deletion_and_a_deletion_is_more_than_a_suspension() {
        let suspended = RuntimeFacts { suspended: true, ..runtime("r") };
        let State::Suspended(target) = with_runtimes(&[], &[&suspended]) else { panic!() };
        assert_eq!(target.kubeconfig, None, "for a moment");
        let by_secret = SecretFacts { suspended: true, ..secret("r") };
        assert!(matches!(with_runtimes(&[&by_secret], &[&runtime("r")]), State::Suspended(_)));
        let going = RuntimeFacts { terminating: true, ..suspended };
        assert!(matches!(with_runtimes(&[], &[&going]), State::Deleting(_)));
        assert!(matches!(with_runtimes(&[&by_secret], &[&going]), State::Deleting(_)));
    }

    #[test]
    fn a_successor_stands_beside_its_terminating_predecessor() {
        let old = RuntimeFacts { terminating: true, ..runtime("old") };
        let State::Ready(target) = with_runtimes(&[&secret("old"), &secret("new")], &[&old, &runtime("new")])
        else {
            panic!()
        };
        assert_eq!(target.runtime_id, "new");
        assert_eq!(target.kubeconfig.map(|k| k.secret), Some("kubeconfig-new".into()));
    }

    #[test]
    fn of_two_terminating_the_reachable_one_counts() {
        let [old, older] = ["a", "b"].map(|name| RuntimeFacts { terminating: true, ..runtime(name) });
        for runtimes in [[&old, &older], [&older, &old]] {
            let State::Deleting(target) = with_runtimes(&[&secret("a")], &runtimes) else { panic!() };
            assert_eq!(target.runtime_id, "a");
        }
    }

    #[test]
    fn two_live_claims_are_ambiguous() {
        assert!(matches!(with_runtimes(&[], &[&runtime("a"), &runtime("b")]), State::Ambiguous(..)));
        let double = SecretFacts { name: "copy".into(), ..secret("r") };
        assert!(matches!(with_runtimes(&[&secret("r"), &double], &[&runtime("r")]), State::Ambiguous(..)));
    }

    #[test]
    fn a_secret_before_its_runtime_concludes_nothing() {
        assert_eq!(with_runtimes(&[&secret("r")], &[]), State::InProgress);
    }
}
