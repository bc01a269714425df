//! Retries of one binding: about 1 s, doubling to 5 min, with jitter. Pure but for the jitter's dice,
//! which come in as an argument.

use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// Failures in a row and when the next try is due. Most things don't fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff(Option<Box<Failing>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Failing {
    failures: u32,
    due: Option<Timestamp>,
    /// What the failed try was made with; something else is worth a try at once.
    with: String,
}

impl Backoff {
    /// Records a failure of a try made `with` something, and says how long to wait.
    /// `dice` is between 0 and 1: the wait is shortened by up to a quarter.
    pub fn fail(&mut self, with: String, now: Timestamp, dice: f64) -> Duration {
        let failing = self.0.get_or_insert_default();
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(failing.failures.min(16)).unwrap_or(u32::MAX));
        let wait = doubled.min(LONGEST).mul_f64(1.0 - dice.clamp(0.0, 1.0) / 4.0);
        failing.failures = failing.failures.saturating_add(1);
        failing.due = now.checked_add(wait).ok();
        failing.with = with;
        wait
    }

    /// How long a try made `with` something still has to wait, if at all.
    #[must_use]
    pub fn remaining(&self, with: &str, now: Timestamp) -> Option<Duration> {
        let failing = self.0.as_ref()?;
        let due = failing.due.filter(|due| *due > now && failing.with == with)?;
        due.duration_since(now).try_into().ok()
    }

    /// Forgets all failures.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }
}

/// How a step that failed is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// What it is tried with; see [`crate::controller::decide::circumstances`].
    pub with: String,
    /// When it makes way for the end of the binding. `None` where it is that end: it waits as any other.
    pub end: Option<Timestamp>,
}

impl Retry {
    /// When to look again after a failure that asks for such a wait.
    #[must_use]
    pub fn pause(&self, wait: Duration, now: Timestamp) -> Duration {
        let left = self.end.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        left.map_or(wait, |left| wait.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_makes_way_for_the_end_and_the_end_waits_for_its_own_failures() {
        let now = Timestamp::UNIX_EPOCH;
        let minute = Duration::from_mins(1);
        let until = |second| Retry { with: String::new(), end: Some(now + Duration::from_secs(second)) };
        assert_eq!(until(90).pause(minute, now), minute);
        assert_eq!(until(30).pause(minute, now), Duration::from_secs(30));
        assert_eq!(until(30).pause(minute, now + Duration::from_secs(31)), Duration::ZERO, "it is over");
        assert_eq!(Retry::default().pause(minute, now), minute);
    }

    #[test]
    fn waits_grow_from_one_second_to_five_minutes_and_start_anew_after_success() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.fail("x".into(), now, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.succeed();
        assert_eq!(backoff.fail("x".into(), now, 1.0), Duration::from_millis(750));
    }

    #[test]
    fn something_else_is_worth_a_try_at_once() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        backoff.fail("old kubeconfig".into(), now, 0.0);
        assert_eq!(backoff.remaining("old kubeconfig", now), Some(Duration::from_secs(1)));
        assert_eq!(backoff.remaining("new kubeconfig", now), None);
        assert_eq!(backoff.remaining("old kubeconfig", now + Duration::from_secs(1)), None);
    }
}
