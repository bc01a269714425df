//! The status that a binding shall have. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use kube::ResourceExt as _;

use super::decide::GiveUp;
use crate::api::binding::{KymaBinding, KymaBindingStatus, SecretReference};
use crate::api::conditions::{Kind, Phase, Reason, Say, merge};
use crate::api::names::BindingId;
use crate::controller::ledger::record::Record;

/// What became of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The Secret holds a working kubeconfig.
    Issued(Issue),
    /// What was issued is still good; how it was made, if that is written down.
    StillIssued(Option<Record>),
    /// Not now. What was accepted or issued before stays recorded.
    Held(Reason, String),
    /// Accepted, but not made yet; on which cluster, if it got so far.
    Failing(Reason, String, Option<Pin>),
    /// Refused for good.
    Rejected(Reason, String),
    /// Accepted, then failed for good.
    Failed(Reason, String),
    /// Being removed, which has not succeeded yet.
    Removing(Reason, String),
}

impl Outcome {
    /// The reason that its conditions give.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Issued(_) | Self::StillIssued(_) => Reason::Issued,
            Self::Held(reason, _)
            | Self::Failing(reason, _, _)
            | Self::Rejected(reason, _)
            | Self::Failed(reason, _)
            | Self::Removing(reason, _) => *reason,
        }
    }
}

/// What is recorded of a kubeconfig that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// When its token ends.
    pub expires_at: Timestamp,
    /// Where it was made.
    pub pin: Pin,
    /// The Secret that holds it.
    pub secret: String,
}

/// Which cluster a binding is made on: nothing of it is ever looked for in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The runtime.
    pub runtime_id: String,
    /// UID of its `kube-system`.
    pub cluster_id: String,
}

/// The status for an outcome, and whether it differs from what the object has: only then is it
/// written, so that a write never triggers itself.
#[must_use]
pub fn desired(binding: &KymaBinding, outcome: &Outcome, now: Timestamp) -> Option<KymaBindingStatus> {
    let before = binding.status.clone().unwrap_or_default();
    let generation = binding.metadata.generation;
    let mut status = before.clone();
    if let Outcome::Issued(issue) = outcome {
        status.expires_at = Some(Time(issue.expires_at));
        status.binding = Some(SecretReference { name: issue.secret.clone() });
    }
    if let Outcome::StillIssued(record) = outcome {
        set_right(binding, &mut status, record.as_ref());
    }
    if let Outcome::Issued(Issue { pin, .. }) | Outcome::Failing(_, _, Some(pin)) = outcome {
        status.runtime_id = Some(pin.runtime_id.clone());
        status.cluster_id = Some(pin.cluster_id.clone());
    }
    let say = say(outcome, &status, binding.is(Kind::Accepted));
    status.conditions = merge(&before.conditions, &say, generation, now);
    status.phase = Some(phase(outcome, &status, now));
    status.observed_generation = generation;
    (status != before).then_some(status)
}

/// A status is output: what somebody else wrote into it is taken back. An earlier end is believed, since it
/// gives nobody anything.
fn set_right(binding: &KymaBinding, status: &mut KymaBindingStatus, record: Option<&Record>) {
    if let Ok(id) = BindingId::parse(&binding.name_any()) {
        status.binding = Some(SecretReference { name: id.object_name() });
    }
    if let Some(record) = record {
        let end = status.expires_at.as_ref().map_or(record.expires_at, |t| t.0.min(record.expires_at));
        status.expires_at = Some(Time(end));
        status.runtime_id = Some(record.runtime_id.clone());
        status.cluster_id = Some(record.cluster_id.clone());
    }
}

/// Why what was made for a binding is not removed yet, where its cluster is not even asked.
#[must_use]
pub fn not_removed(why: Reason) -> &'static str {
    match why {
        Reason::InstanceMissing => {
            "the Secret or Runtime that described the instance is gone since a moment ago; what was made in its managed \
             cluster is not removed yet"
        }
        Reason::KubeconfigMissing => {
            "the instance's Runtime has no Secret with a kubeconfig; what was made in its managed cluster is not removed \
             until it has"
        }
        _ => "the managed cluster can't be reached for the moment, so what was made in it is not removed yet",
    }
}

