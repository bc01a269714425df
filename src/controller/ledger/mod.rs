//! What the controller remembers of each binding beside the object itself.
//!
//! Fed by the watch before any reconcile sees the event, so that what it says is never behind the
//! store. Everything in it can be found again after a restart; what is remembered only saves calls,
//! except the seats of bindings that were accepted a moment ago and whose status is still to come.

pub mod backoff;
pub mod entry;
pub mod limit;
pub mod record;
pub mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;

use super::decide::{GRACE, is_issued, latest_end};
use crate::api::binding::{KymaBinding, MIN_EXPIRATION_SECONDS};
use crate::api::conditions::Kind;
use crate::api::id::Id;
use crate::controller::ledger::entry::Entry;
use crate::controller::ledger::limit::{Guest, Progress, Verdict};
use crate::controller::ledger::record::Record;
use crate::controller::ledger::waiting::{Lines, Wait};

/// How long a write may be under way: an API server ends a request after a minute by itself
/// (`--request-timeout`).
const LONGEST_WRITE: SignedDuration = SignedDuration::from_secs(75);
/// Most [`Stray`]s kept until somebody takes them.
const MAX_STRAYS: usize = 10_000;

/// What is answered to a binding that wants a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It has one.
    Seated,
    /// All are taken by bindings that were issued.
    Refused,
    /// All are taken, not all of them by such.
    Wait(Wait),
    /// It is not known yet: first it must be claimed.
    ClaimFirst,
    /// It is not known yet: others of its instance must be claimed first.
    ClaimOthers,
    /// It is gone, or going.
    Gone,
}

/// A binding that was deleted past our finalizer: what it left is still to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The instance it was for.
    pub instance: String,
    /// The cluster it was pinned to, if it was.
    pub cluster_id: Option<String>,
    /// Where its access was made, if it was.
    pub record: Option<Record>,
    /// Whether its kubeconfig was handed out.
    pub issued: bool,
    /// When none of its tokens can be alive any more.
    pub ends: Option<Timestamp>,
}

/// The memory of all bindings.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: HashMap<Id, Entry>,
    by_instance: HashMap<Arc<str>, HashSet<Id>>,
    /// UIDs of the list that is being received, if one is.
    listing: Option<HashSet<Id>>,
    listed: bool,
    /// Since when the list is whole; not while one is being received.
    whole_since: Option<Timestamp>,
    /// Since when there is no binding at all.
    empty_since: Option<Timestamp>,
    strays: Vec<Stray>,
    /// How many places each instance has.
    max: usize,
    /// Who waits for one.
    lines: Lines,
    /// Names of those who waited and would be told something else by now.
    woken: Vec<Id>,
}

/// How good the ledger's knowledge of all bindings is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knowledge {
    /// Since when the list is whole, if it is.
    pub whole_since: Option<Timestamp>,
    /// Since when there is no binding at all, if there is none.
    pub empty_since: Option<Timestamp>,
    /// How many bindings there are.
    pub bindings: usize,
}

