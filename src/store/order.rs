//! Which of the events that two ways bring are news.

use std::collections::HashMap;

use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use crate::api::binding::KymaBinding;

/// Which list was whole when a write began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun(pub(super) u64);

/// Which events are news. A watch tells all changes of all objects in the order of their versions, which compare
/// as numbers (KEP-5504): what is newer than its newest event is still to come by it, so it may be known before.
#[derive(Default)]
pub(super) struct Order {
    /// Lists that were whole.
    lists: u64,
    /// The number of the one that is, or 0.
    whole: u64,
    /// Newest version that the watch has shown.
    newest: u64,
    /// By UID, the version of what was told before the watch has shown it; [`GONE`] of what is gone.
    ahead: HashMap<String, u64>,
}

/// Nothing comes after an end.
const GONE: u64 = u64::MAX;

impl Order {
    /// Whether a list is whole, and which.
    pub(super) fn whole(&self) -> Option<Begun> {
        (self.whole > 0).then_some(Begun(self.whole))
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        // An API server restored from a backup counts its versions from before.
        (self.whole, self.newest) = (0, 0);
        self.ahead.clear();
    }

    /// Whether an event of the watch is news.
    pub(super) fn watched(&mut self, event: &Event<KymaBinding>) -> bool {
        match event {
            Event::Init => {
                self.begin();
                true
            }
            Event::InitApply(binding) => {
                self.newest = self.newest.max(binding.version());
                true
            }
            Event::InitDone => {
                self.lists += 1;
                self.whole = self.lists;
                true
            }
            Event::Delete(binding) => {
                self.newest = self.newest.max(binding.version());
                self.ahead.remove(&binding.uid().unwrap_or_default()) != Some(GONE)
            }
            Event::Apply(binding) => {
                let version = binding.version();
                self.newest = self.newest.max(version);
                if self.ahead.is_empty() {
                    return true;
                }
                let uid = binding.uid().unwrap_or_default();
                let told = self.ahead.get(&uid).copied();
                if told.is_some_and(|told| version >= told) {
                    self.ahead.remove(&uid);
                }
                told.is_none_or(|told| version > told)
            }
        }
    }

    /// Whether an answer is news that the watch will bring, too. What began before the list is not: the list may
    /// have been without it already.
    pub(super) fn is(&mut self, begun: Begun, binding: &KymaBinding) -> bool {
        let (version, uid) = (binding.version(), binding.uid().unwrap_or_default());
        let ahead = self.ahead.get(&uid).copied().unwrap_or_default();
        let news = self.whole() == Some(begun) && version > self.newest.max(ahead);
        if news {
            self.ahead.insert(uid, version);
        }
        news
    }

    /// Whether it is news that an object is gone, which is `known` to have been there. An answer says so without the
    /// version of the end, so the watch's word is passed over when it comes.
    pub(super) fn is_gone(&mut self, begun: Begun, uid: &str, known: bool) -> bool {
        let news = known && self.whole() == Some(begun);
        if news {
            self.ahead.insert(uid.to_owned(), GONE);
        }
        news
    }
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

    #[test]
    fn what_the_watch_will_bring_is_known_before_it_and_once() {
        let mut order = listed();
        assert!(order.is(Begun(1), &binding("a", 12)));
        assert!(order.watched(&is("b", 11)), "another one's");
        assert!(!order.watched(&is("a", 12)), "told already");
        assert!(order.watched(&is("a", 13)));
        assert!(order.ahead.is_empty());
    }

    #[test]
    fn what_the_watch_has_brought_is_no_news() {
        let mut order = listed();
        assert!(order.watched(&is("a", 12)) && order.watched(&gone("a", 13)));
        assert!(!order.is(Begun(1), &binding("a", 12)), "it would come to life again");
        assert!(!order.is(Begun(1), &binding("b", 11)), "gone, as far as the watch can tell");
    }

    #[test]
    fn what_is_older_than_what_was_told_does_not_bring_it_back() {
        let mut order = listed();
        assert!(order.is(Begun(1), &binding("a", 12)) && order.is(Begun(1), &binding("a", 15)));
        assert!(!order.is(Begun(1), &binding("a", 14)), "an answer that was overtaken");
        for event in [is("a", 12), is("a", 13), is("a", 14), is("a", 15)] {
            assert!(!order.watched(&event));
        }
        assert!(order.watched(&is("a", 16)), "nothing is held back for ever");
    }

    #[test]
    fn what_is_gone_does_not_come_back_and_ends_once() {
        let mut order = listed();
        assert!(!order.is_gone(Begun(1), "a", false), "the watch was faster");
        assert!(order.is_gone(Begun(1), "old", true));
        assert!(!order.is(Begun(1), &binding("old", 12)) && !order.watched(&is("old", 12)));
        assert!(!order.watched(&gone("old", 13)));
        assert!(order.ahead.is_empty(), "nothing is held back for ever");
        assert!(!order.is_gone(Begun(0), "old", true), "before the list");
    }

    #[test]
    fn what_began_before_a_list_is_left_to_it() {
        let mut order = Order::default();
        assert!(!order.is(Begun(0), &binding("a", 12)), "nobody has a list");
        let mut order = listed();
        assert!(order.is(Begun(1), &binding("a", 12)));
        assert!(order.watched(&Event::Init));
        assert!(!order.is(Begun(1), &binding("b", 13)), "in the midst of a list");
        assert!(order.watched(&Event::InitDone));
        assert!(!order.is(Begun(1), &binding("b", 13)), "the list may have been without it");
        assert!(order.is(Begun(2), &binding("b", 5)), "the versions of a restored API server");
    }
}
