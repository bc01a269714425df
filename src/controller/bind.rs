//! Making what a binding needs, and removing it. Level-based: every step may have been done
//! before, and a process that ends between any two leaves nothing that the next one doesn't
//! finish or remove.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::context::Context;
use super::decide::{is_issued, latest_end};
use super::ledger::Stray;
use super::status::{Issue, Pin};
use crate::api::binding::{KymaBinding, MIN_EXPIRATION_SECONDS};
use crate::api::secret;
use crate::cluster::access::{Bound, Left};
use crate::cluster::error::Missing;
use crate::cluster::repair::Repair;
use crate::cluster::{Failure, Grant, Owner};
use crate::controller::ledger::entry::{Rights, Rules};
use crate::controller::ledger::record::{Record, Remembered};
use crate::controller::writer::PlaneError;
use crate::instances::state::{KubeconfigRef, Target};
use crate::support::clock;
use crate::support::secret::SecretString;

/// How making a binding went.
pub enum Made {
    /// The Secret holds a working kubeconfig.
    Issued(Issue),
    /// The managed cluster failed; which one it was, if it told.
    Failed(Failure, Option<Pin>),
    /// A Secret of our name in the control plane isn't ours.
    ForeignSecret,
    /// The instance has another cluster than the one that the binding is pinned to.
    ClusterReplaced,
    /// Somebody deleted or finished the binding meanwhile: decide anew.
    Overtaken,
}

/// How removing went in the managed cluster.
pub enum Revoked {
    /// Nothing of the binding is left there.
    Gone,
    /// The managed cluster failed.
    Failed(Failure),
    /// The instance has another cluster than the one that the binding was made on.
    ClusterReplaced,
}

/// For how long a kubeconfig is made.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Lifetime to ask the managed cluster for.
    seconds: i64,
    /// When nothing is issued any more.
    ends: Option<Timestamp>,
    /// Whether it takes the place of one that was issued, and ends when that would have ended.
    again: bool,
}

impl Terms {
    /// Of a binding that has none yet, whose own time ends then.
    #[must_use]
    pub fn first(binding: &KymaBinding, ends: Option<Timestamp>) -> Self {
        Self { seconds: binding.spec.expiration_seconds, ends, again: false }
    }

    /// Of a binding whose Secret is gone, for the time that is left. An API server grants no token
    /// of less than 10 minutes; one that lives longer than its binding has no rights any more,
    /// since the role binding goes with the binding. A moment is added for what rounding takes.
    #[must_use]
    pub fn again(ends: Option<Timestamp>, now: Timestamp) -> Self {
        let left = ends.map_or(0, |ends| ends.duration_since(now).as_secs() + 2);
        Self { seconds: left.max(MIN_EXPIRATION_SECONDS), ends, again: true }
    }

    /// What the kubeconfig and its Secret say, and the status with them.
    fn expiry(&self, granted: Timestamp) -> Timestamp {
        self.ends.filter(|_| self.again).map_or(granted, |ends| ends.min(granted))
    }
}

/// Makes `ServiceAccount`, RBAC, token and Secret, unless the terms' end has come meanwhile.
///
/// # Errors
/// When the control plane fails.
pub async fn make(
    ctx: &Context,
    binding: &KymaBinding,
    owner: &Owner,
    target: &Target,
    terms: Terms,
) -> Result<Made, PlaneError> {
    if terms.again {
        // The watch may only be behind.
        match ctx.plane.find_secret(&owner.binding.object_name()).await? {
            None => {}
            Some(found) if secret::is_ours(&found, &owner.uid) => return Ok(Made::Overtaken),
            Some(_) => return Ok(Made::ForeignSecret),
        }
    }
    let Some(kubeconfig) = &target.kubeconfig else {
        return Ok(Made::Failed(Missing::Secret(target.runtime_id.clone()).into(), None));
    };
    ctx.plane.check_leading("make a binding")?;
    let mut pin = None;
    let began = Instant::now();
    let mut granted = grant(ctx, binding, owner, target, kubeconfig, terms, &mut pin).await;
    if ctx.note(&binding.spec.instance_id, kubeconfig, &granted).await {
        granted = grant(ctx, binding, owner, target, kubeconfig, terms, &mut pin).await;
        ctx.note(&binding.spec.instance_id, kubeconfig, &granted).await;
    }
    let (Granted { text, record, token }, pin) = match (granted, pin) {
        (Ok(Some(granted)), Some(pin)) => (granted, pin),
        (Ok(_), _) => return Ok(Made::ClusterReplaced),
        (Err(failure), pin) => return Ok(Made::Failed(failure, pin)),
    };
    ctx.metrics.bind_phase("rbac", began.elapsed().saturating_sub(token));
    ctx.metrics.bind_phase("token", token);
    let latest = ctx.mirror.get(binding.name_any().as_str());
    let Some(latest) = latest.filter(|latest| latest.uid() == binding.uid()) else {
        // Deleted past our finalizer while this was made, so whoever cleans up may have been faster
        // than we. What can't be removed now is left to the sweep.
        revoke(ctx, binding, owner, kubeconfig).await?;
        return Ok(Made::Overtaken);
    };
    if latest.is_deleting() {
        return Ok(Made::Overtaken);
    }
    let now = clock::now();
    // Past its own time nothing is issued any more: its seat may be somebody else's.
    if terms.ends.is_some_and(|ends| ends <= now) {
        return Ok(Made::Overtaken);
    }
    let expires_at = record.expires_at;
    let mut secret = secret::secret(binding, &owner.binding, owner.labels(), &text, now, expires_at);
    secret.metadata.annotations = record.annotations().ok();
    let began = Instant::now();
    let stored = store(ctx, binding, owner, &secret, terms).await;
    secret::wipe(&mut secret);
    let stored = stored?;
    ctx.metrics.bind_phase("secret", began.elapsed());
    match stored {
        Stored::Yes => Ok(Made::Issued(Issue { expires_at, pin, secret: owner.binding.object_name() })),
        Stored::Overtaken => Ok(Made::Overtaken),
        Stored::Foreign => Ok(Made::ForeignSecret),
    }
}

