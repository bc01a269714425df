//! What people are told by Events: each word, with its type. The README lists the same.

use kube::runtime::events::EventType;

use super::permanent::{ABANDONED, Permanent};
use crate::api::conditions::Reason;

/// What an Event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A kubeconfig was issued.
    Bound,
    /// A binding was refused, or has failed, for good.
    Permanent(Permanent),
    /// The managed cluster keeps a binding from being made or mended.
    ClusterFails(ClusterReason),
    /// Something is left in the managed cluster, for now.
    CleanupFailed,
    /// Something is left in the managed cluster, for good.
    Abandoned,
    /// Somebody had removed or changed something; it is as it was again.
    Repaired,
    /// What a binding that is gone had left was removed.
    Swept,
}

/// A condition's reason that is about a managed cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterReason(Reason);

const CLUSTER: [Reason; 13] = [
    Reason::ClusterUnreachable,
    Reason::ClusterTimedOut,
    Reason::ClusterUnauthorized,
    Reason::ClusterForbidden,
    Reason::ClusterRateLimited,
    Reason::ClusterUnavailable,
    Reason::ClusterMisbehaves,
    Reason::ObjectAltered,
    Reason::NamespaceMissing,
    Reason::KubeconfigMissing,
    Reason::KubeconfigRefused,
    Reason::AddressRefused,
    Reason::TokenRefused,
];

/// The words of all reasons that are about a managed cluster, for metrics.
#[must_use]
pub fn cluster_reasons() -> [&'static str; CLUSTER.len()] {
    CLUSTER.map(Reason::as_str)
}

impl Told {
    /// What is told of a binding that can't be made for the moment, if it is about its cluster.
    #[must_use]
    pub fn of_trouble(reason: Reason) -> Option<Self> {
        CLUSTER.contains(&reason).then_some(Self::ClusterFails(ClusterReason(reason)))
    }

    /// The word in `reason`, stable: programs select by it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Bound => "Bound",
            Self::Permanent(permanent) => permanent.reason().as_str(),
            Self::ClusterFails(ClusterReason(reason)) => reason.as_str(),
            Self::CleanupFailed => "CleanupFailed",
            Self::Abandoned => ABANDONED,
            Self::Repaired => "Repaired",
            Self::Swept => "Swept",
        }
    }

    /// The word in `action`.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::CleanupFailed | Self::Abandoned => "Unbind",
            Self::Permanent(Permanent::AccessLost) | Self::Repaired => "Repair",
            Self::Bound | Self::Permanent(_) | Self::ClusterFails(_) => "Bind",
            Self::Swept => "Sweep",
        }
    }

    /// Whether somebody should look.
    #[must_use]
    pub fn type_(self) -> EventType {
        match self {
            Self::Bound | Self::Repaired | Self::Swept => EventType::Normal,
            Self::Permanent(_) | Self::ClusterFails(_) | Self::CleanupFailed | Self::Abandoned => {
                EventType::Warning
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_readme_lists_each_word_with_its_type() {
        let single = [Told::Bound, Told::CleanupFailed, Told::Abandoned, Told::Repaired, Told::Swept];
        let permanent = Permanent::ALL.map(Told::Permanent);
        let all = single.into_iter().chain(permanent).chain(CLUSTER.into_iter().filter_map(Told::of_trouble));
        let all: BTreeSet<_> =
            all.map(|told| (told.reason().to_owned(), format!("{:?}", told.type_()))).collect();
        let readme = include_str!("../../README.md");
        let table = readme.split_once("| Event | type |").unwrap().1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let listed: BTreeSet<_> = rows
            .flat_map(|row| {
                let mut cells = row.split('|').skip(1).map(str::trim);
                let (words, type_) = (cells.next().unwrap(), cells.next().unwrap());
                words.split(", ").map(move |word| (word.trim_matches('`').to_owned(), type_.to_owned()))
            })
            .collect();
        assert_eq!(listed, all);
    }

    #[test]
    fn only_what_is_about_a_cluster_is_told_as_its_trouble() {
        for reason in Reason::ALL {
            let about = reason.as_str().starts_with("Cluster") && *reason != Reason::ClusterReplaced;
            let others = [
                Reason::ObjectAltered,
                Reason::NamespaceMissing,
                Reason::KubeconfigMissing,
                Reason::KubeconfigRefused,
                Reason::AddressRefused,
                Reason::TokenRefused,
            ];
            assert_eq!(Told::of_trouble(*reason).is_some(), about || others.contains(reason), "{reason:?}");
        }
    }
}