/// What people are told of a binding that was given up; its tokens end by themselves then.
#[must_use]
pub fn given_up(why: GiveUp, ends: Timestamp) -> String {
    let why = match why {
        GiveUp::Forgotten => "the managed cluster was left as it is, as the forget annotation says",
        GiveUp::InstanceGone => {
            "no Secret and no Runtime describe the instance any more, so nobody can revoke in its managed cluster"
        }
        GiveUp::ClusterGone => {
            "the instance's Runtime is being deleted and its kubeconfig is gone, so nobody can revoke in its managed cluster"
        }
        GiveUp::ClusterReplaced => {
            return "the instance has another managed cluster now: the one of this binding is gone"
                .to_owned();
        }
    };
    // Whole seconds: so does the kubeconfig say it.
    let ends = Timestamp::from_second(ends.as_second()).unwrap_or(ends);
    format!(
        "{why}; tokens of this binding may be alive until {ends}, or until its cluster can be reached again"
    )
}

fn say(outcome: &Outcome, status: &KymaBindingStatus, was_accepted: bool) -> Vec<Say> {
    let says = |kind, status, reason: &Reason, message: &str| Say {
        kind,
        status,
        reason: *reason,
        message: message.to_owned(),
    };
    let accepted =
        says(Kind::Accepted, true, &Reason::Accepted, "instance, plan and limit allow this binding");
    match outcome {
        Outcome::Issued(_) | Outcome::StillIssued(_) => {
            let message = format!(
                "Secret {} holds a kubeconfig that works until {}",
                status.binding.as_ref().map_or("", |b| &b.name),
                status.expires_at.as_ref().map(|t| t.0.to_string()).unwrap_or_default(),
            );
            vec![accepted, says(Kind::Ready, true, &Reason::Issued, &message)]
        }
        Outcome::Held(reason, message) | Outcome::Removing(reason, message) if was_accepted => {
            vec![accepted, says(Kind::Ready, false, reason, message)]
        }
        Outcome::Held(reason, message) | Outcome::Removing(reason, message) => {
            vec![says(Kind::Accepted, false, reason, message), says(Kind::Ready, false, reason, message)]
        }
        Outcome::Failing(reason, message, _) => vec![accepted, says(Kind::Ready, false, reason, message)],
        Outcome::Rejected(reason, message) => vec![
            says(Kind::Accepted, false, reason, message),
            says(Kind::Ready, false, reason, message),
            says(Kind::Stalled, true, reason, message),
        ],
        Outcome::Failed(reason, message) => vec![
            accepted,
            says(Kind::Ready, false, reason, message),
            says(Kind::Stalled, true, reason, message),
        ],
    }
}

