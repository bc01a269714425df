//! What this process has just written, for whoever in it watches the same objects.
//!
//! An API server answers a write with the object as it is from then on; the watch says the same a moment later.
//! Broker and controller of one process spare each other that moment. Nothing depends on it: where they run
//! apart, or more is told than is listened to, the watch alone brings everything.

mod secrets;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt as _, future, stream};
use kube::ResourceExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::binding::KymaBinding;

pub use secrets::{Awaited, Secrets};

/// Most writes that wait to be listened to.
const MAX_TOLD: usize = 1024;

/// A write that was answered.
struct Told {
    begun: Begun,
    event: Event<KymaBinding>,
}

/// That somebody listens, and which of its lists was whole when a write began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun(u64);

/// Tells.
pub struct Teller {
    whole: Arc<AtomicU64>,
    tell: mpsc::Sender<Told>,
}

/// Listens, beside its watch.
pub struct Listener {
    /// Number of the list that the listener has whole; 0 while it has none.
    whole: Arc<AtomicU64>,
    told: mpsc::Receiver<Told>,
}

/// What broker or controller has of the other, if both are in one process.
pub struct End {
    /// Tells the other.
    pub tell: Teller,
    /// Listens to the other.
    pub listen: Listener,
    /// From the controller to the broker.
    pub secrets: Arc<Secrets>,
}

/// The ends of both.
#[must_use]
pub fn link() -> (End, End) {
    let ((one, from_one), (other, from_other)) = (channel(), channel());
    let secrets = Arc::<Secrets>::default();
    let end = |tell, listen| End { tell, listen, secrets: secrets.clone() };
    (end(one, from_other), end(other, from_one))
}

/// Somebody who tells, and somebody who listens.
fn channel() -> (Teller, Listener) {
    let (tell, told) = mpsc::channel(MAX_TOLD);
    let whole = Arc::<AtomicU64>::default();
    (Teller { whole: whole.clone(), tell }, Listener { whole, told })
}

impl Teller {
    /// To be asked before a write is sent, since a list that comes later may know better than its answer.
    #[must_use]
    pub fn begin(&self) -> Option<Begun> {
        Some(self.whole.load(Ordering::Acquire)).filter(|whole| *whole > 0).map(Begun)
    }

    /// Tells what the answer says that there is now.
    pub fn is(&self, begun: Option<Begun>, binding: &KymaBinding) {
        self.tell(begun, || Event::Apply(binding.clone()));
    }

    /// Tells that the object of that answer is gone.
    pub fn is_gone(&self, begun: Option<Begun>, binding: KymaBinding) {
        self.tell(begun, || Event::Delete(binding));
    }

    fn tell(&self, begun: Option<Begun>, event: impl FnOnce() -> Event<KymaBinding>) {
        if let Some(begun) = begun {
            // Whoever has too much to listen to has its watch.
            let _ = self.tell.try_send(Told { begun, event: event() });
        }
    }
}

impl Listener {
    /// The events of a watch, and between them what is told, each object's in the order of its versions.
    pub fn beside(
        self,
        watch: impl Stream<Item = watcher::Result<Event<KymaBinding>>>,
    ) -> impl Stream<Item = watcher::Result<Event<KymaBinding>>> {
        let Self { whole, told } = self;
        let mut order = Order::default();
        let told = ReceiverStream::new(told).map(Source::Told);
        stream::select(watch.map(Source::Watch), told).filter_map(move |source| {
            future::ready(match source {
                Source::Watch(Ok(event)) => {
                    let goes_on = order.watched(&event);
                    whole.store(order.whole, Ordering::Release);
                    goes_on.then_some(Ok(event))
                }
                Source::Watch(Err(error)) => Some(Err(error)),
                Source::Told(told) => order.told(&told).then_some(Ok(told.event)),
            })
        })
    }
}

enum Source {
    Watch(watcher::Result<Event<KymaBinding>>),
    Told(Told),
}

/// Which events are news. A watch tells all changes of all objects in the order of their versions, which compare
/// as numbers (KEP-5504): what is newer than its newest event is still to come by it, so it may be known before.
#[derive(Default)]
struct Order {
    /// Lists that were whole.
    lists: u64,
    /// The number of the one that is, or 0.
    whole: u64,
    /// Newest version that the watch has shown.
    newest: u64,
    /// By UID, the version of what was told before the watch has shown it.
    ahead: HashMap<String, u64>,
}

impl Order {
    /// Whether an event of the watch is news.
    fn watched(&mut self, event: &Event<KymaBinding>) -> bool {
        match event {
            Event::Init => {
                // An API server restored from a backup counts its versions from before.
                (self.whole, self.newest) = (0, 0);
                self.ahead.clear();
                true
            }
            Event::InitApply(binding) => {
                self.newest = self.newest.max(version(binding));
                true
            }
            Event::InitDone => {
                self.lists += 1;
                self.whole = self.lists;
                true
            }
            Event::Apply(binding) | Event::Delete(binding) => {
                let version = version(binding);
                self.newest = self.newest.max(version);
                if self.ahead.is_empty() {
                    return true;
                }
                let uid = binding.uid().unwrap_or_default();
                let told = self.ahead.get(&uid).copied().unwrap_or_default();
                if version >= told {
                    self.ahead.remove(&uid);
                }
                version > told
            }
        }
    }

