//! Who waits for a place, and in what order: whoever was created first is first, and of one second the first by name.
//! Held by the ledger.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::entry::Entry;
use super::limit::Held;
use crate::api::id::Id;

/// How long a wait is not worth a word: of many that come at once, all are decided within less.
const SHORT: SignedDuration = SignedDuration::from_secs(1);
/// How often one that waits looks for itself, and says anew by what the places are held. It is woken when what it is
/// told changes, so this is only a net.
const LOOK: Duration = Duration::from_secs(30);

/// Order of creation; Kubernetes says whole seconds.
type Turn = (i64, Id);

/// Somebody who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) uid: Id,
    /// Since when.
    since: Timestamp,
    /// When it can't be made any more.
    until: Option<Timestamp>,
}

/// The lines of all instances that have one.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(HashMap<Arc<str>, BTreeMap<Turn, Waiting>>);

impl Lines {
    /// Joins the line, or stays where it is; returns since when.
    pub(super) fn join(
        &mut self,
        uid: &Id,
        entry: &Entry,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Timestamp {
        let line = self.0.entry(entry.instance.clone()).or_default();
        let waiting =
            line.entry(turn(entry)).or_insert_with(|| Waiting { uid: uid.clone(), since: now, until });
        if waiting.uid != *uid {
            // Its name was another's, whose end is about to be told.
            *waiting = Waiting { uid: uid.clone(), since: now, until };
        }
        waiting.until = until;
        waiting.since
    }

    /// Leaves the line, if it was in one.
    pub(super) fn leave(&mut self, uid: &Id, entry: &Entry) {
        let Some(line) = self.0.get_mut(&entry.instance) else { return };
        let turn = turn(entry);
        if line.get(&turn).is_some_and(|waiting| waiting.uid == *uid) {
            line.remove(&turn);
        }
        if line.is_empty() {
            self.0.remove(&entry.instance);
        }
    }

    /// Those who wait at an instance, in their order, whose time is not over.
    pub(super) fn of(&self, instance: &str, now: Timestamp) -> impl Iterator<Item = &Waiting> {
        let line = self.0.get(instance).into_iter().flat_map(BTreeMap::values);
        line.filter(move |waiting| waiting.until.is_none_or(|until| until > now))
    }

    /// Whether anybody waits there.
    pub(super) fn has(&self, instance: &str) -> bool {
        self.0.contains_key(instance)
    }

    /// The instances at which somebody waits.
    pub(super) fn instances(&self) -> Vec<Arc<str>> {
        self.0.keys().cloned().collect()
    }
}

fn turn(entry: &Entry) -> Turn {
    (entry.created, entry.name.clone())
}

/// What one that must wait is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// By what the places are held.
    pub held: Held,
    /// How many are in line before it.
    pub behind: usize,
    /// Since when it waits.
    pub since: Timestamp,
    /// When the next of them is free, as far as is known.
    pub next: Option<Timestamp>,
}

impl Wait {
    /// What is said of it at an instance with so many places.
    #[must_use]
    pub fn message(&self, max: usize) -> String {
        let turn = match self.behind {
            0 => "this one has the first place that is free".to_owned(),
            behind => format!("it waits for the first place that is free, behind {behind} created before it"),
        };
        format!("maximum number of non expired bindings reached: {max} ({}); {turn}", self.held)
    }

    /// Whether it is to be said that it waits, and when to look again; `said` whether it was.
    #[must_use]
    pub fn pause(&self, said: bool, now: Timestamp) -> (bool, Duration) {
        let until = |then: Timestamp| Duration::try_from(then.duration_since(now)).unwrap_or_default();
        let long = self.since.saturating_add(SHORT).unwrap_or(now);
        if !said && long > now {
            return (false, until(long));
        }
        (true, self.next.map_or(LOOK, |next| until(next).min(LOOK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn waiting() -> Wait {
        Wait { held: Held::default(), behind: 0, since: at(100), next: None }
    }

    #[test]
    fn the_head_of_the_line_alone_is_promised_the_next_place() {
        let held = Held { issued: 1, making: 2, removing: 0 };
        assert_eq!(
            Wait { held, ..waiting() }.message(3),
            "maximum number of non expired bindings reached: 3 (1 issued, 2 being made); this one has the first place \
             that is free"
        );
        assert_eq!(
            Wait { held, behind: 4, ..waiting() }.message(3),
            "maximum number of non expired bindings reached: 3 (1 issued, 2 being made); it waits for the first place \
             that is free, behind 4 created before it"
        );
    }

    #[test]
    fn a_short_wait_is_not_worth_a_word_and_a_long_one_looks_for_itself() {
        let wait = waiting();
        let seconds = Duration::from_secs;
        assert_eq!(wait.pause(false, at(100)), (false, seconds(1)));
        assert_eq!(wait.pause(false, at(101)), (true, LOOK));
        assert_eq!(wait.pause(true, at(100)), (true, LOOK), "said by a process before");
        let wait = Wait { next: Some(at(110)), ..wait };
        assert_eq!(wait.pause(true, at(101)), (true, seconds(9)));
        assert_eq!(wait.pause(true, at(111)), (true, Duration::ZERO));
    }
}
