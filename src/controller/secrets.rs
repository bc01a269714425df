//! Which bindings have their Secret: metadata of the Secrets that we wrote, nothing of their data.

use std::collections::{HashMap, HashSet};

use futures::{Stream, StreamExt as _, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use tokio::sync::{SetOnce, mpsc};

use super::record::{Record, Remembered};
use crate::api::names::{BINDING_UID, BindingId};
use crate::api::uid::Uid;

/// What is known of one Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its UID.
    pub uid: Uid,
    /// UID of the binding that it is marked with.
    pub binding_uid: Uid,
    /// When it was created: a binding's life is counted from there.
    pub created: Option<Timestamp>,
    /// Where its access was made.
    pub record: Option<Remembered>,
}

#[derive(Default)]
struct Index {
    seen: HashMap<Box<str>, Seen>,
    listing: HashSet<String>,
}

/// The Secrets by name.
#[derive(Default)]
pub struct Secrets {
    index: RwLock<Index>,
    synced: SetOnce<()>,
}

impl Secrets {
    /// The Secret of that name, if there is one that is marked with that binding.
    #[must_use]
    pub fn get(&self, name: &str, binding_uid: &str) -> Option<Seen> {
        let index = self.index.read();
        index.seen.get(name).filter(|seen| seen.binding_uid == binding_uid.into()).cloned()
    }

    /// Whether a whole list was seen.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.initialized()
    }

    /// Waits for [`Self::is_synced`].
    pub async fn synced(&self) {
        self.synced.wait().await;
    }

    /// Follows the watch for ever, and tells the names of the bindings that have lost their Secret.
    pub async fn follow(
        &self,
        events: impl Stream<Item = Event<PartialObjectMeta<Secret>>>,
        lost: &mpsc::Sender<String>,
    ) {
        pin_mut!(events);
        while let Some(event) = events.next().await {
            for binding in self.take(event) {
                // Nobody listens any more only while the process ends.
                let _ = lost.send(binding).await;
            }
        }
    }

    fn take(&self, event: Event<PartialObjectMeta<Secret>>) -> Vec<String> {
        let mut index = self.index.write();
        let mut gone = Vec::new();
        match event {
            Event::Init => index.listing.clear(),
            Event::InitApply(secret) => {
                index.listing.insert(secret.name_any());
                index.put(&secret);
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut index.listing);
                gone.extend(
                    index.seen.extract_if(|name, _| !listing.contains(&**name)).map(|(name, _)| name),
                );
                // Every list after the first finds it set.
                let _ = self.synced.set(());
            }
            Event::Apply(secret) => index.put(&secret),
            Event::Delete(secret) => {
                gone.extend(index.seen.remove_entry(&*secret.name_any()).map(|(name, _)| name));
            }
        }
        gone.iter().filter_map(|name| Some(BindingId::of_object(name)?.as_str().to_owned())).collect()
    }
}

impl Index {
    fn put(&mut self, secret: &PartialObjectMeta<Secret>) {
        let seen = Seen {
            uid: secret.metadata.uid.as_deref().unwrap_or_default().into(),
            binding_uid: secret.labels().get(BINDING_UID).map_or("", String::as_str).into(),
            created: secret.creation_timestamp().map(|t| t.0),
            record: Record::read(secret.annotations()).as_ref().and_then(Remembered::of),
        };
        self.seen.insert(secret.name_any().into(), seen);
    }
}
