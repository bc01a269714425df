//! Conditions, their typed reasons, and the phase derived from them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Type of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Instance, plan and limit allow the binding.
    Accepted,
    /// The Secret holds a working kubeconfig.
    Ready,
    /// Failed for good. kstatus, so Flux and Helm's `--wait`, ends on it.
    Stalled,
}

impl Kind {
    /// The word in `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Ready => "Ready",
            Self::Stalled => "Stalled",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Reason of a condition, one word each, stable: programs branch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word in `reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The reason of that word, if it is one of ours.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $(stringify!($name) => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Not looked at yet, or being made.
    Pending,
    /// Instance, plan and limit allow the binding.
    Accepted,
    /// The Secret holds a working kubeconfig.
    Issued,
    /// Nothing describes such an instance.
    InstanceUnknown,
    /// What described the instance is gone since a moment ago, and may be about to come back.
    InstanceMissing,
    /// The instance is suspended or being deleted.
    InstanceSuspended,
    /// The instance's cluster is being provisioned.
    InstanceInProgress,
    /// Provisioning of the instance's cluster failed.
    InstanceFailed,
    /// Two kubeconfig Secrets, or two Runtimes, claim the instance.
    InstanceAmbiguous,
    /// The instance's kubeconfig has something that we do not accept.
    KubeconfigRefused,
    /// There is no kubeconfig: its Secret is missing, or has nothing in the key for it.
    KubeconfigMissing,
    /// The managed cluster's server has an address that is not connected to.
    AddressRefused,
    /// The instance's plan is not bindable.
    PlanNotBindable,
    /// The lifetime is outside of what this operator grants.
    ExpirationRefused,
    /// As many unexpired bindings of the instance were issued as it may have.
    LimitReached,
    /// All places of the instance are held, but not all by bindings that were issued: it has the first that is free.
    WaitingForPlace,
    /// An object of our name exists and isn't ours.
    ForeignObject,
    /// No connection to the managed cluster.
    ClusterUnreachable,
    /// The managed cluster did not answer in time.
    ClusterTimedOut,
    /// The managed cluster does not accept our credentials (401).
    ClusterUnauthorized,
    /// The managed cluster does not let us do what is needed (403).
    ClusterForbidden,
    /// The managed cluster asks us to slow down (429).
    ClusterRateLimited,
    /// The managed cluster's API server answers with a server error (5xx).
    ClusterUnavailable,
    /// The managed cluster answered with something that a Kubernetes API server would not.
    ClusterMisbehaves,
    /// The managed cluster made an object other than it was asked to.
    ObjectAltered,
    /// The namespace for the service accounts does not exist in the managed cluster.
    NamespaceMissing,
    /// The managed cluster issued a token that we do not hand on.
    TokenRefused,
    /// The instance now has another managed cluster than the one the binding was made on.
    ClusterReplaced,
    /// Somebody deleted the binding's ServiceAccount in the managed cluster, and every token with it, or a
    /// ClusterRole that had been changed.
    AccessLost,
    /// The binding's time is over.
    Expired,
}

/// The conditions in one word. Derived from them, never the other way round.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting or being made.
    Pending,
    /// The kubeconfig works.
    Ready,
    /// Refused for good.
    Rejected,
    /// Failed for good.
    Failed,
    /// Its time is over; being removed.
    Expired,
    /// Being removed.
    Terminating,
}

impl Phase {
    /// All phases, for gauges.
    pub const ALL: &'static [Self] =
        &[Self::Pending, Self::Ready, Self::Rejected, Self::Failed, Self::Expired, Self::Terminating];

    /// The word in `phase`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Ready => "Ready",
            Self::Rejected => "Rejected",
            Self::Failed => "Failed",
            Self::Expired => "Expired",
            Self::Terminating => "Terminating",
        }
    }
}

/// What one condition shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Say {
    /// Which condition.
    pub kind: Kind,
    /// `True` or `False`.
    pub status: bool,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// The conditions as they shall be: of those that stay the same, the transition time is kept.
#[must_use]
pub fn merge(old: &[Condition], say: &[Say], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    say.iter()
        .map(|say| {
            let status = if say.status { "True" } else { "False" };
            let before = old.iter().find(|c| c.type_ == say.kind.as_str() && c.status == status);
            Condition {
                type_: say.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: say.reason.as_str().to_owned(),
                message: say.message.clone(),
                observed_generation: generation,
                last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn ready(status: bool, reason: Reason) -> Say {
        Say { kind: Kind::Ready, status, reason, message: String::new() }
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let first = merge(&[], &[ready(false, Reason::ClusterTimedOut)], Some(1), at(10));
        let second = merge(&first, &[ready(false, Reason::ClusterUnreachable)], Some(1), at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].reason, "ClusterUnreachable");
        let third = merge(&second, &[ready(true, Reason::Issued)], Some(1), at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn what_is_no_longer_said_goes() {
        let stalled = Say { kind: Kind::Stalled, ..ready(true, Reason::LimitReached) };
        let before = merge(&[], &[stalled], Some(1), at(10));
        assert_eq!(merge(&before, &[ready(true, Reason::Issued)], Some(1), at(20)).len(), 1);
    }

    #[test]
    fn reasons_survive_the_way_through_the_status() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("SomethingElse"), None);
    }
}
