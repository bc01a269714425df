//! What goes on in a connection, for its end in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A connection without a request for so long is ended.
const IDLE: Duration = Duration::from_mins(1);

/// What goes on in a connection. hyper's timers leave out a client of HTTP/2 that sends nothing, or
/// nothing but answers to pings, and one that doesn't read.
#[derive(Default)]
pub struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Cancelled when an answer is not taken in time.
    pub unread: CancellationToken,
}

/// A request under way until its answer is written, also one that is dropped.
pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// A request has begun.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Whether a request is under way.
    pub fn is(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    /// Whether there was a request.
    pub fn was(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Until no request is under way, and none was for [`IDLE`] or longer.
    pub async fn ceases(&self) {
        loop {
            let before = self.ended.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE).await;
            if before == self.begun.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn activity_ceases_only_when_nothing_was_under_way_all_the_time() {
        let activity = Arc::new(Activity::default());
        let ceases = activity.ceases();
        let work = async {
            let first = activity.begin();
            tokio::time::sleep(IDLE * 3).await;
            drop(first);
            tokio::time::sleep(IDLE / 2).await;
            drop(activity.begin());
            tokio::time::Instant::now()
        };
        let ended = async {
            ceases.await;
            tokio::time::Instant::now()
        };
        let (end, last) = tokio::join!(ended, work);
        assert!(end >= last + IDLE / 2, "{:?}", end - last);
    }
}
