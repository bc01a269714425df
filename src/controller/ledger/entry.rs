//! What is remembered of one binding. There is one for each of very many, so it is small.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::backoff::Backoff;
use super::limit::{Guest, Progress};
use super::record::Remembered;
use crate::api::binding::KymaBinding;
use crate::api::id::Id;

/// When the seat of an accepted binding is free again. `None` until its token says when it ends.
pub type Seat = Option<Timestamp>;

/// Whose the rules of a role are by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Ours.
    AsMade,
    /// Its cluster's owner has changed them.
    Changed,
}

/// Whether a binding's role binding may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// It may.
    Given,
    /// It was seen gone.
    Taken,
}

/// What is remembered of one binding.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: Id,
    /// The instance it is for.
    pub instance: Arc<str>,
    /// Second of its creation; Kubernetes says no more.
    pub(super) created: i64,
    pub(super) seat: Option<Seat>,
    /// How far it is, as its object says.
    pub(super) progress: Progress,
    /// Whether something of it may exist in a managed cluster or as a Secret. False only for
    /// what was born under our eyes and for which no call has been made to its cluster yet.
    pub touched: bool,
    /// Resource version of our latest write; an object older than that is an echo from before.
    pub(super) written: u64,
    rare: Option<Box<Rare>>,
    /// Whether we let the object go: its end is no surprise, and nothing of it is left.
    pub released: bool,
    /// Whether a sweep missed something of its access, which is to be looked at.
    pub doubted: bool,
    /// Where its access was made, if it was.
    pub record: Option<Remembered>,
    /// Whether its rights were taken ahead of the rest.
    pub rights: Rights,
    /// The rules of its role, as the last sweep found them.
    pub rules: Rules,
    /// How often its cluster would not let it be removed.
    pub refusals: u16,
    /// Failures in a row.
    pub backoff: Backoff,
}

/// What most bindings don't have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rare {
    predecessor: Option<Id>,
    /// Until when a process before us may still have its acceptance under way: it was there undecided
    /// when we came. Whatever is written to the object first, by us or by it, ends that.
    unclaimed: Option<Timestamp>,
}

impl Entry {
    /// What there is to remember of one that has just been seen.
    pub(super) fn new(binding: &KymaBinding, instance: Arc<str>, touched: bool) -> Self {
        Self {
            name: binding.name_any().as_str().into(),
            instance,
            created: binding.created_at().map_or(0, Timestamp::as_second),
            seat: None,
            progress: Progress::Making,
            touched,
            written: 0,
            rare: Self::rare(binding.spec.predecessor_binding_id.as_deref().map(Id::from), None),
            released: false,
            doubted: false,
            record: None,
            rights: Rights::Given,
            rules: Rules::AsMade,
            refusals: 0,
            backoff: Backoff::default(),
        }
    }

    fn rare(predecessor: Option<Id>, unclaimed: Option<Timestamp>) -> Option<Box<Rare>> {
        let rare = Rare { predecessor, unclaimed };
        (rare != Rare::default()).then(|| Box::new(rare))
    }

    fn predecessor(&self) -> Option<&Id> {
        self.rare.as_ref()?.predecessor.as_ref()
    }

    pub(super) fn unclaimed(&self) -> Option<Timestamp> {
        self.rare.as_ref()?.unclaimed
    }

    pub(super) fn set_unclaimed(&mut self, until: Option<Timestamp>) {
        if self.unclaimed() != until {
            self.rare = Self::rare(self.predecessor().cloned(), until);
        }
    }

    pub(super) fn guest<'a>(&'a self, uid: &'a Id, ends: Seat) -> Guest<'a> {
        let Self { name, created, progress, .. } = self;
        Guest { name, predecessor: self.predecessor(), age: (*created, uid), ends, progress: *progress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert!(
            size_of::<Entry>() <= 120,
            "{}: is something in it that most bindings don't have?",
            size_of::<Entry>()
        );
    }
}
