//! What was found, remembered for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A set that forgets: what is old, and when it is full, the oldest.
pub struct Remembered<T> {
    since: Mutex<HashMap<T, Instant>>,
    lifetime: Duration,
    most: usize,
}

impl<T: Copy + Eq + Hash> Remembered<T> {
    /// Remembers at most so many, each for so long.
    pub fn new((lifetime, most): (Duration, usize)) -> Self {
        Self { since: Mutex::default(), lifetime, most }
    }

    /// Whether it is remembered.
    pub fn has(&self, what: &T) -> bool {
        self.since.lock().get(what).is_some_and(|since| since.elapsed() < self.lifetime)
    }

    /// Whether it is remembered; if so, for as long again.
    pub fn renew(&self, what: &T) -> bool {
        let mut all = self.since.lock();
        let found = all.get_mut(what).filter(|since| since.elapsed() < self.lifetime);
        found.map(|since| *since = Instant::now()).is_some()
    }

    /// Remembers it from now on.
    pub fn insert(&self, what: T) {
        let mut all = self.since.lock();
        if all.len() >= self.most {
            all.retain(|_, since| since.elapsed() < self.lifetime);
        }
        if all.len() >= self.most
            && let Some(oldest) = all.iter().min_by_key(|(_, since)| **since).map(|(what, _)| *what)
        {
            all.remove(&oldest);
        }
        all.insert(what, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_mins(5);

    #[tokio::test(start_paused = true)]
    async fn what_is_used_stays_and_what_is_only_looked_at_goes() {
        let set = Remembered::new((LIFETIME, 10));
        set.insert("used");
        set.insert("seen");
        for _ in 0..3 {
            tokio::time::advance(LIFETIME.mul_f64(0.4)).await;
            assert!(set.renew(&"used"));
            set.has(&"seen");
        }
        assert!(!set.has(&"seen") && !set.renew(&"seen"));
        tokio::time::advance(LIFETIME).await;
        assert!(!set.has(&"used") && !set.renew(&"used") && !set.has(&"unknown"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let set = Remembered::new((LIFETIME, 2));
        for number in 0..3 {
            set.insert(number);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!([0, 1, 2].map(|number| set.has(&number)), [false, true, true]);
        assert!(set.renew(&1));
        set.insert(3);
        assert_eq!([1, 2, 3].map(|number| set.has(&number)), [true, false, true]);
    }
}
