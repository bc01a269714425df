//! What to do with a binding. Pure: everything comes in as values, the time too.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::api::binding::{KymaBinding, MIN_EXPIRATION_SECONDS};
use crate::api::conditions::{Kind, Reason};
use crate::api::names::FINALIZER;
use crate::instances::state::{KubeconfigRef, State, Target};
use crate::instances::{ABSENCE, Absence};

/// How much longer than asked a binding may live, whatever its status says: clocks differ.
pub const GRACE: SignedDuration = SignedDuration::from_mins(1);

const ABSENT: &str = "instance does not exist";
const MISSING: &str =
    "the Secret or Runtime that described the instance is gone since a moment ago; it may come back";
const SUSPENDED: &str = "instance does not exist: it is suspended";
const DELETING: &str = "instance does not exist: it is being deleted";

/// Plans whose instances may have bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindablePlans {
    /// Every plan.
    All,
    /// These, by the name in the instance's `broker-plan-name` label, in lower case: Kyma's broker compares them so.
    Named(BTreeSet<String>),
}

/// All that a decision depends on.
pub struct Facts<'a> {
    /// The object as the watch has it.
    pub binding: &'a KymaBinding,
    /// In what state its instance is.
    pub instance: &'a State,
    /// When its Secret was created, if there is one.
    pub secret_created: Option<Timestamp>,
    /// Whether a sweep missed something of its access.
    pub doubted: bool,
    /// Whether something of it may exist outside the object.
    pub touched: bool,
    /// The runtime that its access was made on, as the controller wrote it down: what the status says can
    /// be forged.
    pub made_on: Option<&'a str>,
    /// Whether its cluster would not let it be removed.
    pub unrevoked: bool,
    /// Its instance's absence; means something only while nothing describes it.
    pub absence: Absence,
    /// Which plans are bindable.
    pub bindable: &'a BindablePlans,
    /// Shortest and longest lifetime, seconds.
    pub lifetimes: (i64, i64),
    /// The time.
    pub now: Timestamp,
}

/// Why the managed cluster is left as it is although something may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// A person said so by annotation.
    Forgotten,
    /// Nothing describes the instance any more.
    InstanceGone,
    /// Its kubeconfig is gone, and the Runtime is being deleted.
    ClusterGone,
    /// The instance has another cluster now.
    ClusterReplaced,
}

/// How to remove what a binding left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Nothing was made.
    Nothing,
    /// Revoke in the cluster that this kubeconfig leads to.
    Revoke(KubeconfigRef),
    /// The cluster can't be reached for the moment.
    Later(Reason),
    /// Nobody can or shall revoke.
    GiveUp(GiveUp),
}

/// The next step of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do until then, if ever.
    Rest(Option<Timestamp>),
    /// Put our finalizer on, before anything is made.
    AddFinalizer,
    /// Ask for the object's deletion; the removal follows from that.
    Delete(Reason),
    /// The object is being deleted: remove what it left, then let it go.
    Remove(Removal),
    /// Not now: say why, try again when the instance changes or time is up.
    Hold(Reason, String),
    /// Never: say why.
    Reject(Reason, String),
    /// Instance and plan allow it: take a seat and make it.
    Make(Target),
    /// It was made, but its access may not be as it was made: repair it or say what is lost.
    Repair(Target),
    /// It was made, but its Secret is gone: make another for the time that is left.
    Renew(Target),
    /// It was made: keep its status true.
    Keep,
}

