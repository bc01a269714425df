//! The limit on unexpired bindings of an instance. Pure.

use jiff::Timestamp;

/// A place that an accepted binding holds. `None` until its token says when it ends.
pub type Seat = Option<Timestamp>;

/// Whether one more binding may be accepted beside those that hold `seats`. A binding whose time
/// is over holds none, even while it is still being removed.
pub fn admits(seats: impl IntoIterator<Item = Seat>, max: usize, now: Timestamp) -> bool {
    let taken = seats.into_iter().filter(|ends| ends.is_none_or(|ends| ends > now)).count();
    taken < max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unexpired_seats_count() {
        let at = |s| Some(Timestamp::from_second(s).unwrap());
        let now = Timestamp::from_second(100).unwrap();
        assert!(admits([], 1, now));
        assert!(!admits([None], 1, now));
        assert!(!admits([at(101)], 1, now));
        assert!(admits([at(100)], 1, now));
        assert!(admits([at(99), at(101), None], 3, now));
        assert!(!admits([], 0, now));
    }
}