struct Granted {
    text: SecretString,
    record: Record,
    /// How long the token took.
    token: Duration,
}

/// One try in the managed cluster; `None` when it is another one than the binding is pinned to.
/// `pin` says which one it is as soon as that is known.
async fn grant(
    ctx: &Context,
    binding: &KymaBinding,
    owner: &Owner,
    target: &Target,
    kubeconfig: &KubeconfigRef,
    terms: Terms,
    pin: &mut Option<Pin>,
) -> Result<Option<Granted>, Failure> {
    let cluster = ctx.clients.get(kubeconfig).await?;
    if ctx.pin(binding).is_some_and(|pin| pin != cluster.id) {
        return Ok(None);
    }
    *pin = Some(Pin { runtime_id: target.runtime_id.clone(), cluster_id: cluster.id.clone() });
    // From here on there may be something in the managed cluster.
    ctx.ledger.lock().update(&owner.uid, |entry| entry.touched = true);
    let bound = Bound::new(&cluster, owner, &ctx.settings.managed_namespace);
    let Grant { token, expires_at, uids, took } = bound.grant(terms.seconds, clock::now()).await?;
    let expires_at = terms.expiry(expires_at);
    let record =
        Record { runtime_id: target.runtime_id.clone(), cluster_id: cluster.id.clone(), expires_at, uids };
    ctx.ledger.lock().update(&owner.uid, |entry| entry.record = Remembered::of(&record));
    let text = cluster.access.kubeconfig(&target.cluster_name, &token, expires_at)?;
    Ok(Some(Granted { text, record, token: took }))
}

enum Stored {
    Yes,
    Overtaken,
    Foreign,
}

/// Writes the Secret. One of ours that is there was left by a process that ended before it wrote
/// the status; nobody was told of it, so it is replaced.
async fn store(
    ctx: &Context,
    binding: &KymaBinding,
    owner: &Owner,
    secret: &Secret,
    terms: Terms,
) -> Result<Stored, PlaneError> {
    match ctx.plane.create_secret(secret).await {
        Err(PlaneError::Exists(_)) => {}
        done => return done.map(|()| Stored::Yes),
    }
    let now = ctx.plane.binding(&binding.name_any()).await?;
    // One that was there when another was to take its place is the one that was missed.
    if terms.again || now.is_none_or(|now| now.uid() != binding.uid() || now.is_deleting() || is_issued(&now))
    {
        return Ok(Stored::Overtaken);
    }
    let name = owner.binding.object_name();
    if let Some(found) = ctx.plane.find_secret(&name).await? {
        if !secret::is_of_some_binding(&found) {
            return Ok(Stored::Foreign);
        }
        ctx.plane.delete_secret(&name, &found.uid.unwrap_or_default()).await?;
    }
    ctx.plane.create_secret(secret).await.map(|()| Stored::Yes)
}

/// Looks at the access of a binding that was issued, and repairs what can be. `None` when the
/// cluster is another one than the binding is pinned to.
///
/// # Errors
/// When this process no longer leads; what the managed cluster fails with is in the result.
pub async fn repair(
    ctx: &Context,
    binding: &KymaBinding,
    owner: &Owner,
    kubeconfig: &KubeconfigRef,
) -> Result<Result<Option<Repair>, Failure>, PlaneError> {
    ctx.plane.check_leading("repair a binding")?;
    let uids = ctx.record(&owner.uid).map(|record| record.uids).unwrap_or_default();
    let changed = ctx.ledger.lock().entry(&owner.uid).is_some_and(|entry| entry.rules == Rules::Changed);
    let pin = ctx.pin(binding);
    let once = async || {
        let cluster = ctx.clients.get(kubeconfig).await?;
        if pin.as_ref().is_some_and(|pin| *pin != cluster.id) {
            return Ok(None);
        }
        Bound::new(&cluster, owner, &ctx.settings.managed_namespace).repair(&uids, changed).await.map(Some)
    };
    let mut repaired = once().await;
    if ctx.note(&binding.spec.instance_id, kubeconfig, &repaired).await {
        repaired = once().await;
        ctx.note(&binding.spec.instance_id, kubeconfig, &repaired).await;
    }
    let latest = ctx.mirror.get(binding.name_any().as_str());
    if latest.is_none_or(|latest| latest.uid() != binding.uid()) {
        // Deleted past our finalizer meanwhile: what was made again belongs to nobody.
        revoke(ctx, binding, owner, kubeconfig).await?;
    }
    Ok(repaired)
}