    /// Whether what was told is news that the watch will bring, too. What a write answered that began before the list is
    /// not: the list may have been without it already.
    fn told(&mut self, told: &Told) -> bool {
        let (Event::Apply(binding) | Event::Delete(binding)) = &told.event else { return false };
        let (version, uid) = (version(binding), binding.uid().unwrap_or_default());
        let ahead = self.ahead.get(&uid).copied().unwrap_or_default();
        let news = told.begun == Begun(self.whole) && self.whole > 0 && version > self.newest.max(ahead);
        if news {
            self.ahead.insert(uid, version);
        }
        news
    }
}

fn version(binding: &KymaBinding) -> u64 {
    binding.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(name: &str, version: u64) -> KymaBinding {
        serde_json::from_value(json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()},
            "spec": {"instanceId": "i"},
        }))
        .unwrap()
    }

    fn is(name: &str, version: u64) -> Event<KymaBinding> {
        Event::Apply(binding(name, version))
    }

    fn gone(name: &str, version: u64) -> Event<KymaBinding> {
        Event::Delete(binding(name, version))
    }

    /// One with a whole list, up to version 10.
    fn listed() -> Order {
        let mut order = Order::default();
        let all = [Event::Init, Event::InitApply(binding("old", 10)), Event::InitDone];
        assert!(all.iter().all(|event| order.watched(event)));
        order
    }

    fn told(list: u64, event: Event<KymaBinding>) -> Told {
        Told { begun: Begun(list), event }
    }

    #[test]
    fn what_the_watch_will_bring_is_known_before_it_and_once() {
        let mut order = listed();
        assert!(order.told(&told(1, is("a", 12))));
        assert!(order.watched(&is("b", 11)), "another one's");
        assert!(!order.watched(&is("a", 12)), "told already");
        assert!(order.watched(&is("a", 13)));
        assert!(order.ahead.is_empty());
    }

    #[test]
    fn what_the_watch_has_brought_is_no_news() {
        let mut order = listed();
        assert!(order.watched(&is("a", 12)) && order.watched(&gone("a", 13)));
        assert!(!order.told(&told(1, is("a", 12))), "it would come to life again");
        assert!(!order.told(&told(1, is("b", 11))), "gone, as far as the watch can tell");
    }

    #[test]
    fn what_is_older_than_what_was_told_does_not_bring_it_back() {
        let mut order = listed();
        assert!(order.told(&told(1, is("a", 12))) && order.told(&told(1, gone("a", 15))));
        assert!(!order.told(&told(1, is("a", 14))), "an answer that was overtaken");
        for event in [is("a", 12), is("a", 13), is("a", 14), gone("a", 15)] {
            assert!(!order.watched(&event));
        }
        assert!(order.watched(&is("a", 16)), "nothing is held back for ever");
    }

    #[test]
    fn what_began_before_a_list_is_left_to_it() {
        let mut order = Order::default();
        assert!(!order.told(&told(0, is("a", 12))), "nobody has a list");
        let mut order = listed();
        assert!(order.told(&told(1, is("a", 12))));
        assert!(order.watched(&Event::Init));
        assert!(!order.told(&told(1, is("b", 13))), "in the midst of a list");
        assert!(order.watched(&Event::InitDone));
        assert!(!order.told(&told(1, is("b", 13))), "the list may have been without it");
        assert!(order.told(&told(2, is("b", 5))), "the versions of a restored API server");
    }

    #[tokio::test]
    async fn told_and_watched_are_one_stream() {
        let (teller, listener) = channel();
        teller.is(teller.begin(), &binding("nobody listens", 1));
        let (watch, events) = mpsc::channel(8);
        let mut all = Box::pin(listener.beside(ReceiverStream::new(events)));
        for event in [Event::Init, Event::InitDone] {
            watch.send(Ok(event)).await.unwrap();
            all.next().await.unwrap().unwrap();
        }
        teller.is(teller.begin(), &binding("a", 3));
        assert!(matches!(all.next().await, Some(Ok(Event::Apply(a))) if a.name_any() == "a"));
        watch.send(Ok(is("a", 3))).await.unwrap();
        watch.send(Err(watcher::Error::NoResourceVersion)).await.unwrap();
        assert!(matches!(all.next().await, Some(Err(_))), "the same again is passed over");
        teller.is_gone(teller.begin(), binding("a", 4));
        assert!(matches!(all.next().await, Some(Ok(Event::Delete(_)))));
    }
}
