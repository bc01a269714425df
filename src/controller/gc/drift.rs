//! The access of bindings that were issued: whether it is still as it was made.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Listed, judge};
use crate::api::binding::KymaBinding;
use crate::api::conditions::Kind;
use crate::cluster::access::Bound;
use crate::cluster::{Cluster, Failure, Owner};
use crate::controller::context::Context;
use crate::controller::decide::is_issued;
use crate::controller::ledger::entry::Rules;

/// Longest look at what belongs to bindings; the next sweep goes on from there. Longer than any one call.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// The bindings of an instance whose kubeconfigs should work in this cluster.
pub(super) fn issued(ctx: &Context, instance: &str, cluster: &Cluster) -> Vec<Owner> {
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
pub(super) async fn doubt_others<'a>(ctx: &Context, listed: &'a Listed) -> Vec<&'a Owner> {
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
pub(super) async fn look_after(
    ctx: &Context,
    cluster: &Cluster,
    bindings: Vec<&Owner>,
    looked_at: Option<String>,
) -> (Result<(), Failure>, Option<String>) {
    let until = Instant::now() + LONGEST_LOOK;
    let (all, mut last) = (bindings.len(), looked_at);
    let in_turn = judge::in_turn(bindings, |owner| owner.binding.as_str(), last.as_deref());
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
