//! Bindings that were deleted past our finalizer: revoked at once, from what the watch and the
//! ledger knew of them. The object is gone, so there is no status to write and no Secret's owner.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::cluster::Owner;
use crate::controller::bind::{self, Revoked};
use crate::controller::context::{Context, reason};
use crate::controller::events::Told;
use crate::controller::ledger::Stray;
use crate::controller::ledger::backoff::Backoff;
use crate::support::clock;

/// Most tries under way at once.
const AT_ONCE: usize = 16;

/// Cleans up after strays for ever; `wake` says that the ledger has some.
pub async fn run(ctx: Arc<Context>, wake: &Notify) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // A panic ends one clean-up, and the sweep finds what it left.
    let mut cleaning = JoinSet::new();
    loop {
        for stray in ctx.ledger.lock().take_strays() {
            cleaning.spawn(clean(ctx.clone(), places.clone(), stray));
        }
        tokio::select! {
            () = wake.notified() => {}
            Some(_) = cleaning.join_next() => {}
        }
    }
}

/// Tries until nothing is left, nobody can do anything, or the token has ended anyway.
async fn clean(ctx: Arc<Context>, places: Arc<Semaphore>, stray: Stray) {
    let Ok(owner) = ctx.owner_named(&stray.name, stray.uid.clone()) else { return };
    tracing::warn!(
        binding_id = stray.name,
        instance_id = stray.instance,
        "a binding was deleted without its clean-up: somebody took the finalizer off; cleaning up now"
    );
    let mut backoff = Backoff::default();
    loop {
        let why = {
            // Never closed.
            let _place = places.acquire().await;
            match try_once(&ctx, &stray, &owner).await {
                Ok(end) => {
                    tracing::info!(binding_id = stray.name, instance_id = stray.instance, "{end}");
                    return;
                }
                Err(why) => why,
            }
        };
        let now = clock::now();
        if stray.ends.is_none_or(|ends| ends <= now) {
            tracing::warn!(
                binding_id = stray.name,
                instance_id = stray.instance,
                reason = why,
                "clean-up has not succeeded and the token has ended: the rest is left to the sweep"
            );
            if bind::delete_secret(&ctx, &owner).await.is_err() {
                tracing::warn!(binding_id = stray.name, "its Secret is left, whose token has ended");
            }
            return;
        }
        let wait = backoff.fail(String::new(), now, rand::random());
        tokio::time::sleep(wait).await;
    }
}

/// One try; how it ended, or why it must be made again.
async fn try_once(ctx: &Context, stray: &Stray, owner: &Owner) -> Result<&'static str, &'static str> {
    let instance = ctx.instances.state(&stray.instance);
    let Some((_, kubeconfig)) = instance.reachable() else {
        // When it is back, the sweep of its cluster comes before the next try here.
        if let Some(ends) = stray.ends {
            let cluster = stray.cluster_id.as_deref();
            ctx.abandoned.remember(&stray.uid, &stray.instance, cluster, ends, clock::now());
        }
        return Err("InstanceUnreachable");
    };
    let revoked = bind::revoke_stray(ctx, stray, owner, kubeconfig).await.map_err(|_| "NotLeading")?;
    let gone = match revoked {
        Revoked::Gone => true,
        Revoked::ClusterReplaced => false,
        Revoked::Failed(failure) => return Err(reason(&failure).as_str()),
    };
    // Last, as with any other: on it stands where the access was made.
    bind::delete_secret(ctx, owner).await.map_err(|_| "ControlPlane")?;
    if !gone {
        return Ok("the cluster of a binding without clean-up is gone");
    }
    ctx.metrics.orphans_removed(1);
    let note =
        "somebody took the finalizer off and deleted it; what it had made in the managed cluster was removed";
    ctx.tell_of_gone(owner, Told::Swept, note.to_owned()).await;
    Ok("revoked what a binding without clean-up left")
}
