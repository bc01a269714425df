//! The broker's view of the bindings: the mirror's, whose changes waiting requests wait for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::binding::KymaBinding;
use crate::api::conditions::{Kind, Reason};
use crate::broker::error::Problem;
use crate::kubernetes::direct::Client;
use crate::kubernetes::objects::{CallError, Objects};
use crate::store::{Awaited, Change, Follower, Mirror};
use crate::support::failpoint;
use crate::telemetry::identity::identity;

/// Longest wait for one answer of the control plane.
const DEADLINE: Duration = Duration::from_secs(5);

/// How far a binding is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing decided yet.
    Pending,
    /// Its Secret holds a kubeconfig until then.
    Ready(Timestamp),
    /// What its conditions say against it.
    Stopped(Reason, String),
}

/// The part of a binding that requests are answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// UID of the object: a binding deleted and made again has another.
    pub uid: String,
    /// Version of the object that this is the view of.
    pub version: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its instance.
    pub instance: String,
    /// Name of the binding that it shall replace.
    pub predecessor: Option<String>,
    /// Its lifetime, seconds.
    pub seconds: i64,
    /// When it ends at the latest, as far as is known now.
    pub ends: Timestamp,
    /// Whether somebody has asked for its deletion.
    pub deleting: bool,
    /// Whether it is only what an OSB request wished for: created by one, and nothing issued yet.
    pub only_wished: bool,
    /// How far it is.
    pub progress: Progress,
    /// Whether it will never be ready.
    pub stalled: bool,
}

impl View {
    /// What there is to see in an object.
    #[must_use]
    pub fn of(binding: &KymaBinding) -> Self {
        let created = binding.created_at().unwrap_or(Timestamp::MAX);
        let asked = SignedDuration::from_secs(binding.spec.expiration_seconds);
        let against = binding.condition(Kind::Ready).filter(|c| c.status == "False");
        let progress = match (binding.is(Kind::Ready), binding.expires_at(), against) {
            (true, Some(expires_at), _) => Progress::Ready(expires_at),
            // A word of a later version than ours is not understood; that is no answer yet.
            (_, _, Some(c)) => Reason::parse(&c.reason)
                .map_or(Progress::Pending, |reason| Progress::Stopped(reason, c.message.clone())),
            _ => Progress::Pending,
        };
        Self {
            uid: binding.uid().unwrap_or_default(),
            version: binding.resource_version().unwrap_or_default(),
            created,
            instance: binding.spec.instance_id.clone(),
            predecessor: binding.spec.predecessor_binding_id.clone(),
            seconds: binding.spec.expiration_seconds,
            ends: binding
                .expires_at()
                .unwrap_or_else(|| created.saturating_add(asked).unwrap_or(Timestamp::MAX)),
            deleting: binding.is_deleting(),
            only_wished: binding.is_from_osb() && binding.status.as_ref().is_none_or(|s| s.binding.is_none()),
            progress,
            stalled: binding.is(Kind::Stalled),
        }
    }
}

#[cfg(test)]
impl View {
    /// Of one for 600 s from second 0 on, nothing decided yet.
    pub(super) fn pending() -> Self {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        Self {
            uid: "u".into(),
            version: "1".into(),
            created: at(0),
            instance: "i".into(),
            predecessor: None,
            seconds: 600,
            ends: at(600),
            deleting: false,
            only_wished: true,
            progress: Progress::Pending,
            stalled: false,
        }
    }
}

/// What a waiting request sees.
pub struct Sight<'a> {
    /// The binding of that name, if the watch has one.
    pub view: Option<&'a View>,
    /// UIDs that went while the request waited.
    pub gone: &'a HashSet<String>,
}

#[derive(Default)]
struct Waiter {
    notify: Notify,
    gone: Mutex<HashSet<String>>,
}

/// The bindings, and the calls that requests make.
pub struct Bindings {
    objects: Objects<KymaBinding>,
    secrets: Objects<Secret>,
    mirror: Arc<Mirror>,
    waiters: Mutex<HashMap<String, (usize, Arc<Waiter>)>>,
}

/// Registration of a waiting request; its end is the request's end.
struct Ticket<'a> {
    bindings: &'a Bindings,
    name: &'a str,
    waiter: Arc<Waiter>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiters = self.bindings.waiters.lock();
        if let Some((count, _)) = waiters.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                waiters.remove(self.name);
            }
        }
    }
}

