//! The instance directory: in what state is instance X?
//!
//! Watches the labelled kubeconfig Secrets, metadata only, and the `Runtime`s where the control
//! plane has them. No Secret's content passes through here.

pub mod runtime;
pub mod state;
mod table;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{Stream, StreamExt as _, pin_mut};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::{SetOnce, mpsc};

use runtime::{INSTANCE_ID, instance_of, runtime_facts, secret_facts};
use state::{RuntimeFacts, SecretFacts, State};
use table::Table;

use crate::kubernetes::retry::{again, heard};
use crate::kubernetes::watch::follow;
use crate::support::clock;

/// How often a control plane without the Runtime CRD is asked for it.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for its answer, and how soon a failed question is repeated.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an instance must be absent before that is believed: a Secret that is deleted and made
/// again, as some rotations do, is no end of an instance.
pub const ABSENCE: SignedDuration = SignedDuration::from_secs(10);

/// That nothing describes an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// Since when.
    pub since: Timestamp,
    /// Whether something was seen to describe it before.
    pub vanished: bool,
}

#[derive(Default)]
struct Known {
    secrets: Table<SecretFacts>,
    runtimes: Table<RuntimeFacts>,
    /// `None` until the API server has said whether there are Runtimes.
    runtimes_used: Option<bool>,
    /// When everything had been seen once.
    synced_at: Timestamp,
    /// Instances that lost all that described them, and when; those of the last moments.
    vanished: HashMap<String, Timestamp>,
}

impl Known {
    fn is_synced(&self) -> bool {
        self.secrets.is_synced()
            && match self.runtimes_used {
                None => false,
                Some(used) => !used || self.runtimes.is_synced(),
            }
    }

    fn describes(&self, instance: &str) -> bool {
        !(self.secrets.of(instance).is_empty() && self.runtimes.of(instance).is_empty())
    }
}

/// The directory. Cheap to ask: nothing but a lock and a look-up.
pub struct Instances {
    known: RwLock<Known>,
    synced: SetOnce<()>,
    changed: mpsc::Sender<String>,
}

impl Instances {
    /// An empty directory and the stream of instance ids whose state may have changed. The
    /// stream must be consumed: the watches wait for it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(1024);
        (Self { known: RwLock::default(), synced: SetOnce::new(), changed: sender }, receiver)
    }

    /// In what state an instance is. Before [`Self::is_synced`] the answer means nothing.
    #[must_use]
    pub fn state(&self, instance: &str) -> State {
        let known = self.known.read();
        state::derive(
            instance,
            &known.secrets.of(instance),
            &known.runtimes.of(instance),
            known.runtimes_used.unwrap_or(false),
        )
    }

    /// All instances that anything describes.
    #[must_use]
    pub fn all(&self) -> HashSet<String> {
        let known = self.known.read();
        known.secrets.instances().into_iter().chain(known.runtimes.instances()).collect()
    }

    /// The absence of an instance that nothing describes, as far as we were there to see it.
    #[must_use]
    pub fn absence(&self, instance: &str) -> Absence {
        let known = self.known.read();
        let vanished = known.vanished.get(instance).copied();
        Absence { since: vanished.unwrap_or(known.synced_at), vanished: vanished.is_some() }
    }

    /// Whether everything there is has been seen once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.initialized()
    }

    /// Waits for [`Self::is_synced`].
    pub async fn synced(&self) {
        self.synced.wait().await;
    }

    /// Changes what is known and returns the instances to tell of: none before the first sync,
    /// when nobody listens yet and everything will be looked at anyway.
    fn take(&self, change: impl FnOnce(&mut Known) -> Vec<String>) -> Vec<String> {
        let now = clock::now();
        let mut known = self.known.write();
        let touched = change(&mut known);
        if self.is_synced() {
            known.vanished.retain(|_, since| now.duration_since(*since) < ABSENCE * 6);
            for instance in &touched {
                if known.describes(instance) {
                    known.vanished.remove(instance);
                } else {
                    known.vanished.entry(instance.clone()).or_insert(now);
                }
            }
            return touched;
        }
        if known.is_synced() {
            known.synced_at = now;
            // Set only here, under the lock, and only once.
            let _ = self.synced.set(());
        }
        Vec::new()
    }

    /// Watches for ever. Lost connections are taken up again with backoff.
    pub async fn run(&self, client: Client, namespace: &str) {
        let secrets = follow("kubeconfig Secrets", client.clone(), namespace, Some(INSTANCE_ID));
        futures::join!(self.follow_secrets(secrets), self.follow_runtimes(client, namespace));
    }

    async fn follow_secrets(&self, events: impl Stream<Item = Event<PartialObjectMeta<Secret>>>) {
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let read = |s: PartialObjectMeta<Secret>| {
                let facts = secret_facts(&s);
                (facts.name.clone(), instance_of(&s).map(|id| (id, facts)))
            };
            self.tell(self.take(|known| known.secrets.take(event, read))).await;
        }
    }

    async fn follow_runtimes(&self, client: Client, namespace: &str) {
        self.wait_for_runtimes(&client).await;
        tracing::info!("instances are described by Runtimes and kubeconfig Secrets");
        let resource = runtime::api_resource();
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
        let events = watcher(api, watcher::Config::default().labels(INSTANCE_ID)).backoff(again());
        let events = heard("Runtimes", events);
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let complete = matches!(event, Event::InitDone);
            let read = |r: DynamicObject| {
                let facts = runtime_facts(&r);
                (facts.name.clone(), instance_of(&r).map(|id| (id, facts)))
            };
            let touched = self.take(|known| {
                let mut touched = known.runtimes.take(event, read);
                // Until the list is whole, the Secrets' word alone counted, or nothing did.
                if complete && known.runtimes_used != Some(true) {
                    known.runtimes_used = Some(true);
                    touched.extend(known.secrets.instances());
                }
                touched
            });
            self.tell(touched).await;
        }
    }

    /// Returns when the control plane has the Runtime CRD, which may be never.
    async fn wait_for_runtimes(&self, client: &Client) {
        loop {
            let asked = client.list_api_group_resources(runtime::API_VERSION);
            match tokio::time::timeout(PROBE_TIMEOUT, asked).await {
                Ok(Ok(list)) if list.resources.iter().any(|r| r.kind == "Runtime") => return,
                Ok(Ok(_)) => self.without_runtimes(),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => self.without_runtimes(),
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!("asking the API server for Runtimes failed; trying again");
                }
            }
            let known = self.known.read().runtimes_used.is_some();
            tokio::time::sleep(if known { PROBE_INTERVAL } else { PROBE_TIMEOUT }).await;
        }
    }

    fn without_runtimes(&self) {
        self.take(|known| {
            if known.runtimes_used.is_none() {
                tracing::info!(
                    "no Runtimes in this control plane: labelled kubeconfig Secrets alone are the instances"
                );
                known.runtimes_used = Some(false);
            }
            Vec::new()
        });
    }

    async fn tell(&self, touched: Vec<String>) {
        for instance in touched {
            self.look_again(instance).await;
        }
    }

    /// Has whoever listens look at an instance again for another reason than a change of it.
    pub async fn look_again(&self, instance: String) {
        // Nobody listens any more only while the process ends.
        let _ = self.changed.send(instance).await;
    }
}
