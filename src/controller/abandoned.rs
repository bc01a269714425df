//! Bindings that were let go although their access may still be there, because nobody could remove it. When their
//! cluster is back, what they left is removed without the doubts that a sweep has: we know ourselves that they are gone.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::api::id::Id;

/// Most that are remembered. What is not, a sweep finds as it finds all else.
const MOST: usize = 10_000;

#[derive(Debug)]
struct One {
    instance: Id,
    /// Where its access was made, if that is known.
    cluster: Option<Id>,
    /// Since when it is remembered.
    since: Timestamp,
    /// When its last token has ended by itself.
    until: Timestamp,
}

/// Such bindings by their UIDs.
#[derive(Debug, Default)]
pub struct Abandoned(Mutex<HashMap<Id, One>>);

impl Abandoned {
    /// Remembers a binding of that instance whose tokens may be alive until then.
    pub fn remember(
        &self,
        uid: &str,
        instance: &str,
        cluster: Option<&str>,
        until: Timestamp,
        now: Timestamp,
    ) {
        let mut all = self.0.lock();
        all.retain(|_, one| one.until > now);
        if all.len() < MOST {
            let one = One { instance: instance.into(), cluster: cluster.map(Id::from), since: now, until };
            all.insert(uid.into(), one);
        }
    }

    /// Whether the binding of that UID is one, and a token of it may be alive.
    #[must_use]
    pub fn contains(&self, uid: &str, now: Timestamp) -> bool {
        self.0.lock().get(&uid.into()).is_some_and(|one| one.until > now)
    }

    /// Whether a token of the instance's may be alive.
    #[must_use]
    pub fn any_of(&self, instance: &str, now: Timestamp) -> bool {
        let instance = Id::from(instance);
        self.0.lock().values().any(|one| one.instance == instance && one.until > now)
    }

    /// Forgets a binding of which nothing is left.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(&uid.into());
    }

    /// An instance's cluster was asked at that time. Forgets those of which it holds nothing, and returns whether it must
    /// be asked again soon: `remains` says whether something was found of a binding, or its object still exists. What was
    /// made in another cluster is remembered until that one is back.
    #[must_use]
    pub fn settle(
        &self,
        (instance, cluster): (&str, &str),
        asked: Timestamp,
        remains: impl Fn(&Id) -> bool,
        now: Timestamp,
    ) -> bool {
        let (instance, cluster) = (Id::from(instance), Id::from(cluster));
        let mut again = false;
        self.0.lock().retain(|uid, one| {
            if one.instance != instance || one.until <= now {
                return one.until > now;
            }
            // What was given up since then may be more than the cluster's answer shows.
            let remains = one.since > asked || remains(uid);
            again |= remains;
            remains || one.cluster.as_ref().is_some_and(|made_in| *made_in != cluster)
        });
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_over_makes_room() {
        let abandoned = Abandoned::default();
        for i in 0..=MOST {
            abandoned.remember(&format!("u{i}"), "i", None, at(10), at(0));
        }
        assert!(abandoned.contains("u0", at(9)) && !abandoned.contains(&format!("u{MOST}"), at(9)));
        assert!(!abandoned.contains("u0", at(10)), "its tokens have ended: a sweep has its doubts again");
        assert!(
            abandoned.any_of("i", at(9)) && !abandoned.any_of("i", at(10)) && !abandoned.any_of("j", at(9))
        );
        abandoned.remember("later", "i", None, at(20), at(10));
        assert!(abandoned.contains("later", at(10)) && !abandoned.contains("u0", at(9)));
        abandoned.forget("later");
        assert!(!abandoned.contains("later", at(10)));
    }

    #[test]
    fn a_cluster_is_asked_again_while_it_may_hold_something() {
        // Asked at second 5, judged at second 6.
        let settle = |abandoned: &Abandoned, cluster, remains: &[&str]| {
            abandoned.settle(("i", cluster), at(5), |uid| remains.contains(&&*uid.to_string()), at(6))
        };
        let known = |abandoned: &Abandoned| ["u", "v"].map(|uid| abandoned.contains(uid, at(6)));
        let given_up = |cluster, since| {
            let abandoned = Abandoned::default();
            abandoned.remember("u", "i", cluster, at(10), at(since));
            abandoned.remember("v", "j", Some("c"), at(10), at(0));
            abandoned
        };
        let abandoned = given_up(Some("c"), 0);
        assert!(settle(&abandoned, "c", &["u"]), "its object exists, or something of it was found");
        assert_eq!(known(&abandoned), [true, true]);
        assert!(!settle(&abandoned, "c", &["v"]));
        assert_eq!(known(&abandoned), [false, true], "another instance's is not judged");
        let abandoned = given_up(Some("c"), 6);
        assert!(settle(&abandoned, "c", &[]), "given up since the cluster was asked");
        let abandoned = given_up(Some("c"), 0);
        assert!(!settle(&abandoned, "another", &[]), "this one has nothing of it");
        assert_eq!(known(&abandoned), [true, true], "until its own is back");
        let abandoned = given_up(None, 0);
        assert!(!settle(&abandoned, "c", &[]));
        assert_eq!(known(&abandoned), [false, true]);
    }
}
