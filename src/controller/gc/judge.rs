//! What of a managed cluster's marked objects is an orphan's, and when no conclusion is drawn. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::cluster::inventory::Marked;
use crate::controller::ledger::Knowledge;

/// Fewest orphaned bindings that stop a round, however few bindings there are.
const FEW: usize = 10;
/// Above [`FEW`], one in so many.
const SHARE: usize = 5;

/// The times that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// What is younger is left alone: it may belong to a bind in flight. A list must be whole for
    /// as long, too.
    pub young: SignedDuration,
    /// How often each cluster is swept.
    pub interval: SignedDuration,
    /// The time.
    pub now: Timestamp,
}

/// Why nothing is removed although something may be an orphan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bindings are not all known.
    #[error("the list of bindings is not complete")]
    NotListed,
    /// They were listed anew a moment ago: whoever restores a control plane does it step by step.
    #[error("the list of bindings was received a moment ago")]
    JustListed,
    /// There are none, and not for long.
    #[error("there is no binding at all, and has not been for a whole interval")]
    KnowsNothing,
    /// The watch is behind the control plane.
    #[error("a binding exists that the watch has not shown")]
    Behind,
    /// More than accidents leave.
    #[error(
        "{orphans} of {found} bindings in the cluster would be taken for orphans, which is more than accidents \
         leave: nothing is removed; check that this control plane has all its bindings"
    )]
    TooMany {
        /// Bindings that seem to be gone.
        orphans: usize,
        /// Bindings that have objects in the cluster.
        found: usize,
    },
}

/// The orphans among what was `found` in one cluster. `lives` says whether there is a binding of
/// that UID and name; both must have been asked after the objects were listed, so that a binding
/// made meanwhile is known.
///
/// A control plane without any binding is believed only when it has had none for a whole interval:
/// one that was set up anew, or is being restored, would otherwise take everything for orphans.
///
/// # Errors
/// Why no conclusion is drawn.
pub fn judge(
    found: &[Marked],
    knowledge: Knowledge,
    lives: impl Fn(&Marked) -> bool,
    times: Times,
) -> Result<Vec<&Marked>, Refusal> {
    let Times { young, interval, now } = times;
    let whole_since = settled(knowledge, times)?;
    let old = |marked: &&Marked| now.duration_since(marked.youngest) >= young;
    let orphans: Vec<_> = found.iter().filter(old).filter(|marked| !lives(marked)).collect();
    if orphans.is_empty() {
        return Ok(orphans);
    }
    let empty = knowledge.empty_since.map(|since| now.duration_since(since.max(whole_since)));
    if empty.is_some_and(|empty| empty < interval) {
        return Err(Refusal::KnowsNothing);
    }
    if orphans.len() > bearable(found.len()) {
        return Err(Refusal::TooMany { orphans: orphans.len(), found: found.len() });
    }
    Ok(orphans)
}

/// Since when the list of bindings is whole, if it has been for long enough; before, no cluster
/// need be asked.
///
/// # Errors
/// Why no conclusion would be drawn.
pub fn settled(knowledge: Knowledge, times: Times) -> Result<Timestamp, Refusal> {
    let whole_since = knowledge.whole_since.ok_or(Refusal::NotListed)?;
    let settled = times.now.duration_since(whole_since) >= times.young;
    settled.then_some(whole_since).ok_or(Refusal::JustListed)
}

/// The bindings of a cluster in the order in which one sweep looks at them: it goes on after the one at which
/// the sweep before stopped, so each has its turn, however few one sweep comes to.
pub fn in_turn<T>(mut bindings: Vec<T>, name: impl Fn(&T) -> &str, looked_at: Option<&str>) -> Vec<T> {
    bindings.sort_by(|one, other| name(one).cmp(name(other)));
    if let Some(last) = looked_at {
        let next = bindings.partition_point(|binding| name(binding) <= last);
        bindings.rotate_left(next);
    }
    bindings
}

/// How many of so many bindings may be orphans.
fn bearable(all: usize) -> usize {
    FEW.max(all / SHARE)
}

/// Bounds what all clusters together lose in an interval: a wrong list would show itself
/// everywhere, a little in each.
#[derive(Debug, Default)]
pub struct Fuse {
    since: Timestamp,
    removed: usize,
}