/// Decides the next step.
#[must_use]
pub fn decide(facts: &Facts) -> Step {
    let Facts { binding, instance, now, .. } = *facts;
    if binding.is_deleting() {
        let ours = has_finalizer(binding);
        return if ours { Step::Remove(removal(facts)) } else { Step::Rest(None) };
    }
    let end = end(facts);
    if end.is_some_and(|end| end <= now) {
        return Step::Delete(Reason::Expired);
    }
    if binding.is(Kind::Stalled) {
        return Step::Rest(end);
    }
    if is_issued(binding) {
        return after_issue(facts);
    }
    let (shortest, longest) = facts.lifetimes;
    if !(shortest..=longest).contains(&binding.spec.expiration_seconds) {
        let message = format!("expirationSeconds must be between {shortest} and {longest} here");
        return Step::Reject(Reason::ExpirationRefused, message);
    }
    match instance {
        State::Unknown if facts.absence.vanished && !believed_absent(facts) => {
            hold(Reason::InstanceMissing, MISSING)
        }
        State::Unknown => hold(Reason::InstanceUnknown, ABSENT),
        State::Suspended(_) => hold(Reason::InstanceSuspended, SUSPENDED),
        State::Deleting(_) => hold(Reason::InstanceSuspended, DELETING),
        State::InProgress => hold(
            Reason::InstanceInProgress,
            "instance creation is in progress: bind again when it is complete",
        ),
        State::Failed => hold(
            Reason::InstanceFailed,
            "instance creation failed: a binding needs an instance that was provisioned",
        ),
        State::Ambiguous(first, second) => Step::Hold(
            Reason::InstanceAmbiguous,
            format!(
                "{first} and {second} both claim this instance: \
                 remove the label kyma-project.io/instance-id from the wrong one"
            ),
        ),
        State::Ready(target) if pinned(facts) && !same_runtime(facts, target) => {
            Step::Delete(Reason::ClusterReplaced)
        }
        State::Ready(target) => match refused_plan(facts.bindable, target) {
            Some(message) => Step::Reject(Reason::PlanNotBindable, message),
            None if !has_finalizer(binding) => Step::AddFinalizer,
            None => Step::Make(target.clone()),
        },
    }
}

/// The next step of a binding whose kubeconfig is in somebody's hands.
fn after_issue(facts: &Facts) -> Step {
    match facts.instance {
        State::Unknown if believed_absent(facts) => Step::Delete(Reason::InstanceUnknown),
        // Its kubeconfig works as before, so nothing is said of it until that is decided.
        State::Unknown => {
            let believed = facts.absence.since.checked_add(ABSENCE).ok();
            Step::Rest(believed.into_iter().chain(end(facts)).min())
        }
        State::Ready(target) | State::Suspended(target) | State::Deleting(target)
            if !same_runtime(facts, target) =>
        {
            Step::Delete(Reason::ClusterReplaced)
        }
        // A manifest that was replaced took it off: without it, nothing would be removed in the end.
        _ if !has_finalizer(facts.binding) => Step::AddFinalizer,
        State::Suspended(_) => hold(Reason::InstanceSuspended, SUSPENDED),
        State::Deleting(_) => hold(Reason::InstanceSuspended, DELETING),
        State::Ready(target) if facts.doubted => Step::Repair(target.clone()),
        State::Ready(target) if facts.secret_created.is_none() => Step::Renew(target.clone()),
        // What an instance goes through after it was ready doesn't take a kubeconfig away.
        State::Ready(_) | State::InProgress | State::Failed | State::Ambiguous(..) => Step::Keep,
    }
}

fn has_finalizer(binding: &KymaBinding) -> bool {
    binding.finalizers().iter().any(|f| f == FINALIZER)
}

/// Whether a kubeconfig was handed over to its Secret and the status says so.
#[must_use]
pub fn is_issued(binding: &KymaBinding) -> bool {
    let status = binding.status.as_ref();
    binding.expires_at().is_some() && status.is_some_and(|s| s.binding.is_some())
}

/// When the binding ends. The status may say earlier, but never later than what was asked for.
#[must_use]
pub fn end(facts: &Facts) -> Option<Timestamp> {
    let Facts { binding, secret_created, .. } = *facts;
    let asked = SignedDuration::from_secs(binding.spec.expiration_seconds);
    let created = binding.created_at()?;
    if !is_issued(binding) {
        return created.checked_add(asked).ok();
    }
    let of_secret = secret_created.and_then(|created| created.checked_add(asked + GRACE).ok());
    [of_secret, latest_end(binding), binding.expires_at()].into_iter().flatten().min()
}

/// When a binding is over, whatever anybody says: its first token is asked for within the object's
/// own time, and one that is made again ends with the first.
#[must_use]
pub fn latest_end(binding: &KymaBinding) -> Option<Timestamp> {
    let asked = SignedDuration::from_secs(binding.spec.expiration_seconds);
    binding.created_at()?.checked_add(asked + asked + GRACE).ok()
}

