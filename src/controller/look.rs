//! A look at one binding: gather the facts, decide. Most looks find nothing to do, so nothing here waits for anybody.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::context::Context;
use super::decide::{self, Facts, Step};
use super::queue::Action;
use super::status::{self, Outcome};
use crate::api::binding::KymaBinding;
use crate::api::names::NameError;
use crate::cluster::Owner;
use crate::controller::ledger::backoff::Retry;
use crate::controller::ledger::record::Record;
use crate::instances::ABSENCE;
use crate::instances::state::State;
use crate::support::clock;

/// What a look finds.
pub enum Found {
    /// Nothing to do, and when to look again.
    Rest(Action),
    /// Something to do.
    Act(Box<Plan>),
}

/// What is to be done.
pub struct Plan {
    pub(super) step: Step,
    pub(super) known: Known,
    pub(super) instance: State,
    pub(super) record: Option<Record>,
}

/// What was known when that was decided.
pub(super) struct Known {
    pub(super) owner: Owner,
    pub(super) began: Instant,
    pub(super) now: Timestamp,
    pub(super) retry: Retry,
    /// When the binding's time is up.
    pub(super) ends: Option<Timestamp>,
    /// When to look again though nothing has happened.
    pub(super) again: Option<Timestamp>,
}

/// Looks at a binding.
///
/// # Errors
/// When its name can't name other objects.
pub fn look(binding: &KymaBinding, ctx: &Context) -> Result<Found, NameError> {
    let began = Instant::now();
    let owner = ctx.owner(binding)?;
    let now = clock::now();
    let instance = ctx.instances.state(&binding.spec.instance_id);
    let secret = ctx.secrets.get(&owner.binding, &owner.uid);
    let (touched, doubted, unrevoked, record) = {
        let mut ledger = ctx.ledger.lock();
        ledger.update(&owner.uid, |entry| {
            // What a process before us has written down. What we have seen ourselves goes before it.
            entry.record = entry.record.take().or_else(|| secret.as_ref()?.record.clone());
        });
        // The watch will bring what we wrote, or has just brought the deletion.
        let Some(entry) = ledger.entry(&owner.uid) else { return Ok(Found::Rest(Action::await_change())) };
        if ledger.is_echo(&owner.uid, binding) {
            return Ok(Found::Rest(Action::await_change()));
        }
        (entry.touched, entry.doubted, entry.refusals > 0, entry.record.clone())
    };
    let record = record.and_then(|record| record.get());
    let absence = ctx.instances.absence(&binding.spec.instance_id);
    let facts = Facts {
        binding,
        instance: &instance,
        secret_created: secret.and_then(|s| s.created),
        doubted,
        touched,
        made_on: record.as_ref().map(|record| record.runtime_id.as_str()),
        unrevoked,
        absence,
        bindable: &ctx.settings.bindable_plans,
        lifetimes: ctx.settings.lifetimes,
        now,
    };
    let step = decide::decide(&facts);
    let ends = decide::end(&facts);
    let is_end = matches!(step, Step::Delete(_) | Step::Remove(_));
    let with = decide::circumstances(&step, binding, &instance);
    let retry = Retry { with, end: ends.filter(|_| !is_end) };
    // A try that has just failed is not made again so soon.
    if (is_end || matches!(step, Step::Make(_) | Step::Reject(..) | Step::Repair(_) | Step::Renew(_)))
        && let Some(wait) =
            ctx.ledger.lock().entry(&owner.uid).and_then(|entry| entry.backoff.remaining(&retry.with, now))
    {
        return Ok(Found::Rest(Action::requeue(retry.pause(wait, now))));
    }
    let again = match instance {
        State::Unknown => ends.into_iter().chain([absence.since + ABSENCE]).filter(|t| *t > now).min(),
        _ => ends,
    };
    if let Step::Rest(until) = step {
        return Ok(Found::Rest(rest(until)));
    }
    let keeps = matches!(step, Step::Keep);
    if keeps && status::desired(binding, &Outcome::StillIssued(record.clone()), now).is_none() {
        ctx.ledger.lock().update(&owner.uid, |entry| entry.backoff.succeed());
        return Ok(Found::Rest(rest(again)));
    }
    let known = Known { owner, began, now, retry, ends, again };
    Ok(Found::Act(Box::new(Plan { step, known, instance, record })))
}

/// Nothing until then. Counted from the moment of the answer, so that a slow round makes nothing late.
pub(super) fn rest(until: Option<Timestamp>) -> Action {
    let Some(until) = until else { return Action::await_change() };
    Action::requeue(until.duration_since(clock::now()).try_into().unwrap_or(Duration::ZERO))
}
