//! Whether this process still leads. Asked before every write, since a process that was stopped for a
//! while, or whose machine was suspended, would otherwise go on where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::clock;

/// Tells everybody in the process whether we still lead.
#[derive(Debug, Clone)]
pub struct Fence {
    /// Until when, in milliseconds of [`clock::since_boot`]; 0 when we don't.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// Of a process that does not lead yet.
    pub(super) fn closed() -> Self {
        Self { until: Arc::default() }
    }

    /// A fence that is always open, for a process that leads without an election.
    #[must_use]
    pub fn open() -> Self {
        Self { until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Whether we lead at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds_at(clock::since_boot())
    }

    fn holds_at(&self, now: Duration) -> bool {
        millis(now) < self.until.load(Ordering::SeqCst)
    }

    /// We lead until then, by [`clock::since_boot`].
    pub(super) fn extend(&self, until: Duration) {
        self.until.store(millis(until), Ordering::SeqCst);
    }

    /// We don't lead any more.
    pub(super) fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_fence_closes_by_itself() {
        let fence = Fence::closed();
        assert!(!fence.holds() && !fence.holds_at(at(0)));
        fence.extend(at(110));
        assert!(fence.holds_at(at(100)));
        assert!(fence.holds_at(Duration::from_millis(109_999)));
        assert!(!fence.holds_at(at(110)));
        // An hour in which the machine slept counts like any other.
        assert!(!fence.holds_at(at(100 + 3600)));
        fence.extend(at(120));
        fence.close();
        assert!(!fence.holds_at(at(100)));
        assert!(Fence::open().holds() && Fence::open().holds_at(Duration::from_hours(1_000_000)));
    }

    #[test]
    fn the_clock_counts_from_the_machines_start_and_its_sleep_with_it() {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (began, awake) = (clock::since_boot(), Duration::try_from(monotonic).unwrap());
        assert!(began >= awake, "{began:?} {awake:?}");
        assert!(clock::since_boot() >= began);
    }
}
