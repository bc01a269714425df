//! Which faults there are, where they strike, and how they are drawn. Pure.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// How long something that is frozen, stopped or cut off stays so, at most.
const LONGEST: Duration = Duration::from_secs(4);
/// One in so many faults is followed by the next at once, before anything has recovered from it.
const HURRIED: u32 = 3;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL, and another process in its place.
    OperatorKilled,
    /// SIGSTOP for a while.
    OperatorFrozen,
    /// SIGTERM, and another process in its place.
    OperatorReplaced,
    /// One process has no way to the control plane for a while.
    OperatorCutOff,
    /// All connections to the control plane are reset, watches among them.
    WatchesCut,
    /// All that goes to the control plane or comes from it is late.
    ControlPlaneSlow,
    /// New requests to the control plane are answered with 429.
    ControlPlaneOverloaded,
    /// The operator's roles in the control plane are deleted and made again.
    RightsTaken,
    /// The control plane's etcd forgets its history, and connections are reset.
    EtcdCompacted,
    /// The control plane's etcd is killed and started again.
    EtcdRestarted,
    /// The control plane's API server is killed and started again.
    ApiServerRestarted,
    /// The same behind cut connections, with a compaction: watches come back to an expired version.
    WatchesExpired,
    /// All connections to a managed cluster are reset.
    ClusterCut,
    /// A managed cluster resets every connection for a while.
    ClusterRefuses,
    /// A managed cluster takes connections and says nothing for a while.
    ClusterSilent,
    /// All that goes to a managed cluster or comes from it is late.
    ClusterSlow,
    /// A managed cluster's API server stands still for a while.
    ClusterFrozen,
    /// A managed cluster's API server is killed and started again.
    ClusterRestarted,
    /// A managed cluster's kubeconfig is emptied and filled again, as in a forced renewal.
    KubeconfigEmptied,
    /// A managed cluster's kubeconfig gets another client certificate.
    KubeconfigRotated,
    /// A managed cluster's kubeconfig has a token for a while that is refused.
    KubeconfigWrong,
    /// A binding's Secret is deleted.
    SecretDeleted,
    /// A binding's `ClusterRole` is deleted.
    RoleDeleted,
    /// A binding's `ClusterRoleBinding` is deleted.
    RoleBindingDeleted,
    /// Somebody else is let in by a binding's `ClusterRoleBinding`.
    SubjectAdded,
    /// A binding's `ServiceAccount` is deleted.
    AccountDeleted,
    /// A binding is deleted past the finalizer.
    FinalizerStripped,
    /// A binding's time is over before anybody thought so.
    ExpiredEarly,
    /// A client hangs up while its bind is under way.
    ClientHungUp,
}

/// Where faults come from one after the other; those of different lanes overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The operator's processes.
    Operators,
    /// The control plane.
    ControlPlane,
    /// One managed cluster.
    Cluster(usize),
    /// Objects of bindings.
    Objects,
    /// Clients of the broker.
    Clients,
}

/// All lanes.
pub const LANES: [Lane; 6] =
    [Lane::Operators, Lane::ControlPlane, Lane::Cluster(0), Lane::Cluster(1), Lane::Objects, Lane::Clients];

use Fault::{
    AccountDeleted, ApiServerRestarted, ClientHungUp, ClusterCut, ClusterFrozen, ClusterRefuses,
    ClusterRestarted, ClusterSilent, ClusterSlow, ControlPlaneOverloaded, ControlPlaneSlow, EtcdCompacted,
    EtcdRestarted, ExpiredEarly, FinalizerStripped, KubeconfigEmptied, KubeconfigRotated, KubeconfigWrong,
    OperatorCutOff, OperatorFrozen, OperatorKilled, OperatorReplaced, RightsTaken, RoleBindingDeleted,
    RoleDeleted, SecretDeleted, SubjectAdded, WatchesCut, WatchesExpired,
};

