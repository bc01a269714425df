//! The keys of an issuer, fetched when they are needed and not more often.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::issuer::FetchError;
use super::jwks::Keys;
use crate::telemetry::metrics::Metrics;

/// How often keys are fetched when all is well.
const REFRESH: Duration = Duration::from_mins(5);
/// Least time between two fetches, whatever tokens name.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// Keys that could not be fetched again for so long are no longer believed.
const STALE: Duration = Duration::from_hours(1);
/// Requests that wait for a fetch; others are answered by what is known.
const MAX_WAITING: usize = 64;

/// How keys are fetched.
pub type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Keys, FetchError>> + Send + Sync>;

/// The keys, and how they are come by.
pub struct KeyCache {
    fetch: Fetch,
    state: Mutex<State>,
    single: Arc<tokio::sync::Mutex<()>>,
    waiting: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<Keys>, Instant)>,
    attempted: Option<Instant>,
}

impl KeyCache {
    /// Without keys so far.
    pub fn new(fetch: Fetch, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            state: Mutex::default(),
            single: Arc::default(),
            waiting: Semaphore::new(MAX_WAITING),
            metrics,
        })
    }

    /// Fetches them now and again for as long as somebody holds them.
    pub fn keep(self: &Arc<Self>) {
        let cache = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(cache) = cache.upgrade() {
                let fetched = cache.refresh().await;
                drop(cache);
                tokio::time::sleep(if fetched { REFRESH } else { COOL_DOWN }).await;
            }
        });
    }

    /// The keys to look for that one in, fetched anew if it isn't among those that are known; `None`
    /// when there are none that could be believed.
    pub async fn with(self: &Arc<Self>, id: Option<&str>) -> Option<Arc<Keys>> {
        if let Some(keys) = self.fresh()
            && keys.has(id)
        {
            return Some(keys);
        }
        if let Ok(_waiting) = self.waiting.try_acquire() {
            self.refresh().await;
        }
        self.fresh()
    }

    fn fresh(&self) -> Option<Arc<Keys>> {
        let state = self.state.lock();
        state.keys.as_ref().filter(|(_, since)| since.elapsed() < STALE).map(|(keys, _)| keys.clone())
    }

    /// Whether keys were fetched; false if that had to wait. One at a time, and each to its end, even
    /// if whoever asked for it has gone.
    async fn refresh(self: &Arc<Self>) -> bool {
        let single = self.single.clone().lock_owned().await;
        {
            let mut state = self.state.lock();
            if state.attempted.is_some_and(|at| at.elapsed() < COOL_DOWN) {
                return false;
            }
            state.attempted = Some(Instant::now());
        }
        let cache = self.clone();
        let fetch = tokio::spawn(async move {
            let _single = single;
            let fetched = (cache.fetch)().await;
            cache.metrics.keys_fetched(fetched.is_ok());
            match fetched {
                Ok(keys) => {
                    cache.state.lock().keys = Some((Arc::new(keys), Instant::now()));
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "the issuer's keys could not be fetched; those that are known stay for an hour");
                    false
                }
            }
        });
        fetch.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    struct Source {
        cache: Arc<KeyCache>,
        fetched: Arc<AtomicUsize>,
        kid: Arc<Mutex<Option<&'static str>>>,
    }

    /// An issuer that has one key, none if its name is empty, or is silent, and takes a second to say so.
    fn source(kid: Option<&'static str>) -> Source {
        let (fetched, kid) = (Arc::<AtomicUsize>::default(), Arc::new(Mutex::new(kid)));
        let (count, present) = (fetched.clone(), kid.clone());
        let fetch: Fetch = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let kid = *present.lock();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let key = json!({"kid": kid.ok_or(FetchError::Unreachable)?, "kty": "RSA", "n": "AQAB", "e": "AQAB"});
                let keys = if kid == Some("") { json!([]) } else { json!([key]) };
                Ok(Keys::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap())
            })
        });
        Source { cache: KeyCache::new(fetch, Arc::default()), fetched, kid }
    }

    impl Source {
        async fn has(&self, id: &str) -> Option<bool> {
            self.cache.with(Some(id)).await.map(|keys| keys.has(Some(id)))
        }

        fn fetched(&self) -> usize {
            self.fetched.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_looked_for_once_in_a_while() {
        let source = source(Some("old"));
        let many = futures::future::join_all((0..50).map(|_| source.has("old"))).await;
        assert!(many.iter().all(|has| *has == Some(true)), "all waited for the one fetch");
        assert_eq!(source.fetched(), 1);
        *source.kid.lock() = Some("new");
        for _ in 0..100 {
            assert_eq!(source.has("new").await, Some(false), "cooling down");
        }
        assert_eq!(source.fetched(), 1);
        tokio::time::advance(COOL_DOWN).await;
        assert_eq!(source.has("new").await, Some(true));
        assert_eq!(source.has("old").await, Some(false), "what was withdrawn is gone");
        assert_eq!(source.fetched(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_issuer_is_believed_for_an_hour() {
        let source = source(Some("key"));
        assert_eq!(source.has("key").await, Some(true));
        *source.kid.lock() = None;
        source.cache.keep();
        tokio::time::sleep(STALE.mul_f64(0.99)).await;
        assert_eq!(source.has("key").await, Some(true));
        tokio::time::sleep(STALE.mul_f64(0.01)).await;
        assert_eq!(source.has("key").await, None);
        *source.kid.lock() = Some("key");
        tokio::time::sleep(COOL_DOWN * 2).await;
        assert_eq!(source.has("key").await, Some(true), "it is asked again and again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_without_keys_is_believed_at_once() {
        let source = source(Some("key"));
        source.cache.keep();
        assert_eq!(source.has("key").await, Some(true));
        *source.kid.lock() = Some("");
        tokio::time::sleep(REFRESH * 2).await;
        assert_eq!(source.has("key").await, Some(false), "keys are known: none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_when_whoever_asked_has_gone() {
        let source = source(Some("key"));
        let asked = tokio::time::timeout(Duration::from_millis(1), source.has("key")).await;
        assert!(asked.is_err());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((source.has("key").await, source.fetched()), (Some(true), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let source = source(Some("key"));
        let all = futures::future::join_all((0..100).map(|_| source.has("key"))).await;
        assert_eq!(all.iter().filter(|has| **has == Some(true)).count(), MAX_WAITING);
        assert_eq!(source.fetched(), 1);
    }
}
