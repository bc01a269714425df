//! The queue in front of one managed cluster: so many calls are under way at once, the rest waits for a place.
//! Waiting is no sign of a silent cluster, unless nobody before is answered either.

use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// The places of one cluster.
pub(super) struct Places {
    free: Semaphore,
    /// When the cluster last answered anybody.
    answered: Mutex<Option<Instant>>,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Semaphore::new(places), answered: Mutex::new(None) }
    }

    /// Waits for a place, first come, first served, for as long as the cluster answers those before. `None` when
    /// it has answered nobody for `patience`: whoever waits on would only find out later.
    pub(super) async fn take(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        // One future for the whole wait, so that nobody overtakes.
        let mut place = pin!(self.free.acquire());
        let mut since = Instant::now();
        loop {
            if let Ok(place) = timeout(patience.saturating_sub(since.elapsed()), &mut place).await {
                // It is never closed.
                return place.ok();
            }
            since = self.answered.lock().filter(|at| at.elapsed() < patience)?;
        }
    }

    /// The cluster has answered.
    pub(super) fn answered(&self) {
        *self.answered.lock() = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use tokio::time::sleep;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_a_place_however_long_the_queue_is_while_the_cluster_answers() {
        let (places, began) = (Places::new(16), Instant::now());
        let call = async || {
            let place = places.take(PATIENCE).await;
            sleep(Duration::from_millis(400)).await;
            places.answered();
            place.is_some()
        };
        let served = join_all((0..400).map(|_| call())).await;
        assert!(served.iter().all(|served| *served));
        assert!(
            began.elapsed() >= Duration::from_secs(10),
            "the last waited for longer than one call may take"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_on_a_silent_cluster_for_longer_than_for_a_call() {
        let (places, began) = (Places::new(1), Instant::now());
        let _silent = places.take(PATIENCE).await.unwrap();
        assert!(places.take(PATIENCE).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
        // One that falls silent while somebody waits is given as long from its last answer.
        let falls_silent = async {
            sleep(Duration::from_secs(2)).await;
            places.answered();
        };
        let (waited, ()) = tokio::join!(places.take(PATIENCE), falls_silent);
        assert!(waited.is_none());
        assert_eq!(began.elapsed(), PATIENCE + PATIENCE + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes() {
        let places = Places::new(1);
        let first = places.take(PATIENCE).await;
        let order = Mutex::new(Vec::new());
        let call = async |name: u8| {
            let place = places.take(PATIENCE).await;
            order.lock().push(name);
            places.answered();
            drop(place);
        };
        let frees = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(4)).await;
                places.answered();
            }
            drop(first);
        };
        tokio::join!(call(1), call(2), call(3), frees);
        assert_eq!(*order.lock(), [1, 2, 3]);
    }
}