impl Lane {
    /// What it draws from, with weights. A gentle storm has nothing that costs a leader its lease, so
    /// that processes live through it.
    #[must_use]
    pub fn faults(self, gentle: bool) -> &'static [(Fault, u32)] {
        match self {
            Self::Operators if gentle => &[],
            Self::Operators => {
                &[(OperatorKilled, 4), (OperatorFrozen, 2), (OperatorReplaced, 2), (OperatorCutOff, 2)]
            }
            Self::ControlPlane if gentle => &[(WatchesCut, 3), (ControlPlaneSlow, 1), (EtcdCompacted, 2)],
            Self::ControlPlane => &[
                (WatchesCut, 5),
                (ControlPlaneSlow, 3),
                (ControlPlaneOverloaded, 3),
                (RightsTaken, 3),
                (EtcdCompacted, 3),
                (EtcdRestarted, 2),
                (ApiServerRestarted, 1),
                (WatchesExpired, 1),
            ],
            Self::Cluster(_) => &[
                (ClusterCut, 5),
                (ClusterRefuses, 3),
                (ClusterSilent, 3),
                (ClusterSlow, 3),
                (ClusterFrozen, 2),
                (ClusterRestarted, 1),
                (KubeconfigEmptied, 3),
                (KubeconfigRotated, 3),
                (KubeconfigWrong, 3),
            ],
            Self::Objects => &[
                (SecretDeleted, 3),
                (RoleDeleted, 1),
                (RoleBindingDeleted, 1),
                (SubjectAdded, 1),
                (AccountDeleted, 1),
                (FinalizerStripped, 2),
                (ExpiredEarly, 2),
            ],
            Self::Clients => &[(ClientHungUp, 1)],
        }
    }

    /// Whether it has a probe in the managed cluster of that number: an instance of its own.
    #[must_use]
    pub fn probes(self, cluster: usize) -> bool {
        match self {
            Self::Operators | Self::ControlPlane => cluster == 0,
            Self::Cluster(number) => cluster == number,
            Self::Objects => false,
            Self::Clients => true,
        }
    }

    /// Its name in names of bindings.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Cluster(number) => format!("cluster-{number}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// A fault with all that is drawn for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// What is done.
    pub fault: Fault,
    /// How long it lasts, where it does.
    pub length: Duration,
    /// Which of several it strikes.
    pub which: usize,
    /// Whether the next one follows at once.
    pub hurried: bool,
}

impl Drawn {
    /// The next of a lane, if it has any: the same seed gives the same faults in the same order.
    pub fn next(random: &mut StdRng, lane: Lane, gentle: bool) -> Option<Self> {
        let faults = lane.faults(gentle);
        let all: u32 = faults.iter().map(|(_, weight)| weight).sum();
        if all == 0 {
            return None;
        }
        let mut dice = random.random_range(0..all);
        let (fault, _) = faults.iter().find(|(_, weight)| match dice.checked_sub(*weight) {
            Some(rest) => {
                dice = rest;
                false
            }
            None => true,
        })?;
        Some(Self {
            fault: *fault,
            length: random.random_range(Duration::ZERO..LONGEST),
            which: random.random_range(0..usize::from(u8::MAX)),
            hurried: random.random_range(0..HURRIED) == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_seed_replays() {
        for lane in LANES {
            let draw = |seed| {
                let mut random = StdRng::seed_from_u64(seed);
                (0..50).map(|_| Drawn::next(&mut random, lane, false)).collect::<Vec<_>>()
            };
            assert_eq!(draw(7), draw(7));
            assert_ne!(draw(7), draw(8));
        }
        assert_eq!(Drawn::next(&mut StdRng::seed_from_u64(7), Lane::Operators, true), None);
    }

    #[test]
    fn each_fault_of_a_lane_is_drawn() {
        for lane in LANES {
            let mut random = StdRng::seed_from_u64(1);
            let drawn: Vec<_> = (0..1_000).filter_map(|_| Drawn::next(&mut random, lane, false)).collect();
            for (fault, _) in lane.faults(false) {
                assert!(drawn.iter().any(|d| d.fault == *fault), "{fault:?}");
            }
        }
    }
}
