//! The limit on unexpired bindings of an instance. Pure.
//!
//! What is limited are places. A binding takes one, except that a successor sits down beside its
//! predecessor: rotation works at the limit, and a place never has more than two bindings.
//!
//! A binding that finds no place is refused for good only if those that were issued leave none. What is
//! still being made, or being removed, may free its place yet, so then it waits. Whoever waited first is first.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

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
    /// How far it is.
    pub progress: Progress,
}

/// How far an accepted binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// It was accepted, and nobody has its kubeconfig yet.
    Making,
    /// It was issued, and shall stay so.
    Issued,
    /// Somebody has asked for its deletion.
    Removing,
}

/// By what the places are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// By bindings that were issued.
    pub issued: usize,
    /// By those that are being made.
    pub making: usize,
    /// By those that are being removed.
    pub removing: usize,
}

impl Held {
    fn by(guests: &[Guest<'_>], now: Timestamp) -> Self {
        let places_of = |of: &[Progress]| {
            places(guests.iter().copied().filter(|guest| of.contains(&guest.progress)), now)
        };
        let issued = places_of(&[Progress::Issued]);
        let staying = places_of(&[Progress::Issued, Progress::Making]);
        let all = places(guests.iter().copied(), now);
        Self { issued, making: staying.saturating_sub(issued), removing: all.saturating_sub(staying) }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} issued, {} being made", self.issued, self.making)?;
        if self.removing > 0 {
            write!(f, ", {} being removed", self.removing)?;
        }
        Ok(())
    }
}

/// What a binding is told that wants a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has one.
    Place,
    /// There is none for it yet.
    Wait,
    /// There is none for it, whatever becomes of those that are not issued.
    Refused,
}

/// What those who want a place are told, in the order in which they are given.
#[must_use]
pub fn judge<'a>(
    accepted: &[Guest<'a>],
    wishing: impl IntoIterator<Item = Guest<'a>>,
    max: usize,
    now: Timestamp,
) -> Vec<Verdict> {
    let is_issued = |guest: &Guest<'_>| guest.progress == Progress::Issued;
    let mut all = Table::new(accepted.to_vec(), max, now);
    // Most find a place, so it is rarely needed.
    let issued = LazyCell::new(|| Table::new(accepted.iter().copied().filter(is_issued).collect(), max, now));
    let judge = |wishing| {
        if let Some(taken) = all.with(wishing) {
            // Whoever is behind it finds this place taken.
            all.guests.push(wishing);
            all.taken = taken;
            Verdict::Place
        } else if issued.with(wishing).is_some() {
            Verdict::Wait
        } else {
            Verdict::Refused
        }
    };
    wishing.into_iter().map(judge).collect()
}

/// By what the places are held that the accepted bindings take.
#[must_use]
pub fn held(accepted: &[Guest<'_>], now: Timestamp) -> Held {
    Held::by(accepted, now)
}

/// Accepted bindings, and how many places they take. There may be many that ask.
struct Table<'a> {
    guests: Vec<Guest<'a>>,
    taken: usize,
    max: usize,
    now: Timestamp,
}

impl<'a> Table<'a> {
    fn new(guests: Vec<Guest<'a>>, max: usize, now: Timestamp) -> Self {
        let taken = places(guests.iter().copied(), now);
        Self { guests, taken, max, now }
    }