fn phase(outcome: &Outcome, status: &KymaBindingStatus, now: Timestamp) -> Phase {
    match outcome {
        Outcome::Issued(_) | Outcome::StillIssued(_) => Phase::Ready,
        Outcome::Held(..) | Outcome::Failing(..) => Phase::Pending,
        Outcome::Rejected(..) => Phase::Rejected,
        Outcome::Failed(..) => Phase::Failed,
        Outcome::Removing(..) if status.expires_at.as_ref().is_some_and(|t| t.0 <= now) => Phase::Expired,
        Outcome::Removing(..) => Phase::Terminating,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Uids;
    use serde_json::json;

    fn binding(status: Option<KymaBindingStatus>) -> KymaBinding {
        let mut binding: KymaBinding = serde_json::from_value(json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {"name": "b", "generation": 1}, "spec": {"instanceId": "i"},
        }))
        .unwrap();
        binding.status = status;
        binding
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn issued() -> Outcome {
        Outcome::Issued(Issue {
            expires_at: at(600),
            pin: Pin { runtime_id: "r".into(), cluster_id: "c".into() },
            secret: "kyma-binding-b".into(),
        })
    }

    fn word(status: &KymaBindingStatus, kind: Kind) -> Option<(&str, &str)> {
        let condition = status.conditions.iter().find(|c| c.type_ == kind.as_str())?;
        Some((&condition.status, &condition.reason))
    }

    #[test]
    fn the_same_outcome_is_not_written_twice() {
        let first = desired(&binding(None), &issued(), at(1)).unwrap();
        assert_eq!(word(&first, Kind::Ready), Some(("True", "Issued")));
        assert_eq!(first.conditions[1].observed_generation, Some(1));
        assert_eq!(desired(&binding(Some(first)), &Outcome::StillIssued(None), at(2)), None);
    }

    #[test]
    fn what_others_wrote_is_taken_back_but_an_earlier_end() {
        let record = Record {
            runtime_id: "r".into(),
            cluster_id: "c".into(),
            expires_at: at(600),
            uids: Uids::default(),
        };
        let first = desired(&binding(None), &issued(), at(1)).unwrap();
        for (said, expected) in [(4_000_000_000, 600), (500, 500)] {
            let mut forged = first.clone();
            forged.expires_at = Some(Time(at(said)));
            forged.binding = Some(SecretReference { name: "another".into() });
            (forged.runtime_id, forged.cluster_id) = (Some("other".into()), None);
            let outcome = Outcome::StillIssued(Some(record.clone()));
            let right = desired(&binding(Some(forged)), &outcome, at(2)).unwrap();
            assert_eq!(right.expires_at.as_ref().unwrap().0, at(expected));
            assert_eq!((&right.binding, &right.cluster_id), (&first.binding, &first.cluster_id));
            assert_eq!(right.runtime_id, first.runtime_id);
        }
    }

    #[test]
    fn every_terminal_outcome_is_stalled_and_no_other_is() {
        let why = || (Reason::LimitReached, "m".to_owned());
        let of = |outcome| desired(&binding(None), &outcome, at(1)).unwrap();
        for (outcome, phase) in [
            (Outcome::Rejected(why().0, why().1), Phase::Rejected),
            (Outcome::Failed(why().0, why().1), Phase::Failed),
        ] {
            let status = of(outcome);
            assert_eq!(word(&status, Kind::Stalled), Some(("True", "LimitReached")));
            assert_eq!(status.phase, Some(phase));
        }
        for outcome in [issued(), Outcome::Held(why().0, why().1), Outcome::Failing(why().0, why().1, None)] {
            assert_eq!(word(&of(outcome), Kind::Stalled), None);
        }
    }

    #[test]
    fn a_suspension_keeps_what_was_issued_and_its_end_brings_it_back() {
        let ready = desired(&binding(None), &issued(), at(1)).unwrap();
        let held = Outcome::Held(Reason::InstanceSuspended, "m".into());
        let held = desired(&binding(Some(ready.clone())), &held, at(2)).unwrap();
        assert_eq!(word(&held, Kind::Ready), Some(("False", "InstanceSuspended")));
        assert_eq!(word(&held, Kind::Accepted), Some(("True", "Accepted")));
        assert_eq!(held.binding, ready.binding);
        let back = desired(&binding(Some(held)), &Outcome::StillIssued(None), at(3)).unwrap();
        assert_eq!(word(&back, Kind::Ready), Some(("True", "Issued")));
    }

    #[test]
    fn a_failing_binding_is_pinned_and_a_removal_accepts_nothing() {
        let pin = Pin { runtime_id: "r".into(), cluster_id: "c".into() };
        let failing = Outcome::Failing(Reason::ClusterTimedOut, "m".into(), Some(pin));
        let failing = desired(&binding(None), &failing, at(1)).unwrap();
        assert_eq!(failing.cluster_id.as_deref(), Some("c"));
        let removing = Outcome::Removing(Reason::ClusterTimedOut, "m".into());
        let rejected = Outcome::Rejected(Reason::LimitReached, "m".into());
        let rejected = desired(&binding(None), &rejected, at(1)).unwrap();
        let removing = desired(&binding(Some(rejected)), &removing, at(2)).unwrap();
        assert_eq!(word(&removing, Kind::Accepted), Some(("False", "ClusterTimedOut")));
    }

    #[test]
    fn a_removal_that_fails_says_whether_time_was_up() {
        let ready = desired(&binding(None), &issued(), at(1)).unwrap();
        let mut deleted = binding(Some(ready));
        deleted.metadata.deletion_timestamp = Some(Time(at(2)));
        let why = Outcome::Removing(Reason::ClusterTimedOut, "m".into());
        assert_eq!(desired(&deleted, &why, at(2)).unwrap().phase, Some(Phase::Terminating));
        assert_eq!(desired(&deleted, &why, at(600)).unwrap().phase, Some(Phase::Expired));
    }

    #[test]
    fn whoever_is_told_that_nobody_revokes_is_told_until_when_that_matters() {
        let all = [GiveUp::Forgotten, GiveUp::InstanceGone, GiveUp::ClusterGone, GiveUp::ClusterReplaced];
        let notes = all.map(|why| given_up(why, at(1_800_000_000)));
        for note in &notes[..3] {
            assert!(note.contains("alive until 2027-01-15T08:00:00Z"), "{note}");
        }
        assert!(notes[1].contains("no Secret and no Runtime describe the instance"));
        assert!(notes[3].contains("is gone"), "and the tokens with it");
    }
}
