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

use crate::api::id::Id;
use crate::api::names::{BINDING_UID, BindingId};
use crate::controller::ledger::record::{Record, Remembered};

/// What is known of one Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its UID.
    pub uid: Id,
    /// UID of the binding that it is marked with.
    pub binding_uid: Id,
    /// When it was created: a binding's life is counted from there.
    pub created: Option<Timestamp>,
    /// Where its access was made.
    pub record: Option<Remembered>,
}

#[derive(Default)]
struct Index {
    seen: HashMap<Id, Seen>,
    listing: HashSet<Id>,
}

/// The Secrets by the names of their bindings.
#[derive(Default)]
pub struct Secrets {
    index: RwLock<Index>,
    synced: SetOnce<()>,
}

impl Secrets {
    /// The Secret of the binding of that name, if there is one that is marked with its UID.
    #[must_use]
    pub fn get(&self, binding: &BindingId, binding_uid: &str) -> Option<Seen> {
        let index = self.index.read();
        index
            .seen
            .get(&binding.as_str().into())
            .filter(|seen| seen.binding_uid == binding_uid.into())
            .cloned()
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
                if let Some(binding) = binding_of(&secret) {
                    index.listing.insert(binding.clone());
                    index.seen.insert(binding, seen(&secret));
                }
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut index.listing);
                let lost = index.seen.extract_if(|binding, _| !listing.contains(binding));
                gone.extend(lost.map(|(binding, _)| binding.to_string()));
                // Every list after the first finds it set.
                let _ = self.synced.set(());
            }
            Event::Apply(secret) => {
                if let Some(binding) = binding_of(&secret) {
                    index.seen.insert(binding, seen(&secret));
                }
            }
            Event::Delete(secret) => {
                if let Some((binding, _)) =
                    binding_of(&secret).and_then(|binding| index.seen.remove_entry(&binding))
                {
                    gone.push(binding.to_string());
                }
            }
        }
        gone
    }
}

/// Name of the binding that a Secret is named after. Others are nobody's, whatever their marks say.
fn binding_of(secret: &PartialObjectMeta<Secret>) -> Option<Id> {
    Some(BindingId::of_object(&secret.name_any())?.as_str().into())
}

fn seen(secret: &PartialObjectMeta<Secret>) -> Seen {
    Seen {
        uid: secret.metadata.uid.as_deref().unwrap_or_default().into(),
        binding_uid: secret.labels().get(BINDING_UID).map_or("", String::as_str).into(),
        created: secret.creation_timestamp().map(|t| t.0),
        record: Record::read(secret.annotations()).as_ref().and_then(Remembered::of),
    }
}