    /// How many places are taken when one more is accepted: there is a place for it, or it needs none. `None` where
    /// there isn't.
    fn with(&self, wishing: Guest<'a>) -> Option<usize> {
        let related = |guest: &Guest<'_>| {
            guest.predecessor == Some(wishing.name) || wishing.predecessor == Some(guest.name)
        };
        let with = if self.guests.iter().any(related) {
            places(self.guests.iter().copied().chain([wishing]), self.now)
        } else {
            self.taken + 1
        };
        (with <= self.max.max(self.taken)).then_some(with)
    }
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
        Guest { name, predecessor, age: (born, name), ends: None, progress: Progress::Issued }
    }

    fn making(name: &str, predecessor: Option<&str>, born: i64) -> Guest<'static> {
        Guest { progress: Progress::Making, ..guest(name, predecessor, born) }
    }

    fn admits<'a>(accepted: &[Guest<'a>], wishing: Guest<'a>, max: usize, now: Timestamp) -> bool {
        judge(accepted, [wishing], max, now) == [Verdict::Place]
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
    fn only_issued_bindings_refuse_for_good() {
        use Verdict::{Place, Refused, Wait};
        let told = |accepted: &[Guest<'static>], max| judge(accepted, [guest("new", None, 9)], max, at(100));
        let (a, b) = (guest("a", None, 1), making("b", None, 2));
        let leaving = Guest { progress: Progress::Removing, ..guest("c", None, 3) };
        assert_eq!(told(&[a, b], 3), [Place]);
        assert_eq!(told(&[a, b], 2), [Wait]);
        assert_eq!(told(&[a, leaving], 2), [Wait], "its place will be free");
        assert_eq!(told(&[a, b], 1), [Refused], "the limit was lowered");
        assert_eq!(told(&[a, Guest { progress: Progress::Issued, ..b }], 2), [Refused]);
        assert_eq!(told(&[a, Guest { ends: Some(at(100)), ..b }], 2), [Place], "it can't be issued any more");
        assert_eq!(told(&[], 0), [Refused]);
        // One that is being made beside its predecessor holds no place, but keeps another from sitting there.
        assert_eq!(told(&[a, making("b", Some("a"), 2)], 1), [Refused]);
        let another = guest("c", Some("a"), 3);
        assert_eq!(judge(&[a, making("b", Some("a"), 2)], [another], 1, at(100)), [Wait]);
        assert_eq!(judge(&[a, guest("b", Some("a"), 2)], [another], 1, at(100)), [Refused]);
    }

    #[test]
    fn whoever_waited_first_is_first() {
        use Verdict::{Place, Refused, Wait};
        let waiting = [making("b", None, 2), making("c", Some("a"), 3), making("d", None, 4)];
        let told = |accepted: &[Guest<'static>], max| judge(accepted, waiting, max, at(100));
        let full = [guest("a", None, 1), making("x", None, 1)];
        assert_eq!(told(&full, 2), [Wait, Place, Wait], "a successor takes no place from whoever waits");
        assert_eq!(told(&full[..1], 2), [Place, Place, Wait]);
        assert_eq!(told(&full[..1], 1), [Refused, Place, Refused]);
    }

    #[test]
    fn what_holds_the_places_is_counted_in_places() {
        let ended = Guest { ends: Some(at(100)), ..making("f", None, 1) };
        let leaving = Guest { progress: Progress::Removing, ..guest("e", None, 1) };
        let all = [guest("a", None, 1), making("b", Some("a"), 2), making("c", None, 3), ended];
        assert_eq!(held(&all, at(100)).to_string(), "1 issued, 1 being made");
        let all = [&all[..], &[leaving]].concat();
        assert_eq!(held(&all, at(100)).to_string(), "1 issued, 1 being made, 1 being removed");
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

    /// Whatever was accepted and is asked for, what is said quickly of many is what counting each says.
    #[test]
    fn verdicts_are_those_of_counting() {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut all: Vec<_> = NAMES
                .iter()
                .zip(0..)
                .map(|(name, born)| {
                    let of = random.random_bool(0.5).then(|| NAMES[random.random_range(0..NAMES.len())]);
                    let progress = [Progress::Making, Progress::Issued, Progress::Removing];
                    let progress = progress[random.random_range(0..progress.len())];
                    Guest { progress, ..guest(name, of, born) }
                })
                .collect();
            let wishing = all.split_off(random.random_range(0..=all.len()));
            let max = random.random_range(0..4);
            let mut seated = all.clone();
            for (wishing, told) in wishing.iter().zip(judge(&all, wishing.clone(), max, at(100))) {
                let fits = |beside: &[Guest<'static>]| {
                    taken(&[beside, &[*wishing]].concat()) <= max.max(taken(beside))
                };
                let issued: Vec<_> =
                    all.iter().copied().filter(|guest| guest.progress == Progress::Issued).collect();
                let expected = match (fits(&seated), fits(&issued)) {
                    (true, _) => Verdict::Place,
                    (false, true) => Verdict::Wait,
                    (false, false) => Verdict::Refused,
                };
                assert_eq!(told, expected, "seed {seed}");
                if told == Verdict::Place {
                    seated.push(*wishing);
                }
            }
        }
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
