//! The bindings as the API server has them: one watch and one copy, for all of a process.
//!
//! An API server answers a write with the object as it is from then on; the watch says the same a moment later. What
//! this process writes it knows from the answer. Nothing depends on it: the watch alone brings everything.

pub mod metrics;
mod order;
mod packed;
mod secrets;

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt as _};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, SetOnce};

use crate::api::binding::KymaBinding;
use crate::api::conditions::Phase;
use crate::api::id::Id;
use crate::kubernetes::watch::follow;

pub use order::Begun;
pub use secrets::{Awaited, Secrets};

use order::Order;
use packed::Kept;

/// Hears of each change. It is called between events, and must not take long.
pub trait Follower: Send + Sync {
    /// An event, before the mirror shows what it says.
    fn comes(&self, event: &Event<KymaBinding>);
    /// The mirror shows it.
    fn shown(&self, change: &Change<'_>);
}

/// What the mirror shows from now on.
pub enum Change<'a> {
    /// A binding is another than it was, or new.
    Changed(&'a str),
    /// That of this name and UID is gone.
    Gone(&'a str, &'a str),
    /// A whole list, in the place of what was there.
    Listed {
        /// What was there.
        before: &'a Bindings,
        /// What is there.
        now: &'a Bindings,
    },
}

/// Bindings by name.
#[derive(Default)]
pub struct Bindings(HashMap<Id, Entry>);

struct Entry {
    kept: Kept,
    phase: Phase,
    /// In which second.
    expires: Option<i64>,
}

impl Bindings {
    /// The binding of that name.
    #[must_use]
    pub fn get(&self, name: impl Into<Id>) -> Option<Arc<KymaBinding>> {
        self.0.get(&name.into())?.kept.get()
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &Id> {
        self.0.keys()
    }

    fn has(&self, name: &Id, uid: &str) -> bool {
        self.get(name).is_some_and(|known| known.metadata.uid.as_deref() == Some(uid))
    }

    /// The name may be another binding's by now.
    fn remove(&mut self, name: &Id, uid: &str) {
        if self.has(name, uid) {
            self.0.remove(name);
        }
    }

    /// Whether another binding has that name by now. What this process made is told before the watch has shown the
    /// end of what was called so before.
    fn has_newer(&self, binding: &KymaBinding) -> bool {
        self.get(name_of(binding))
            .is_some_and(|known| known.uid() != binding.uid() && known.version() > binding.version())
    }
}

impl Entry {
    fn of(binding: KymaBinding) -> Self {
        let phase = binding.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
        let phase = if binding.is_deleting() { Phase::Terminating } else { phase };
        let expires = binding.expires_at().map(Timestamp::as_second);
        Self { kept: Kept::keep(binding), phase, expires }
    }
}

#[derive(Default)]
struct Index {
    all: Bindings,
    listing: Bindings,
}

#[derive(Default)]
struct Watching {
    order: Order,
    followers: Vec<Arc<dyn Follower>>,
    /// They follow from the next list on.
    joining: Vec<Arc<dyn Follower>>,
    /// The first list begins when so many follow.
    awaited: usize,
}

/// The copy.
pub struct Mirror {
    client: Client,
    namespace: String,
    index: RwLock<Index>,
    watching: Mutex<Watching>,
    joined: Notify,
    synced: SetOnce<()>,
    secrets: Secrets,
}

impl Mirror {
    /// Of that namespace; [`Self::run`] fills it when so many follow as are `awaited`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, awaited: usize) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            index: RwLock::default(),
            watching: Mutex::new(Watching { awaited, ..Watching::default() }),
            joined: Notify::new(),
            synced: SetOnce::new(),
            secrets: Secrets::default(),
        }
    }

    /// Somebody hears of everything from now on, beginning with a list that begins now.
    pub fn follow(&self, follower: Arc<dyn Follower>) {
        let mut watching = self.watching.lock();
        watching.joining.push(follower);
        watching.order.begin();
        self.joined.notify_one();
    }

    /// Begins when anybody follows, whoever else was awaited.
    pub fn await_anybody(&self) {
        self.watching.lock().awaited = 1;
        self.joined.notify_one();
    }