/// When the last token that may have been handed out has ended. One that was made again for a short rest lives the
/// shortest time that an API server grants, from about the creation of its Secret on.
#[must_use]
pub fn tokens_end(
    binding: &KymaBinding,
    recorded: Option<Timestamp>,
    secret_created: Option<Timestamp>,
) -> Timestamp {
    let issued = recorded.or_else(|| binding.expires_at());
    let shortest = SignedDuration::from_secs(MIN_EXPIRATION_SECONDS);
    let again = secret_created.and_then(|created| created.checked_add(shortest).ok());
    let known = issued.max(again).filter(|_| issued.is_some());
    known.or_else(|| latest_end(binding)).unwrap_or(Timestamp::MAX)
}

/// What a try depends on beside the time: when it changes, a failed try is worth another at once. So the end of a
/// binding waits for nothing that failed before, and only for its own failures.
#[must_use]
pub fn circumstances(step: &Step, binding: &KymaBinding, instance: &State) -> String {
    if let Step::Delete(why) = step {
        return format!("end/{}", why.as_str());
    }
    let instance = match instance {
        State::Ready(target) => format!("ready/{}", edition(target)),
        State::Suspended(target) => format!("suspended/{}", edition(target)),
        State::Deleting(target) => format!("deleting/{}", edition(target)),
        State::Unknown | State::InProgress | State::Failed | State::Ambiguous(..) => format!("{instance:?}"),
    };
    format!("{}/{}/{instance}", binding.is_deleting(), binding.is_forgotten())
}

/// Which cluster, and which kubeconfig of it.
fn edition(target: &Target) -> String {
    let edition = target.kubeconfig.as_ref().map_or("", |k| &k.resource_version);
    format!("{}/{edition}", target.runtime_id)
}

fn removal(facts: &Facts) -> Removal {
    let Facts { binding, instance, touched, .. } = *facts;
    if !touched {
        return Removal::Nothing;
    }
    // It is no shortcut: whoever may annotate would otherwise leave a token alive that could be ended.
    if binding.is_forgotten() && (facts.unrevoked || instance.reachable().is_none()) {
        return Removal::GiveUp(GiveUp::Forgotten);
    }
    match instance {
        State::Ready(target) | State::Suspended(target) | State::Deleting(target)
            if pinned(facts) && !same_runtime(facts, target) =>
        {
            Removal::GiveUp(GiveUp::ClusterReplaced)
        }
        State::Ready(Target { kubeconfig: Some(kubeconfig), .. })
        | State::Suspended(Target { kubeconfig: Some(kubeconfig), .. })
        | State::Deleting(Target { kubeconfig: Some(kubeconfig), .. }) => Removal::Revoke(kubeconfig.clone()),
        State::Unknown if !believed_absent(facts) => Removal::Later(Reason::InstanceMissing),
        State::Unknown => Removal::GiveUp(GiveUp::InstanceGone),
        State::Deleting(_) => Removal::GiveUp(GiveUp::ClusterGone),
        // Its cluster is there, and so are the tokens: whoever rotates a kubeconfig may be about to put it back.
        State::Ready(_) | State::Suspended(_) => Removal::Later(Reason::KubeconfigMissing),
        State::InProgress | State::Failed if pinned(facts) => Removal::Later(Reason::ClusterUnreachable),
        State::Ambiguous(..) => Removal::Later(Reason::InstanceAmbiguous),
        // Never provisioned and never pinned: there was no cluster to make anything in.
        State::InProgress | State::Failed => Removal::Nothing,
    }
}

/// An instance that has just vanished may be about to come back.
fn believed_absent(facts: &Facts) -> bool {
    facts.now.duration_since(facts.absence.since) >= ABSENCE
}

/// The runtime on which the binding is, or was, made.
fn runtime<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    facts.made_on.or_else(|| facts.binding.status.as_ref()?.runtime_id.as_deref())
}

fn pinned(facts: &Facts) -> bool {
    runtime(facts).is_some()
}

fn same_runtime(facts: &Facts, target: &Target) -> bool {
    runtime(facts) == Some(&target.runtime_id)
}

fn hold(reason: Reason, message: &str) -> Step {
    Step::Hold(reason, message.to_owned())
}

fn refused_plan(bindable: &BindablePlans, target: &Target) -> Option<String> {
    let BindablePlans::Named(plans) = bindable else { return None };
    let plan = target.plan.as_deref().unwrap_or_default();
    (!plans.contains(&plan.to_lowercase())).then(|| {
        let bindable: Vec<_> = plans.iter().map(String::as_str).collect();
        format!("binding is not supported for plan '{plan}'; bindable plans: {}", bindable.join(", "))
    })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
