//! Sweeps managed clusters: each once in an interval, and at once where one has appeared.
//! Lists what carries our marks, removes what belongs to no binding any more, and has bindings
//! looked after that miss something.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::decide::is_issued;
use super::entry::Rules;
use super::events::Told;
use super::plane::PlaneError;
use super::schedule::Schedule;
use super::sweep::{self, Fuse, Refusal, Times};
use super::touched::Touched;
use crate::api::binding::KymaBinding;
use crate::api::conditions::Kind;
use crate::clock;
use crate::instances::state::KubeconfigRef;
use crate::managed::access::{Bound, Left};
use crate::managed::inventory::{Marked, inventory};
use crate::managed::{Cluster, Failure, Owner};

/// Most sweeps under way at once.
const AT_ONCE: usize = 4;
/// Shortest time between the beginnings of two.
const PACE: Duration = Duration::from_millis(50);
/// Longest search for orphans and their removal: the calls have deadlines of their own, but there may be many.
const LONGEST: Duration = Duration::from_mins(1);
/// Longest look at what belongs to bindings; the next sweep goes on from there. Longer than any one call.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// How soon a sweep that failed is repeated while anything abandoned may be found.
const ABANDONED: Duration = Duration::from_secs(5);

/// Why a sweep did not do its work.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the managed cluster failed: {0}")]
    Cluster(#[from] Failure),
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
    /// Of how many bindings what they had left was removed, because they had been given up.
    returned: usize,
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
        match list(&ctx, &instance, kubeconfig).await {
            Err(Stopped::Cluster(failure)) if note(&ctx, &instance, kubeconfig, &failure).await => {
                list(&ctx, &instance, kubeconfig).await
            }
            listed => listed,
        }
    };
    let listed = timeout_at(until, listed).await.unwrap_or(Err(Failure::TimedOut.into()));
    let (swept, looked_at) = match listed {
        Err(stopped) => (Err(stopped), looked_at),
        Ok(listed) => {
            let whole = doubt_others(&ctx, &listed).await;
            let removed = timeout_at(until, remove_orphans(&ctx, &fuse, &listed)).await;
            let removed = removed.unwrap_or(Err(Failure::TimedOut.into()));
            let (looked, looked_at) = look_after(&ctx, &listed.cluster, whole, looked_at).await;
            (removed.and_then(|removed| Ok(looked.map(|()| removed)?)), looked_at)
        }
    };
    if let Err(Stopped::Cluster(failure)) = &swept {
        note(&ctx, &instance, kubeconfig, failure).await;
    }
    Swept { again: say(&ctx, &instance, swept), looked_at }
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
        Err(Stopped::Cluster(_) | Stopped::Plane(_)) => "failed",
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
        Err(error) => {
            tracing::info!(instance_id = instance, "not swept: {error}");
            // A cluster that has just come back may need a moment, and live tokens don't wait.
            let soon = ctx.abandoned.any_of(instance, clock::now());
            return soon.then(|| clock::now().checked_add(ABANDONED).ok()).flatten();
        }
    }
    None
}

/// What is in the cluster. What bindings had left that were given up goes at once, since that is known without the list
/// of bindings.
async fn list(ctx: &Context, instance: &str, kubeconfig: &KubeconfigRef) -> Result<Listed, Stopped> {
    let settled = || sweep::settled(ctx.ledger.lock().knowledge(), times(ctx));
    if !ctx.abandoned.any_of(instance, clock::now()) {
        settled()?;
    }
    let cluster = ctx.clients.get(kubeconfig).await?;
    let issued = issued(ctx, instance, &cluster);
    let namespace = &ctx.settings.managed_namespace;
    let lives = issued.iter().map(|owner| owner.uid.as_str()).collect();
    let found = inventory(&cluster.wire, &ctx.control_plane, &lives, namespace).await?;
    let (abandoned, found) = split_abandoned(ctx, found);
    for marked in &abandoned {
        remove(ctx, &cluster, marked).await?;
        ctx.abandoned.forget(&marked.binding_uid);
        ctx.metrics.orphans_removed(1);
    }
    settled()?;
    Ok(Listed { cluster, issued, found, returned: abandoned.len() })
}

/// How many bindings' leftovers were removed.
async fn remove_orphans(ctx: &Context, fuse: &Mutex<Fuse>, listed: &Listed) -> Result<usize, Stopped> {
    let orphans = orphans(ctx, &listed.found)?;
    for orphan in &orphans {
        // The last word is the control plane's own: a watch can be behind.
        let now = ctx.plane.binding(orphan.binding.as_str()).await?;
        if now.is_some_and(|now| now.metadata.uid.as_ref() == Some(&orphan.binding_uid)) {
            return Err(Refusal::Behind.into());
        }
    }
    let (wished, bindings) = (orphans.len(), ctx.ledger.lock().knowledge().bindings);
    let allowed = fuse.lock().allow(wished, bindings, times(ctx));
    for orphan in orphans.iter().take(allowed) {
        remove(ctx, &listed.cluster, orphan).await?;
        ctx.metrics.orphans_removed(1);
    }
    if allowed < wished {
        ctx.metrics.breaker_tripped();
        tracing::error!(
            left = wished - allowed,
            "a sweep stopped: too much was removed from all clusters in this interval; the rest is left to the next"
        );
    }
    Ok(listed.returned + allowed)
}