impl Ledger {
    /// An empty one, for instances with so many places.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes in one event of the watch; true when it leaves a [`Stray`].
    pub fn observe(&mut self, event: &Event<KymaBinding>, now: Timestamp) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(HashSet::new());
                self.whole_since = None;
            }
            Event::InitApply(binding) => {
                let uid = uid_of(binding);
                let undecided =
                    !binding.is(Kind::Accepted) && !binding.is(Kind::Stalled) && !binding.is_deleting();
                // In later lists, what is new to us was never anybody else's to decide.
                let unclaimed = undecided && !self.listed && !self.entries.contains_key(&uid);
                let entry = self.record(&uid, binding, true);
                if unclaimed {
                    entry.set_unclaimed(now.checked_add(LONGEST_WRITE).ok());
                }
                // A control plane restored from a backup counts its versions from before.
                entry.written = 0;
                if let Some(listing) = &mut self.listing {
                    listing.insert(uid);
                }
            }
            Event::InitDone => {
                self.listed = true;
                self.whole_since = Some(now);
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<_> =
                    self.entries.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                // What a list no longer has is not cleaned from here: lists can be wrong in ways
                // that single events can't. The sweep looks twice.
                for uid in gone {
                    self.drop_entry(&uid);
                }
            }
            Event::Apply(binding) => {
                // Born under our eyes: whatever is made of it, we shall have made.
                let history_unknown = !self.listed;
                self.record(&uid_of(binding), binding, history_unknown).set_unclaimed(None);
            }
            Event::Delete(binding) => {
                let stray = self.drop_entry(&uid_of(binding));
                let stray = stray.filter(|(_, entry)| entry.touched && !entry.released);
                // Where nobody takes them, the sweep finds what is not kept here.
                if let Some((uid, entry)) = stray.filter(|_| self.strays.len() < MAX_STRAYS) {
                    let record = entry.record.and_then(|record| record.get());
                    let recorded = record.as_ref().map(|record| record.cluster_id.clone());
                    self.strays.push(Stray {
                        name: entry.name.to_string(),
                        uid: uid.to_string(),
                        instance: entry.instance.as_ref().to_owned(),
                        cluster_id: recorded.or_else(|| binding.status.as_ref()?.cluster_id.clone()),
                        record,
                        issued: is_issued(binding),
                        // A token that was made again for a short rest lives the shortest time there is.
                        ends: latest_end(binding).and_then(|ends| {
                            ends.checked_add(SignedDuration::from_secs(MIN_EXPIRATION_SECONDS)).ok()
                        }),
                    });
                }
            }
        }
        match event {
            Event::Init => {}
            Event::InitApply(binding) | Event::Apply(binding) | Event::Delete(binding) => {
                self.wake(&binding.spec.instance_id, now);
            }
            Event::InitDone => {
                for instance in self.lines.instances() {
                    self.wake(&instance, now);
                }
            }
        }
        self.empty_since = self.entries.is_empty().then(|| self.empty_since.unwrap_or(now));
        !self.strays.is_empty()
    }

    /// How good the knowledge of all bindings is.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        Knowledge {
            whole_since: self.whole_since,
            empty_since: self.empty_since,
            bindings: self.entries.len(),
        }
    }

    /// Hands over the strays seen so far.
    pub fn take_strays(&mut self) -> Vec<Stray> {
        std::mem::take(&mut self.strays)
    }

    /// Hands over the names of those who waited for a place and are to be looked at, because what they would be told
    /// has changed.
    pub fn take_woken(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.woken)
    }

    /// Notes who of those that wait at an instance would be told something else by now. What they failed with before
    /// keeps nobody from asking.
    fn wake(&mut self, instance: &str, now: Timestamp) {
        if !self.lines.has(instance) {
            return;
        }
        let told = self.judge(instance, now).into_iter().filter(|(_, verdict)| *verdict != Verdict::Wait);
        let told: Vec<_> = told.map(|(uid, _)| uid).collect();
        for uid in told {
            if let Some(entry) = self.entries.get_mut(&uid) {
                entry.backoff.succeed();
                self.woken.push(entry.name.clone());
            }
        }
    }

    /// What each of those that wait at an instance is told now, in their order.
    fn judge(&self, instance: &str, now: Timestamp) -> Vec<(Id, Verdict)> {
        let waiting = self.lines.of(instance, now);
        let waiting: Vec<_> =
            waiting.filter_map(|waiting| self.entries.get_key_value(&waiting.uid)).collect();
        let wishing = waiting.iter().map(|(uid, entry)| entry.guest(uid, None));
        let verdicts = limit::judge(&self.seated(instance), wishing, self.max, now);
        waiting.iter().map(|(uid, _)| (*uid).clone()).zip(verdicts).collect()
    }

    fn seated(&self, instance: &str) -> Vec<Guest<'_>> {
        let all = self.by_instance.get(instance).into_iter().flatten();
        let all = all.filter_map(|uid| self.entries.get_key_value(uid));
        all.filter_map(|(uid, entry)| Some(entry.guest(uid, entry.seat?))).collect()
    }

    fn record(&mut self, uid: &Id, binding: &KymaBinding, touched: bool) -> &mut Entry {
        let entry = self.entries.entry(uid.clone()).or_insert_with(|| {
            let instance = binding.spec.instance_id.as_str();
            let known = self.by_instance.get_key_value(instance).map(|(instance, _)| instance.clone());
            let instance = known.unwrap_or_else(|| instance.into());
            self.by_instance.entry(instance.clone()).or_default().insert(uid.clone());
            Entry::new(binding, instance, touched)
        });
        // The pin is written by whoever has reached the cluster: a process before, or beside us.
        entry.touched |= binding.status.as_ref().is_some_and(|s| s.cluster_id.is_some());
        if binding.is(Kind::Stalled) {
            entry.seat = None;
        } else if binding.is(Kind::Accepted) {
            entry.seat = Some(binding.expires_at().or_else(|| latest_issue(binding)));
        }
        entry.progress = match () {
            () if binding.is_deleting() => Progress::Removing,
            () if is_issued(binding) => Progress::Issued,
            () => Progress::Making,
        };
        if binding.is(Kind::Stalled) || entry.seat.is_some() || entry.progress == Progress::Removing {
            self.lines.leave(uid, entry);
        }
        entry
    }

    fn drop_entry(&mut self, uid: &Id) -> Option<(Id, Entry)> {
        let (uid, entry) = self.entries.remove_entry(uid)?;
        self.lines.leave(&uid, &entry);
        if let Some(uids) = self.by_instance.get_mut(&entry.instance) {
            uids.remove(&uid);
            if uids.is_empty() {
                self.by_instance.remove(&entry.instance);
            }
        }
        Some((uid, entry))
    }

    /// Whether a whole list was seen.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// What is remembered of a binding; nothing of one that is gone.
    #[must_use]
    pub fn entry(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(&uid.into())
    }

    /// Changes what is remembered of a binding, if it still exists.
    pub fn update(&mut self, uid: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&uid.into()) {
            change(entry);
        }
    }

    /// Names of all bindings of an instance.
    #[must_use]
    pub fn names_of(&self, instance: &str) -> Vec<String> {
        let uids = self.by_instance.get(instance).into_iter().flatten();
        uids.filter_map(|uid| Some(self.entries.get(uid)?.name.to_string())).collect()
    }

    /// Forgets the failures of all bindings of an instance: what they failed for is over.
    pub fn forgive(&mut self, instance: &str) {
        for uid in self.by_instance.get(instance).into_iter().flatten() {
            if let Some(entry) = self.entries.get_mut(uid) {
                entry.backoff.succeed();
            }
        }
    }

    /// Gives a binding a seat at its instance's table, refuses, or has it wait; `until` is when it can't be made any
    /// more. One that has a seat keeps it. Decision and seat are one step under one lock, so two can't take the last
    /// place. Nothing is decided while an acceptance that we don't know of may be under way.
    pub fn admit(&mut self, uid: &str, until: Option<Timestamp>, now: Timestamp) -> Admission {
        let wishing = Id::from(uid);
        let Some(entry) = self.entries.get(&wishing) else { return Admission::Gone };
        if entry.seat.is_some() {
            return Admission::Seated;
        }
        if entry.progress == Progress::Removing {
            return Admission::Gone;
        }
        // In line before anything is decided, so that after a start the order is that of the creation, too.
        let since = self.lines.join(&wishing, entry, until, now);
        let unclaimed = |entry: &Entry| entry.unclaimed().is_some_and(|until| until > now);
        if unclaimed(entry) {
            return Admission::ClaimFirst;
        }
        let instance = entry.instance.clone();
        let mut all = self.by_instance.get(&instance).into_iter().flatten();
        if all.any(|other| self.entries.get(other).is_some_and(unclaimed)) {
            return Admission::ClaimOthers;
        }
        let judged = self.judge(&instance, now);
        let before = judged.iter().take_while(|(uid, _)| *uid != wishing);
        // Who is refused is about to leave the line.
        let behind = before.filter(|(_, verdict)| *verdict != Verdict::Refused).count();
        let told = judged.iter().find(|(uid, _)| *uid == wishing);
        let admission = match told {
            Some((_, Verdict::Place)) => Admission::Seated,
            Some((_, Verdict::Refused)) => Admission::Refused,
            Some((_, Verdict::Wait)) => {
                let seated = self.seated(&instance);
                let next = seated.iter().filter_map(|guest| guest.ends.filter(|ends| *ends > now)).min();
                return Admission::Wait(Wait { held: limit::held(&seated, now), behind, since, next });
            }
            // Its time is over.
            None => Admission::Gone,
        };
        if let Some(entry) = self.entries.get_mut(&wishing) {
            self.lines.leave(&wishing, entry);
            entry.seat = (admission == Admission::Seated).then_some(None);
        }
        // A successor of it may sit beside it from now on.
        self.wake(&instance, now);
        admission
    }

    /// Remembers that we wrote a binding.
    pub fn wrote(&mut self, uid: &str, binding: &KymaBinding) {
        let written = binding.version();
        self.update(uid, |entry| {
            entry.written = entry.written.max(written);
            entry.set_unclaimed(None);
            // The watch may be late, and what is issued keeps its seat longer than what was only accepted.
            if entry.seat.is_some() && is_issued(binding) {
                entry.seat = Some(binding.expires_at());
            }
        });
    }

    /// Whether the object is from before our latest write. Resource versions of one resource
    /// compare as numbers (KEP-5504).
    #[must_use]
    pub fn is_echo(&self, uid: &str, binding: &KymaBinding) -> bool {
        self.entry(uid).is_some_and(|entry| binding.version() < entry.written)
    }
}

/// When a binding that is not issued can't be issued any more; its seat is free from then on, even
/// if a dead cluster keeps the object from going.
fn latest_issue(binding: &KymaBinding) -> Option<Timestamp> {
    let asked = SignedDuration::from_secs(binding.spec.expiration_seconds);
    binding.created_at()?.checked_add(asked + GRACE).ok()
}

fn uid_of(binding: &KymaBinding) -> Id {
    binding.metadata.uid.as_deref().unwrap_or_default().into()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod histories;

#[cfg(test)]
mod two_leaders;