/// Removes the binding's objects from the managed cluster and sees them gone.
///
/// # Errors
/// When this process no longer leads.
pub async fn revoke(
    ctx: &Context,
    binding: &KymaBinding,
    owner: &Owner,
    kubeconfig: &KubeconfigRef,
) -> Result<Revoked, PlaneError> {
    let made = Access {
        pin: ctx.pin(binding),
        left: Left {
            uids: ctx.record(&owner.uid).map(|record| record.uids).unwrap_or_default(),
            handed_out: is_issued(binding) && alive(latest_end(binding)),
            disarmed: ctx.ledger.lock().entry(&owner.uid).is_some_and(|entry| entry.rights == Rights::Taken),
        },
    };
    revoke_pinned(ctx, &binding.spec.instance_id, &made, owner, kubeconfig).await
}

/// The same for a binding that is gone already.
///
/// # Errors
/// When this process no longer leads.
pub async fn revoke_stray(
    ctx: &Context,
    stray: &Stray,
    owner: &Owner,
    kubeconfig: &KubeconfigRef,
) -> Result<Revoked, PlaneError> {
    let made = Access {
        pin: stray.cluster_id.clone(),
        left: Left {
            uids: stray.record.as_ref().map(|record| record.uids.clone()).unwrap_or_default(),
            handed_out: stray.issued && alive(stray.ends),
            disarmed: false,
        },
    };
    revoke_pinned(ctx, &stray.instance, &made, owner, kubeconfig).await
}

/// Whether a token that ends then may still be alive.
fn alive(ends: Option<Timestamp>) -> bool {
    ends.is_some_and(|ends| ends > clock::now())
}

/// What is to be removed, and from which cluster, if that is known.
struct Access {
    pin: Option<String>,
    left: Left,
}

async fn revoke_pinned(
    ctx: &Context,
    instance: &str,
    made: &Access,
    owner: &Owner,
    kubeconfig: &KubeconfigRef,
) -> Result<Revoked, PlaneError> {
    ctx.plane.check_leading("revoke a binding")?;
    let mut revoked = revoke_once(ctx, made, owner, kubeconfig).await;
    if ctx.note(instance, kubeconfig, &revoked).await {
        revoked = revoke_once(ctx, made, owner, kubeconfig).await;
        ctx.note(instance, kubeconfig, &revoked).await;
    }
    Ok(match revoked {
        Ok(true) => Revoked::Gone,
        Ok(false) => Revoked::ClusterReplaced,
        Err(failure) => Revoked::Failed(failure),
    })
}

/// One try; false when the cluster is another one than the binding is pinned to.
async fn revoke_once(
    ctx: &Context,
    made: &Access,
    owner: &Owner,
    kubeconfig: &KubeconfigRef,
) -> Result<bool, Failure> {
    let cluster = ctx.clients.get(kubeconfig).await?;
    if made.pin.as_ref().is_some_and(|pin| *pin != cluster.id) {
        return Ok(false);
    }
    Bound::new(&cluster, owner, &ctx.settings.managed_namespace).revoke(&made.left).await?;
    Ok(true)
}

/// Whether the control plane has the binding's Secret, whatever the watch says.
///
/// # Errors
/// When the control plane fails.
pub async fn has_secret(ctx: &Context, owner: &Owner) -> Result<bool, PlaneError> {
    let found = ctx.plane.find_secret(&owner.binding.object_name()).await?;
    Ok(found.is_some_and(|found| secret::is_ours(&found, &owner.uid)))
}

/// Deletes the binding's Secret, if it is ours.
///
/// # Errors
/// When the control plane fails.
pub async fn delete_secret(ctx: &Context, owner: &Owner) -> Result<(), PlaneError> {
    let name = owner.binding.object_name();
    let uid = if let Some(seen) = ctx.secrets.get(&owner.binding, &owner.uid) {
        Some(seen.uid.to_string())
    } else {
        let found = ctx.plane.find_secret(&name).await?;
        found.filter(|meta| secret::is_ours(meta, &owner.uid)).and_then(|meta| meta.uid)
    };
    match uid {
        Some(uid) => ctx.plane.delete_secret(&name, &uid).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_again_ends_when_the_first_would_have_ended() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let short = Terms::again(Some(at(1100)), at(1000));
        assert_eq!(short.seconds, 600, "the shortest that is granted");
        assert_eq!(short.expiry(at(1600)), at(1100));
        let long = Terms::again(Some(at(4000)), at(1000));
        assert_eq!(long.seconds, 3002);
        assert_eq!(long.expiry(at(4001)), at(4000));
        assert_eq!(long.expiry(at(3900)), at(3900), "a cluster may grant less");
    }
}