impl Fuse {
    /// How many of the `wished` removals may be done now, of a control plane with so many bindings.
    pub fn allow(&mut self, wished: usize, bindings: usize, times: Times) -> usize {
        if times.now.duration_since(self.since) >= times.interval {
            *self = Self { since: times.now, removed: 0 };
        }
        let allowed = wished.min(bearable(bindings).saturating_sub(self.removed));
        self.removed += allowed;
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::BindingId;
    use crate::cluster::Uids;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Made at that second.
    fn marked(name: &str, uid: &str, second: i64) -> Marked {
        Marked {
            binding: BindingId::parse(name).unwrap(),
            binding_uid: uid.into(),
            uids: Uids::default(),
            youngest: at(second),
        }
    }

    /// Now is second 10,000; 30 s are young; 600 s are an interval.
    fn times() -> Times {
        Times {
            young: SignedDuration::from_secs(30),
            interval: SignedDuration::from_secs(600),
            now: at(10_000),
        }
    }

    fn knowledge(whole: Option<i64>, empty: Option<i64>) -> Knowledge {
        Knowledge {
            whole_since: whole.map(at),
            empty_since: empty.map(at),
            bindings: usize::from(empty.is_none()),
        }
    }

    fn all_gone(found: &[Marked], knowledge: Knowledge) -> Result<Vec<&str>, Refusal> {
        let orphans = judge(found, knowledge, |_| false, times())?;
        Ok(orphans.iter().map(|marked| marked.binding.as_str()).collect())
    }

    #[test]
    fn only_what_is_old_and_belongs_to_no_binding_is_an_orphan() {
        let found = [
            marked("alive", "u1", 0),
            marked("alive", "u0", 0),
            marked("renamed", "u1", 0),
            marked("gone", "u2", 9_970),
            marked("young", "u3", 9_971),
            marked("of-the-future", "u4", 10_050),
        ];
        let lives = |m: &Marked| m.binding.as_str() == "alive" && m.binding_uid == "u1";
        let orphans = judge(&found, knowledge(Some(0), None), lives, times()).unwrap();
        assert_eq!(orphans, [&found[1], &found[2], &found[3]]);
        let ageless = [Marked { youngest: Timestamp::MAX, ..marked("x", "u", 0) }];
        assert_eq!(all_gone(&ageless, knowledge(Some(0), None)), Ok(vec![]));
    }

    #[test]
    fn nothing_is_concluded_from_a_list_that_is_not_whole_fresh_or_newly_empty() {
        let found = [marked("gone", "u", 0)];
        for (whole, empty, expected) in [
            (None, None, Err(Refusal::NotListed)),
            (None, Some(0), Err(Refusal::NotListed)),
            (Some(9_971), None, Err(Refusal::JustListed)),
            (Some(9_970), None, Ok(vec!["gone"])),
            (Some(0), Some(9_401), Err(Refusal::KnowsNothing)),
            (Some(9_401), Some(0), Err(Refusal::KnowsNothing)),
            (Some(0), Some(9_400), Ok(vec!["gone"])),
        ] {
            assert_eq!(all_gone(&found, knowledge(whole, empty)), expected, "{whole:?} {empty:?}");
        }
        assert_eq!(all_gone(&[], knowledge(Some(0), Some(9_999))), Ok(vec![]), "nothing is no orphan");
    }

    #[test]
    fn more_orphans_than_ten_and_a_fifth_stop_the_round() {
        for (orphans, alive, stops) in [
            (10_usize, 0_usize, false),
            (11, 0, true),
            (11, 43, true),
            (11, 44, false),
            (20, 80, false),
            (21, 80, true),
        ] {
            let found: Vec<_> =
                (0..orphans + alive).map(|i| marked(&format!("b{i}"), &i.to_string(), 0)).collect();
            let lives = |m: &Marked| m.binding_uid.parse::<usize>().unwrap() >= orphans;
            let judged = judge(&found, knowledge(Some(0), None), lives, times());
            let expected =
                if stops { Err(Refusal::TooMany { orphans, found: orphans + alive }) } else { Ok(orphans) };
            assert_eq!(judged.map(|o| o.len()), expected, "{orphans} of {}", orphans + alive);
        }
    }

    proptest! {
        /// Whatever is found and known, nothing alive or young goes, nothing at all goes while the list
        /// is not to be trusted, and never more than accidents leave.
        #[test]
        fn no_mixture_costs_what_lives(
            found in vec((any::<bool>(), 9_900..10_100_i64), 0..80),
            whole in proptest::option::of(9_900..10_001_i64),
            empty in proptest::option::of(9_000..10_001_i64),
        ) {
            let marks = found.iter().enumerate().map(|(i, (alive, second))| {
                marked(&format!("b{i}"), if *alive { "alive" } else { "dead" }, *second)
            });
            let marks: Vec<_> = marks.collect();
            let judged = judge(&marks, knowledge(whole, empty), |m| m.binding_uid == "alive", times());
            let dead = marks.iter().filter(|m| m.binding_uid == "dead" && m.youngest <= at(9_970));
            let dead: Vec<_> = dead.collect();
            let listed = whole.is_some_and(|since| since <= 9_970);
            let full = empty.is_none_or(|since| since.max(whole.unwrap_or(0)) <= 9_400);
            match judged {
                Ok(orphans) => {
                    prop_assert!(listed);
                    prop_assert!(orphans.is_empty() || full);
                    prop_assert!(orphans.len() <= FEW.max(marks.len() / SHARE));
                    prop_assert_eq!(orphans, dead);
                }
                Err(Refusal::TooMany { orphans, .. }) => {
                    prop_assert!(orphans == dead.len() && orphans > FEW.max(marks.len() / SHARE));
                }
                Err(Refusal::KnowsNothing) => prop_assert!(!full && !dead.is_empty()),
                Err(_) => prop_assert!(!listed),
            }
        }

        /// Sweeps of any number and at any time: no interval costs more than it may.
        #[test]
        fn a_fuse_holds_in_each_interval(
            asked in vec((0..400_i64, 0..40_usize), 1..60),
            bindings in 0..200_usize,
        ) {
            let (mut fuse, mut second) = (Fuse::default(), 10_000);
            let (mut began, mut removed) = (0, 0);
            for (later, wished) in asked {
                second += later;
                let allowed = fuse.allow(wished, bindings, Times { now: at(second), ..times() });
                prop_assert!(allowed <= wished);
                if second - began >= 600 {
                    (began, removed) = (second, 0);
                }
                removed += allowed;
                prop_assert!(removed <= FEW.max(bindings / SHARE));
            }
        }
    }

    #[test]
    fn a_sweep_goes_on_where_the_one_before_stopped() {
        let order = |names: &[&'static str], last| in_turn(names.to_vec(), |name| name, last).concat();
        assert_eq!(order(&["c", "a", "b"], None), "abc");
        assert_eq!(order(&["c", "a", "b"], Some("a")), "bca");
        assert_eq!(order(&["c", "a", "d"], Some("b")), "cda", "the one at which it stopped is gone");
        assert_eq!(order(&["c", "a", "b"], Some("c")), "abc");
        assert_eq!(order(&[], Some("c")), "");
    }

    proptest! {
        /// Sweeps that come to a few bindings each, while others come and go: whoever stays is looked at in each
        /// round of sweeps.
        #[test]
        fn each_binding_has_its_turn(few in 1..8_usize, all in 1..60_usize, guests in vec(0..100_u32, 0..60)) {
            let staying: Vec<_> = (0..all).map(|i| format!("b{i:02}")).collect();
            let (mut looked_at, mut seen) = (None, std::collections::HashSet::new());
            // Who comes and goes takes at most one place of each sweep.
            let sweeps = if few == 1 { 2 * all + guests.len() } else { all.div_ceil(few - 1) } + 1;
            for sweep in 0..sweeps {
                let mut there = staying.clone();
                there.extend(guests.get(sweep).map(|guest| format!("b{guest:02}x")));
                let done: Vec<_> =
                    in_turn(there, |name| name.as_str(), looked_at.as_deref()).into_iter().take(few).collect();
                looked_at = done.last().cloned();
                seen.extend(done);
            }
            prop_assert!(staying.iter().all(|name| seen.contains(name)));
        }
    }

    #[test]
    fn all_clusters_together_lose_no_more_than_one_could_in_an_interval() {
        let mut fuse = Fuse::default();
        let later = |seconds: i64| Times { now: times().now + SignedDuration::from_secs(seconds), ..times() };
        assert_eq!(fuse.allow(6, 0, later(0)), 6);
        assert_eq!(fuse.allow(6, 0, later(1)), 4);
        assert_eq!(fuse.allow(1, 0, later(599)), 0);
        assert_eq!(fuse.allow(1, 0, later(600)), 1, "a new interval");
        assert_eq!(fuse.allow(30, 100, later(601)), 19, "a fifth of a hundred");
    }
}
