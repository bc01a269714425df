//! When each managed cluster is swept: evenly spread, and at once where one has appeared. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

#[derive(Debug)]
struct Slot {
    due: Timestamp,
    /// Which cluster the instance has.
    cluster: String,
    busy: bool,
    /// The last binding that was looked at, where a sweep didn't come to all of them.
    looked_at: Option<String>,
}

/// The clusters that can be reached, and when each is due.
#[derive(Debug)]
pub struct Schedule {
    interval: SignedDuration,
    slots: HashMap<String, Slot>,
}

impl Schedule {
    /// Every cluster once in each `interval`.
    #[must_use]
    pub fn new(interval: SignedDuration) -> Self {
        Self { interval, slots: HashMap::new() }
    }

    /// Takes note of an instance at the start: it gets a place of its own in the interval.
    pub fn place(&mut self, instance: &str, cluster: Option<String>, now: Timestamp) {
        let mut hasher = DefaultHasher::new();
        instance.hash(&mut hasher);
        let interval = self.interval.as_millis().unsigned_abs().max(1);
        let offset = u128::from(hasher.finish()) % interval;
        let offset = SignedDuration::from_millis(i64::try_from(offset).unwrap_or_default());
        self.put(instance, cluster, now + offset);
    }

    /// Takes note of an instance that may have changed: one that has appeared, or has another
    /// cluster than before, is due at once. `None` for one that can't be reached.
    pub fn changed(&mut self, instance: &str, cluster: Option<String>, now: Timestamp) {
        let known = self.slots.get(instance).map(|slot| &slot.cluster);
        if known != cluster.as_ref() {
            self.put(instance, cluster, now);
        }
    }

    fn put(&mut self, instance: &str, cluster: Option<String>, due: Timestamp) {
        match cluster {
            Some(cluster) => {
                self.slots.insert(instance.to_owned(), Slot { due, cluster, busy: false, looked_at: None });
            }
            None => {
                self.slots.remove(instance);
            }
        }
    }

    /// The instance that is most overdue, if one is. It is due again an interval later, but not
    /// before [`Self::done`].
    pub fn take(&mut self, now: Timestamp) -> Option<String> {
        let idle = self.slots.iter_mut().filter(|(_, slot)| !slot.busy && slot.due <= now);
        let (instance, slot) = idle.min_by_key(|(_, slot)| slot.due)?;
        slot.busy = true;
        // From its place, not from now: else a slow hour would bunch what was spread.
        slot.due = (slot.due + self.interval).max(now);
        Some(instance.clone())
    }

    /// The last binding that the sweep before looked at, if it didn't come to all of them.
    #[must_use]
    pub fn looked_at(&self, instance: &str) -> Option<String> {
        self.slots.get(instance)?.looked_at.clone()
    }

    /// A sweep has ended; `again` says when to look again sooner than in an interval, `looked_at` after which
    /// binding the next one goes on.
    pub fn done(&mut self, instance: &str, again: Option<Timestamp>, looked_at: Option<String>) {
        if let Some(slot) = self.slots.get_mut(instance) {
            slot.busy = false;
            slot.looked_at = looked_at;
            slot.due = again.map_or(slot.due, |again| again.min(slot.due));
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.slots.values().filter(|slot| !slot.busy).map(|slot| slot.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn schedule() -> Schedule {
        Schedule::new(SignedDuration::from_secs(600))
    }

    fn drain(schedule: &mut Schedule, now: i64) -> usize {
        std::iter::from_fn(|| schedule.take(at(now)).inspect(|i| schedule.done(i, None, None))).count()
    }

    #[test]
    fn each_cluster_has_one_turn_in_an_interval_and_no_minute_has_most_of_them() {
        let mut schedule = schedule();
        for i in 0..600 {
            schedule.place(&format!("instance-{i}"), Some("r".into()), at(0));
        }
        let turns: Vec<_> = (1..=10).map(|minute| drain(&mut schedule, minute * 60)).collect();
        assert_eq!(turns.iter().sum::<usize>(), 600);
        assert!(turns.iter().all(|n| (30..=90).contains(n)), "{turns:?}");
        let again: Vec<_> = (11..=20).map(|minute| drain(&mut schedule, minute * 60)).collect();
        assert_eq!(turns, again, "the places are kept");
    }

    #[test]
    fn what_appears_or_has_another_cluster_is_due_at_once() {
        let mut schedule = schedule();
        schedule.changed("i", Some("r1".into()), at(5));
        assert_eq!(schedule.take(at(5)).as_deref(), Some("i"));
        schedule.done("i", None, None);
        schedule.changed("i", Some("r1".into()), at(6));
        assert_eq!(schedule.take(at(6)), None, "a rotated kubeconfig is no other cluster");
        schedule.changed("i", Some("r2".into()), at(7));
        assert_eq!(schedule.take(at(7)).as_deref(), Some("i"));
        schedule.changed("i", None, at(8));
        assert_eq!(schedule.next(), None);
        schedule.changed("i", Some("r2".into()), at(9));
        assert_eq!(schedule.take(at(9)).as_deref(), Some("i"), "it is back");
    }

    #[test]
    fn one_that_is_being_swept_is_not_taken_again_and_may_ask_to_be_soon() {
        let mut schedule = schedule();
        schedule.changed("i", Some("r".into()), at(0));
        assert!(schedule.take(at(0)).is_some());
        assert_eq!(schedule.take(at(10_000)), None);
        assert_eq!(schedule.next(), None);
        schedule.done("i", Some(at(30)), Some("b".into()));
        assert_eq!(schedule.next(), Some(at(30)));
        assert_eq!(schedule.looked_at("i").as_deref(), Some("b"));
        schedule.changed("i", Some("another".into()), at(40));
        assert_eq!(schedule.looked_at("i"), None, "another cluster begins anew");
    }
}
