//! What time it is. With the feature `failpoints`, which only the tests switch on, the environment
//! variable `KYMA_BINDINGS_CLOCK_OFF_BY` sets the controller's clock off, in seconds.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine's start, the time in which it was suspended included. Unlike [`now`], nobody sets it;
/// unlike [`std::time::Instant`], it goes on while the machine sleeps.
pub(crate) fn since_boot() -> Duration {
    // It is never negative.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The time.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// The time, or what a wrong clock shows.
#[cfg(feature = "failpoints")]
pub(crate) fn now() -> Timestamp {
    use std::sync::LazyLock;

    static OFF_BY: LazyLock<i64> = LazyLock::new(|| {
        std::env::var("KYMA_BINDINGS_CLOCK_OFF_BY").ok().and_then(|off| off.parse().ok()).unwrap_or(0)
    });
    Timestamp::now() + jiff::SignedDuration::from_secs(*OFF_BY)
}