    /// Watches for ever.
    pub async fn run(&self) {
        loop {
            while !self.begin() {
                self.joined.notified().await;
            }
            let events = follow("KymaBindings", self.client.clone(), &self.namespace, None);
            pin_mut!(events);
            loop {
                tokio::select! {
                    () = self.joined.notified() => if !self.watching.lock().joining.is_empty() { break },
                    Some(event) = events.next() => self.watched(event),
                }
            }
        }
    }

    /// Whether there are enough to begin for.
    fn begin(&self) -> bool {
        let mut watching = self.watching.lock();
        let joining = std::mem::take(&mut watching.joining);
        watching.followers.extend(joining);
        watching.followers.len() >= watching.awaited
    }

    fn watched(&self, event: Event<KymaBinding>) {
        let mut watching = self.watching.lock();
        // Whoever joins now begins with a list of its own.
        if watching.joining.is_empty() && watching.order.watched(&event) {
            self.take(&watching.followers, event);
        }
    }

    fn take(&self, followers: &[Arc<dyn Follower>], event: Event<KymaBinding>) {
        for follower in followers {
            follower.comes(&event);
        }
        let tell = |change: Change<'_>| followers.iter().for_each(|follower| follower.shown(&change));
        match event {
            Event::Init => self.index.write().listing = Bindings::default(),
            Event::InitApply(binding) => {
                let (name, entry) = (name_of(&binding), Entry::of(binding));
                self.index.write().listing.0.insert(name, entry);
            }
            Event::InitDone => {
                let before = {
                    let mut index = self.index.write();
                    let listing = std::mem::take(&mut index.listing);
                    std::mem::replace(&mut index.all, listing)
                };
                // Every list after the first finds it set.
                let _ = self.synced.set(());
                let now = &self.index.read().all;
                tell(Change::Listed { before: &before, now });
            }
            Event::Apply(binding) => {
                let name = binding.name_any();
                if !self.index.read().all.has_newer(&binding) {
                    let entry = Entry::of(binding);
                    self.index.write().all.0.insert(name.as_str().into(), entry);
                }
                tell(Change::Changed(&name));
            }
            Event::Delete(binding) => {
                let (name, uid) = (binding.name_any(), binding.uid().unwrap_or_default());
                self.index.write().all.remove(&name.as_str().into(), &uid);
                tell(Change::Gone(&name, &uid));
            }
        }
    }

    /// To be asked before a write is sent, since a list that comes later may know better than its answer.
    #[must_use]
    pub fn writing(&self) -> Option<Begun> {
        self.watching.lock().order.whole()
    }

    /// Takes in what the answer to a write says that there is now.
    pub fn is(&self, begun: Option<Begun>, binding: &KymaBinding) {
        let mut watching = self.watching.lock();
        if begun.is_some_and(|begun| watching.order.is(begun, binding)) {
            self.take(&watching.followers, Event::Apply(binding.clone()));
        }
    }

    /// Takes in that the binding of that answer is gone.
    pub fn is_gone(&self, begun: Option<Begun>, binding: KymaBinding) {
        let mut watching = self.watching.lock();
        let (name, uid) = (binding.name_any(), binding.uid().unwrap_or_default());
        let known = self.index.read().all.has(&name.as_str().into(), &uid);
        if begun.is_some_and(|begun| watching.order.is_gone(begun, &uid, known)) {
            self.take(&watching.followers, Event::Delete(binding));
        }
    }

    /// Whether a whole list was seen.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.initialized()
    }

    /// The binding of that name.
    #[must_use]
    pub fn get(&self, name: impl Into<Id>) -> Option<Arc<KymaBinding>> {
        self.index.read().all.get(name)
    }

    /// Calls with the phase of each binding, and the second in which it expires, if that is known.
    pub fn each(&self, mut call: impl FnMut(Phase, Option<i64>)) {
        self.index.read().all.0.values().for_each(|entry| call(entry.phase, entry.expires));
    }

    /// The Secrets that this process stores.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

fn name_of(binding: &KymaBinding) -> Id {
    binding.name_any().as_str().into()
}

#[cfg(test)]
mod tests;