/// Sets apart what bindings had left that were given up while nobody could reach this cluster. That they are gone is
/// our own doing, so there is nothing to doubt.
fn split_abandoned(ctx: &Context, found: Vec<Marked>) -> (Vec<Marked>, Vec<Marked>) {
    let ledger = ctx.ledger.lock();
    found.into_iter().partition(|marked| {
        ctx.abandoned.contains(&marked.binding_uid) && ledger.entry(&marked.binding_uid).is_none()
    })
}

/// The bindings of an instance whose kubeconfigs should work in this cluster.
fn issued(ctx: &Context, instance: &str, cluster: &Cluster) -> Vec<Owner> {
    let names = ctx.ledger.lock().names_of(instance);
    let here = |binding: &Arc<KymaBinding>| {
        let pinned = ctx.pin(binding).is_some_and(|pin| pin == cluster.id);
        is_issued(binding) && !binding.is_deleting() && !binding.is(Kind::Stalled) && pinned
    };
    let known = names.iter().filter_map(|name| ctx.mirror.get(name.as_str()).filter(here));
    known.filter_map(|binding| ctx.owner(&binding).ok()).collect()
}

/// Has a binding looked at whose access is not as it was made. What to do about it is decided in the binding's own
/// round, which looks for itself.
async fn doubt(ctx: &Context, owner: &Owner) {
    ctx.ledger.lock().update(&owner.uid, |entry| entry.doubted = true);
    // Nobody listens any more only while the process ends.
    let _ = ctx.look.send(owner.binding.to_string()).await;
}

/// Doubts those that miss an object, which needs no call, and returns the others.
async fn doubt_others<'a>(ctx: &Context, listed: &'a Listed) -> Vec<&'a Owner> {
    let is_whole = |owner: &&Owner| {
        listed.found.iter().any(|marked| {
            marked.binding == owner.binding && marked.binding_uid == owner.uid && marked.is_whole()
        })
    };
    let (whole, others): (Vec<_>, Vec<_>) = listed.issued.iter().partition(is_whole);
    for owner in others {
        doubt(ctx, owner).await;
    }
    whole
}

/// Looks at the role bindings and roles of the bindings, one after the other, as long as there is time. Returns after
/// which one the next sweep goes on, unless this one came to all of them.
async fn look_after(
    ctx: &Context,
    cluster: &Cluster,
    bindings: Vec<&Owner>,
    looked_at: Option<String>,
) -> (Result<(), Failure>, Option<String>) {
    let until = Instant::now() + LONGEST_LOOK;
    let (all, mut last) = (bindings.len(), looked_at);
    let in_turn = sweep::in_turn(bindings, |owner| owner.binding.as_str(), last.as_deref());
    for (number, owner) in in_turn.into_iter().enumerate() {
        let Ok(looked) = timeout_at(until, look_at(ctx, cluster, owner)).await else {
            tracing::info!(looked_at = number, all, "the next sweep looks at the rest");
            return (Ok(()), last);
        };
        // One that fails must not keep those behind it from being looked at.
        last = Some(owner.binding.to_string());
        if looked.is_err() {
            return (looked, last);
        }
    }
    (Ok(()), None)
}

async fn look_at(ctx: &Context, cluster: &Cluster, owner: &Owner) -> Result<(), Failure> {
    let bound = Bound::new(cluster, owner, &ctx.settings.managed_namespace);
    let (intact, changed) = futures::try_join!(bound.is_intact(), bound.is_changed())?;
    if let Some(changed) = changed {
        let rules = if changed { Rules::Changed } else { Rules::AsMade };
        ctx.ledger.lock().update(&owner.uid, |entry| entry.rules = rules);
    }
    if !intact {
        doubt(ctx, owner).await;
    }
    Ok(())
}

/// What is an orphan's, judged by what is known after the cluster was asked.
fn orphans<'a>(ctx: &Context, found: &'a [Marked]) -> Result<Vec<&'a Marked>, Refusal> {
    let ledger = ctx.ledger.lock();
    let lives = |marked: &Marked| {
        let name = marked.binding.as_str().into();
        ledger.entry(&marked.binding_uid).is_some_and(|entry| entry.name == name)
    };
    sweep::judge(found, ledger.knowledge(), lives, times(ctx))
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
    let note =
        "the binding is gone; what it had left in the managed cluster was found by a sweep and removed";
    ctx.tell_of_gone(&owner, Told::Swept, note.to_owned()).await;
    Ok(())
}
