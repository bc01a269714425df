//! Sweeps managed clusters: each once in an interval, and at once where one has appeared.
//! Lists what carries our marks, removes what belongs to no binding any more, and has bindings
//! looked after that miss something.

pub mod bypass;
mod drift;
pub mod judge;
pub mod schedule;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::events::Told;
use crate::api::id::Id;
use crate::cluster::access::{Bound, Left};
use crate::cluster::inventory::{Marked, inventory};
use crate::cluster::{Cluster, Failure, Owner};
use crate::controller::dirty::Touched;
use crate::controller::gc::judge::{Fuse, Refusal, Times};
use crate::controller::gc::schedule::Schedule;
use crate::controller::writer::PlaneError;
use crate::instances::state::KubeconfigRef;
use crate::support::clock;

/// Most sweeps under way at once.
const AT_ONCE: usize = 4;
/// Shortest time between the beginnings of two.
const PACE: Duration = Duration::from_millis(50);
/// Longest search for orphans and their removal: the calls have deadlines of their own, but there may be many.
const LONGEST: Duration = Duration::from_mins(1);

/// How soon a sweep is repeated while anything abandoned may be found: live tokens don't wait.
const ABANDONED: Duration = Duration::from_secs(5);

/// Why a sweep did not do its work.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the managed cluster failed: {0}")]
    Cluster(#[from] Failure),
    /// Each call has ended in time, so it says nothing of the cluster.
    #[error("it was not done after {} s; the next sweep begins anew", LONGEST.as_secs())]
    OutOfTime,
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Sweeps for ever; told of instances that may have changed. Instances and bindings must be known when it begins.
pub async fn run(ctx: Arc<Context>, changes: &Touched) {
    let interval = SignedDuration::try_from(ctx.settings.sweep_interval).unwrap_or(SignedDuration::MAX);
    let mut schedule = Schedule::new(interval);
    for instance in ctx.instances.all() {
        schedule.place(&instance, cluster_of(&ctx, &instance), clock::now());
    }
    let fuse = Arc::new(Mutex::new(Fuse::default()));
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeps = JoinSet::new();
    loop {
        for instance in changes.take().iter().map(ToString::to_string) {
            schedule.changed(&instance, cluster_of(&ctx, &instance), clock::now());
        }
        while sweeps.len() < AT_ONCE {
            let Some(instance) = schedule.take(clock::now()) else { break };
            pace.tick().await;
            let turn = sweep(ctx.clone(), fuse.clone(), instance.clone(), schedule.looked_at(&instance));
            let sweep = AbortOnDropHandle::new(tokio::spawn(turn));
            // A panic ends that one sweep alone.
            sweeps.spawn(async move { (instance, sweep.await.unwrap_or_default()) });
        }
        let next = if sweeps.len() < AT_ONCE { schedule.next() } else { None };
        tokio::select! {
            () = changes.told() => {}
            Some(done) = sweeps.join_next() => if let Ok((instance, Swept { again, looked_at })) = done {
                schedule.done(&instance, again, looked_at);
            },
            () = until(next) => {}
        }
    }
}

async fn until(next: Option<Timestamp>) {
    let Some(next) = next else { return std::future::pending().await };
    tokio::time::sleep(next.duration_since(clock::now()).try_into().unwrap_or_default()).await;
}

/// Which cluster an instance has, if it can be reached.
fn cluster_of(ctx: &Context, instance: &str) -> Option<String> {
    ctx.instances.state(instance).reachable().map(|(target, _)| target.runtime_id.clone())
}

/// How a sweep ended.
#[derive(Default)]
struct Swept {
    /// When to look again sooner than in an interval.
    again: Option<Timestamp>,
    /// After which binding the next one goes on.
    looked_at: Option<String>,
}

/// What a sweep found in one cluster.
struct Listed {
    cluster: Arc<Cluster>,
    /// Bindings that were issued before the cluster was asked, so they must be in its answer.
    issued: Vec<Owner>,
    found: Vec<Marked>,
    /// When the cluster was asked.
    asked: Timestamp,
    /// Of which bindings it had something then.
    uids: HashSet<Id>,
    /// Of how many bindings what they had left was removed, because they had been given up.
    returned: usize,
    /// Why not all of that was.
    kept: Result<(), Stopped>,
}

/// One sweep, counted and said: orphans first, however much there is to look at beside them.
async fn sweep(
    ctx: Arc<Context>,
    fuse: Arc<Mutex<Fuse>>,
    instance: String,
    looked_at: Option<String>,
) -> Swept {
    let state = ctx.instances.state(&instance);
    let Some((_, kubeconfig)) = state.reachable() else { return Swept::default() };
    let until = Instant::now() + LONGEST;
    let listed = async {
        match list(&ctx, &instance, kubeconfig, until).await {
            Err(Stopped::Cluster(failure)) if note(&ctx, &instance, kubeconfig, &failure).await => {
                list(&ctx, &instance, kubeconfig, until).await
            }
            listed => listed,
        }
    };
    let (swept, looked_at, abandoned) = match listed.await {
        Err(stopped) => (Err(stopped), looked_at, ctx.abandoned.any_of(&instance, clock::now())),
        Ok(listed) => {
            let whole = drift::doubt_others(&ctx, &listed).await;
            let removed = remove_orphans(&ctx, &fuse, &listed, until).await;
            let (looked, looked_at) = drift::look_after(&ctx, &listed.cluster, whole, looked_at).await;
            let abandoned = settle_abandoned(&ctx, &instance, &listed);
            let swept = listed.kept.and(removed).and_then(|removed| Ok(looked.map(|()| removed)?));
            (swept, looked_at, abandoned)
        }
    };
    if let Err(Stopped::Cluster(failure)) = &swept {
        note(&ctx, &instance, kubeconfig, failure).await;
    }
    let soon = abandoned.then(|| clock::now().checked_add(ABANDONED).ok()).flatten();
    let again = say(&ctx, &instance, swept).into_iter().chain(soon).min();
    Swept { again, looked_at }
}

/// Whether this cluster may hold something abandoned still: where an object of it was there to the last, a sweep has left
/// it to the binding's own round, which may have given it up meanwhile.
fn settle_abandoned(ctx: &Context, instance: &str, listed: &Listed) -> bool {
    let ledger = ctx.ledger.lock();
    let remains = |uid: &Id| listed.uids.contains(uid) || ledger.entry(&uid.to_string()).is_some();
    ctx.abandoned.settle((instance, &listed.cluster.id), listed.asked, remains, clock::now())
}

/// Takes note of a cluster's failure; true when it is worth another try at once.
async fn note(ctx: &Context, instance: &str, kubeconfig: &KubeconfigRef, failure: &Failure) -> bool {
    ctx.note::<()>(instance, kubeconfig, &Err(failure.clone())).await
}

/// Counts and says how a sweep went; returns when to look again sooner than in an interval.
fn say(ctx: &Context, instance: &str, swept: Result<usize, Stopped>) -> Option<Timestamp> {
    let result = match &swept {
        Ok(0) => "clean",
        Ok(_) => "removed",
        Err(Stopped::Refused(_)) => "refused",
        Err(Stopped::Cluster(_) | Stopped::OutOfTime | Stopped::Plane(_)) => "failed",
    };
    ctx.metrics.swept(result);
    match swept {
        Ok(0) => tracing::debug!(instance_id = instance, "swept; nothing is left over"),
        Ok(removed) => tracing::info!(
            instance_id = instance,
            removed,
            "swept: removed what bindings that no longer exist had left"
        ),
        Err(Stopped::Refused(why @ Refusal::TooMany { .. })) => {
            ctx.metrics.breaker_tripped();
            tracing::error!(instance_id = instance, "sweep stopped: {why}");
        }
        Err(Stopped::Refused(why)) => {
            tracing::info!(instance_id = instance, "not swept: {why}");
            let soon = matches!(why, Refusal::NotListed | Refusal::JustListed | Refusal::Behind);
            return soon.then(|| clock::now().checked_add(ctx.settings.young).ok()).flatten();
        }
        Err(error) => tracing::info!(instance_id = instance, "not swept to the end: {error}"),
    }
    None
}

/// What is in the cluster. What bindings had left that were given up goes at once, since that is known without the list
/// of bindings.
async fn list(
    ctx: &Context,
    instance: &str,
    kubeconfig: &KubeconfigRef,
    until: Instant,
) -> Result<Listed, Stopped> {
    let settled = || judge::settled(ctx.ledger.lock().knowledge(), times(ctx));
    if !ctx.abandoned.any_of(instance, clock::now()) {
        settled()?;
    }
    let asked = clock::now();
    let ask = async {
        let cluster = ctx.clients.get(kubeconfig).await?;
        let issued = drift::issued(ctx, instance, &cluster);
        let namespace = &ctx.settings.managed_namespace;
        let lives = issued.iter().map(|owner| owner.uid.as_str()).collect();
        let found = inventory(&cluster.wire, &ctx.control_plane, &lives, namespace).await?;
        Ok::<_, Failure>((cluster, issued, found))
    };
    let (cluster, issued, found) = timeout_at(until, ask).await.map_err(|_| Stopped::OutOfTime)??;
    let uids = found.iter().map(|marked| marked.binding_uid.as_str().into()).collect();
    let (abandoned, found) = split_abandoned(ctx, found);
    let (returned, kept) = each(&abandoned, until, |marked| remove(ctx, &cluster, marked)).await;
    if let Err(refusal) = settled() {
        kept?;
        return Err(refusal.into());
    }
    Ok(Listed { cluster, issued, found, asked, uids, returned, kept })
}

/// Does it for one after the other while there is time. One that fails doesn't keep those behind it from their turn.
/// Returns for how many it was done, and why it wasn't for the first of the others.
async fn each<'a, T, D>(
    all: impl IntoIterator<Item = &'a T>,
    until: Instant,
    act: impl Fn(&'a T) -> D,
) -> (usize, Result<(), Stopped>)
where
    T: 'a,
    D: Future<Output = Result<(), Failure>>,
{
    let (mut done, mut first) = (0, Ok(()));
    for one in all {
        match timeout_at(until, act(one)).await {
            Ok(Ok(())) => done += 1,
            Ok(Err(failure)) => first = first.and(Err(failure.into())),
            Err(_) => return (done, first.and(Err(Stopped::OutOfTime))),
        }
    }
    (done, first)
}

/// How many bindings' leftovers were removed.
async fn remove_orphans(
    ctx: &Context,
    fuse: &Mutex<Fuse>,
    listed: &Listed,
    until: Instant,
) -> Result<usize, Stopped> {
    let orphans = orphans(ctx, &listed.found)?;
    for orphan in &orphans {
        // The last word is the control plane's own: a watch can be behind.
        let now = timeout_at(until, ctx.plane.binding(orphan.binding.as_str())).await;
        let now = now.map_err(|_| Stopped::OutOfTime)??;
        if now.is_some_and(|now| now.metadata.uid.as_ref() == Some(&orphan.binding_uid)) {
            return Err(Refusal::Behind.into());
        }
    }
    let (wished, bindings) = (orphans.len(), ctx.ledger.lock().knowledge().bindings);
    let allowed = fuse.lock().allow(wished, bindings, times(ctx));
    let allowed_orphans: Vec<&Marked> = orphans.into_iter().take(allowed).collect();
    let (removed, kept) = each(allowed_orphans, until, |orphan| remove(ctx, &listed.cluster, orphan)).await;
    if allowed < wished {
        ctx.metrics.breaker_tripped();
        tracing::error!(
            left = wished - allowed,
            "a sweep stopped: too much was removed from all clusters in this interval; the rest is left to the next"
        );
    }
    kept.map(|()| listed.returned + removed)
}

/// Sets apart what bindings had left that were given up while nobody could reach this cluster. That they are gone is
/// our own doing, so there is nothing to doubt.
fn split_abandoned(ctx: &Context, found: Vec<Marked>) -> (Vec<Marked>, Vec<Marked>) {
    let ledger = ctx.ledger.lock();
    found.into_iter().partition(|marked| {
        ctx.abandoned.contains(&marked.binding_uid, clock::now())
            && ledger.entry(&marked.binding_uid).is_none()
    })
}

/// What is an orphan's, judged by what is known after the cluster was asked.
fn orphans<'a>(ctx: &Context, found: &'a [Marked]) -> Result<Vec<&'a Marked>, Refusal> {
    let ledger = ctx.ledger.lock();
    let lives = |marked: &Marked| {
        let name = marked.binding.as_str().into();
        ledger.entry(&marked.binding_uid).is_some_and(|entry| entry.name == name)
    };
    judge::judge(found, ledger.knowledge(), lives, times(ctx))
}

fn times(ctx: &Context) -> Times {
    let signed = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    Times {
        young: signed(ctx.settings.young),
        interval: signed(ctx.settings.sweep_interval),
        now: clock::now(),
    }
}

async fn remove(ctx: &Context, cluster: &Cluster, orphan: &Marked) -> Result<(), Failure> {
    let owner = Owner {
        binding: orphan.binding.clone(),
        uid: orphan.binding_uid.clone(),
        control_plane: ctx.control_plane.clone(),
    };
    tracing::info!(binding_id = %orphan.binding, "removing what a binding that no longer exists has left");
    let left = Left { uids: orphan.uids.clone(), ..Left::default() };
    Bound::new(cluster, &owner, &ctx.settings.managed_namespace).revoke(&left).await?;
    ctx.abandoned.forget(&orphan.binding_uid);
    ctx.metrics.orphans_removed(1);
    let note =
        "the binding is gone; what it had left in the managed cluster was found by a sweep and removed";
    ctx.tell_of_gone(&owner, Told::Swept, note.to_owned()).await;
    Ok(())
}

#[cfg(test)]
mod tests;
