//! Waiting for a condition; the only place in these tests with a timer.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

/// The time between two probes.
const INTERVAL: Duration = Duration::from_millis(50);

/// A condition that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {deadline:?} for {what}; last seen: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub deadline: Duration,
    /// What the last finished probe saw instead.
    pub last: String,
}

/// Calls `probe` every 50 ms until it returns `Ok`, and returns that value.
///
/// `Err` is the observation so far and ends in the error message (as `{:#}`). A probe that
/// hangs is given up at the deadline. To give up early, make the value a `Result` and return
/// `Ok(Err(..))`.
///
/// # Errors
/// [`TimedOut`] when `deadline` is over.
pub async fn eventually<T, E: fmt::Display>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + deadline;
    let mut last = String::from("nothing, the first probe did not return");
    loop {
        let next = Instant::now() + INTERVAL;
        match timeout_at(end, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = format!("{seen:#}"),
            Err(_) => {}
        }
        if next.max(Instant::now()) >= end {
            return Err(TimedOut { what: what.to_owned(), deadline, last });
        }
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_first_value() {
        let mut calls = 0;
        let value = eventually("three calls", Duration::from_secs(5), async || {
            calls += 1;
            if calls == 3 { Ok(calls) } else { Err(calls) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn names_the_condition_and_the_last_observation() {
        let error = eventually("a unicorn", Duration::from_millis(120), async || Err::<(), _>("a horse"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "waited 120ms for a unicorn; last seen: a horse");
    }

    #[tokio::test]
    async fn a_hanging_probe_ends_at_the_deadline() {
        let error = eventually("an answer", Duration::from_millis(60), async || {
            std::future::pending::<Result<(), String>>().await
        })
        .await
        .unwrap_err();
        assert!(error.last.contains("did not return"));
    }
}
