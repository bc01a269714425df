//! The limit on unexpired bindings of an instance. Pure.
//!
//! What is limited are places. A binding takes one, except that a successor sits down beside its
//! predecessor: rotation works at the limit, and a place never has more than two bindings.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::api::id::Id;

/// An accepted binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest<'a> {
    /// Its name.
    pub name: &'a Id,
    /// Name of the binding that it shall replace.
    pub predecessor: Option<&'a Id>,
    /// The second in which it was created, and its UID: an order that all processes see alike.
    pub age: (i64, &'a Id),
    /// When it ends; `None` until its token says it.
    pub ends: Option<Timestamp>,
}

/// How many places they take. A binding whose time is over takes none, even while it is still
/// being removed.
///
/// A binding sits beside its predecessor if that is unexpired and has a place of its own; of several
/// successors the oldest does. So no end of a binding makes the rest take more places than before.
pub fn places<'a>(guests: impl IntoIterator<Item = Guest<'a>>, now: Timestamp) -> usize {
    let mut living: Vec<_> =
        guests.into_iter().filter(|guest| guest.ends.is_none_or(|ends| ends > now)).collect();
    living.sort_unstable_by_key(|guest| guest.age);
    let names: HashSet<_> = living.iter().map(|guest| guest.name).collect();
    let mut successors: HashMap<_, Vec<_>> = HashMap::new();
    let mut open = Vec::new();
    for guest in &living {
        match guest.predecessor.filter(|name| names.contains(name)) {
            Some(predecessor) => successors.entry(predecessor).or_default().push(guest.name),
            None => open.push((guest.name, true)),
        }
    }
    // Those that name each other in a circle are never reached, and have a place each.
    let mut beside = 0;
    while let Some((name, has_place)) = open.pop() {
        for (number, successor) in successors.remove(name).into_iter().flatten().enumerate() {
            let sits_beside = has_place && number == 0;
            beside += usize::from(sits_beside);
            open.push((successor, !sits_beside));
        }
    }
    living.len() - beside
}

/// Whether one more may be accepted beside those that are: there is a place for it, or it needs none.
#[must_use]
pub fn admits<'a>(accepted: &[Guest<'a>], wishing: Guest<'a>, max: usize, now: Timestamp) -> bool {
    let before = places(accepted.iter().copied(), now);
    let with = places(accepted.iter().copied().chain([wishing]), now);
    with <= max.max(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn guest(name: &str, predecessor: Option<&str>, born: i64) -> Guest<'static> {
        let id = |text: &str| -> &'static Id { Box::leak(Box::new(text.into())) };
        let (name, predecessor) = (id(name), predecessor.map(id));
        Guest { name, predecessor, age: (born, name), ends: None }
    }

    fn taken(guests: &[Guest<'_>]) -> usize {
        places(guests.iter().copied(), at(100))
    }

    #[test]
    fn only_unexpired_bindings_take_places() {
        let until = |second| Guest { ends: Some(at(second)), ..guest("a", None, 1) };
        assert!(admits(&[], guest("b", None, 2), 1, at(100)));
        assert!(!admits(&[], guest("b", None, 2), 0, at(100)));
        assert!(!admits(&[guest("a", None, 1)], guest("b", None, 2), 1, at(100)));
        assert!(!admits(&[until(101)], guest("b", None, 2), 1, at(100)));
        assert!(admits(&[until(100)], guest("b", None, 2), 1, at(100)));
    }

    #[test]
    fn a_successor_sits_beside_its_predecessor() {
        let first = guest("a", None, 1);
        let second = guest("b", Some("a"), 2);
        assert_eq!(taken(&[first, second]), 1);
        assert_eq!(taken(&[first, guest("b", Some("unknown"), 2)]), 2);
        assert!(admits(&[first], second, 1, at(100)), "rotation works at the limit");
        assert!(admits(&[first, guest("x", None, 1)], second, 1, at(100)), "and where the limit was lowered");
        let expired = Guest { ends: Some(at(100)), ..first };
        assert_eq!(taken(&[expired, second]), 1, "the place stays taken when the predecessor ends");
    }

    #[test]
    fn a_place_has_at_most_two() {
        let (a, b) = (guest("a", None, 1), guest("b", Some("a"), 2));
        assert_eq!(taken(&[a, b, guest("c", Some("a"), 3)]), 2, "a second successor");
        assert_eq!(taken(&[a, b, guest("c", Some("b"), 3)]), 2, "a successor's successor");
        assert_eq!(taken(&[b, guest("c", Some("b"), 3)]), 1, "once the first is gone");
        assert_eq!(taken(&[guest("a", Some("b"), 1), guest("b", Some("a"), 2)]), 2, "each other's");
        assert_eq!(taken(&[guest("a", Some("a"), 1)]), 1, "its own");
        assert_eq!(taken(&[guest("a", Some("b"), 1), guest("b", None, 1)]), 1, "made in the same second");
    }

    /// Histories of accepting and ending, drawn from many seeds.
    #[test]
    fn whatever_happens_two_a_place_is_the_most() {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let max = 2;
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut living: Vec<Guest<'_>> = Vec::new();
            for born in 0..40 {
                if random.random_bool(0.3) && !living.is_empty() {
                    let before = taken(&living);
                    living.swap_remove(random.random_range(0..living.len()));
                    assert!(taken(&living) <= before, "seed {seed}: an end took a place");
                    continue;
                }
                let name = NAMES[random.random_range(0..NAMES.len())];
                let predecessor = random.random_bool(0.7).then(|| NAMES[random.random_range(0..NAMES.len())]);
                let wishing = guest(name, predecessor, born);
                if living.iter().all(|guest| guest.name != wishing.name)
                    && admits(&living, wishing, max, at(100))
                {
                    living.push(wishing);
                }
                assert!(taken(&living) <= max && living.len() <= 2 * max, "seed {seed}: {living:?}");
            }
        }
    }
}