impl Bindings {
    /// The bindings of `namespace`, as the mirror shows them once this follows it.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, mirror: Arc<Mirror>) -> Self {
        Self {
            objects: Objects::new(client.clone(), namespace),
            secrets: Objects::new(client.clone(), namespace),
            mirror,
            waiters: Mutex::default(),
        }
    }

    fn wake(&self, name: &str, gone: Option<&str>) {
        let waiter = self.waiters.lock().get(name).map(|(_, waiter)| waiter.clone());
        if let Some(waiter) = waiter {
            waiter.gone.lock().extend(gone.map(str::to_owned));
            waiter.notify.notify_waiters();
        }
    }

    fn ticket<'a>(&'a self, name: &'a str) -> Ticket<'a> {
        let mut waiters = self.waiters.lock();
        let (count, waiter) = waiters.entry(name.to_owned()).or_default();
        *count += 1;
        let waiter = waiter.clone();
        Ticket { bindings: self, name, waiter }
    }

    /// Looks at a binding now and after each of its changes, until `look` has an answer or the
    /// deadline is there. `begin` runs once all that happens from then on will be seen.
    ///
    /// # Errors
    /// What `begin` fails with.
    pub async fn watch<B, T>(
        &self,
        name: &str,
        deadline: Instant,
        begin: impl Future<Output = Result<B, Problem>>,
        mut look: impl FnMut(&B, Sight<'_>) -> Option<T>,
    ) -> Result<(B, Option<T>), Problem> {
        let ticket = self.ticket(name);
        let started = begin.await?;
        loop {
            let changed = ticket.waiter.notify.notified();
            let answer = {
                let view = self.seen(name);
                let gone = ticket.waiter.gone.lock();
                look(&started, Sight { view: view.as_ref(), gone: &gone })
            };
            if answer.is_some() || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok((started, answer));
            }
        }
    }

    /// The binding as the watch has it.
    #[must_use]
    pub fn seen(&self, name: &str) -> Option<View> {
        self.mirror.get(name).map(|binding| View::of(&binding))
    }

    /// The binding as the control plane has it: for what the watch may not have seen yet.
    ///
    /// # Errors
    /// When the control plane doesn't answer.
    pub async fn read(&self, name: &str) -> Result<Option<View>, Problem> {
        Ok(self.object(name).await?.as_ref().map(View::of))
    }

    /// The whole object as the control plane has it.
    ///
    /// # Errors
    /// When the control plane doesn't answer.
    pub async fn object(&self, name: &str) -> Result<Option<KymaBinding>, Problem> {
        bounded("read the binding", self.objects.get(name)).await
    }

    /// Creates a binding; `None` when there is one of that name. The API server's create is the
    /// atomic test that a binding id is unique.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn create(&self, binding: &KymaBinding) -> Result<Option<View>, Problem> {
        let begun = self.mirror.writing();
        let created = bounded("create the binding", async {
            match self.objects.create(binding).await {
                Ok(created) => {
                    self.mirror.is(begun, &created);
                    Ok(Some(View::of(&created)))
                }
                Err(error) if error.is_already_exists() => Ok(None),
                Err(error) => Err(error),
            }
        });
        created.await
    }

    /// Asks for the deletion of the binding with that UID, of that version alone if one is named;
    /// false when there is none.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn delete(&self, name: &str, uid: &str, version: Option<&str>) -> Result<bool, Problem> {
        let begun = self.mirror.writing();
        let deleted = bounded("delete the binding", async {
            match self.objects.delete(name, uid, version).await {
                Ok(left) => {
                    // Kept by its finalizer; without one it is gone, and the watch says so.
                    if let Some(left) = left.filter(KymaBinding::is_deleting) {
                        self.mirror.is(begun, &left);
                    }
                    Ok(true)
                }
                Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
                Err(error) => Err(error),
            }
        });
        deleted.await
    }

    /// Waits for the Secret of that name from now on, should it be stored by this process; see [`Awaited::take`].
    #[must_use]
    pub fn await_secret(&self, name: String) -> Option<Awaited<'_>> {
        self.mirror.secrets().await_one(name)
    }

    /// A binding's Secret, if there is one.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>, Problem> {
        bounded("read the Secret", self.secrets.get(name)).await
    }
}

impl Follower for Bindings {
    fn comes(&self, _: &Event<KymaBinding>) {}

    /// The mirror has changed before anybody is woken, so whoever wakes sees the change.
    fn shown(&self, change: &Change<'_>) {
        match change {
            Change::Changed(name) => self.wake(name, None),
            Change::Gone(name, uid) => self.wake(name, Some(uid)),
            Change::Listed { before, now } => {
                for (name, (_, waiter)) in self.waiters.lock().iter() {
                    let [before, now] =
                        [before, now].map(|list| list.get(name.as_str()).and_then(|b| b.uid()));
                    waiter.gone.lock().extend(before.filter(|uid| now.as_ref() != Some(uid)));
                    waiter.notify.notify_waiters();
                }
            }
        }
    }
}

async fn bounded<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, Problem> {
    let answer = tokio::time::timeout(DEADLINE, failpoint::around("broker", action, call)).await;
    let identity = identity();
    let request_id = identity.as_deref();
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        // The server's text may quote what was sent; only its status is said.
        Ok(Err(CallError::Refused { code, .. })) => {
            tracing::warn!(action, code, request_id, "the control plane refused a request");
            Err(Problem::ControlPlaneRefused(code))
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(action, request_id, "the control plane did not answer");
            Err(Problem::ControlPlaneSilent)
        }
    }
}
