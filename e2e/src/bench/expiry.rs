//! Many bindings whose time is over in the same second.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kyma_bindings::api::names::{BindingId, MANAGED_BY, MANAGED_BY_VALUE};
use serde_json::json;

use super::arena::{Arena, register};
use super::report::{Line, Target};
use super::stats::Series;

const PART: &str = "expiry";
/// Who makes them.
const CLIENTS: usize = 16;
/// How long after that is waited at most.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many, on how many instances.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Bindings.
    pub bindings: usize,
    /// Instances.
    pub instances: usize,
    /// When they end, from the moment at which all exist.
    pub ahead: SignedDuration,
}

/// Makes them by PUT, brings their ends together, and looks when the role bindings go in the managed
/// cluster. No lifetime is shorter than 10 minutes, so the end in the status is brought forward: the
/// controller goes by it where it is earlier than what it knows otherwise.
///
/// # Errors
/// When one is not made, or not removed in time.
pub async fn run(arena: &Arena, plan: Plan) -> Result<Vec<Line>> {
    let stage = crate::Stage::new(&arena.control, "ends").await?;
    let kubeconfig = arena.kubeconfig(super::arena::Way::Short);
    let instances = register(&stage, "ends", plan.instances, &kubeconfig).await?;
    let operator = arena.operator(&stage, &[]).await?;
    let (osb, bindings) = (operator.osb(), stage.bindings());
    let name = |i: usize| format!("ends-{i}");
    let bind = |i: usize| {
        let (osb, instance) = (&osb, &instances[i % plan.instances]);
        async move {
            let answer = osb.bound(instance, &name(i)).await?;
            anyhow::ensure!(answer.status < 300, "{} {}", answer.status, answer.description());
            Ok(())
        }
    };
    stream::iter(0..plan.bindings).map(bind).buffer_unordered(CLIENTS).try_collect::<()>().await?;

    let ours = format!("{MANAGED_BY}={MANAGED_BY_VALUE}");
    let role_bindings: Api<ClusterRoleBinding> = Api::all(arena.managed.client());
    let list = role_bindings.list(&ListParams::default().labels(&ours).limit(1)).await?;
    let version = list.metadata.resource_version.context("a list without a version")?;
    let mut events = role_bindings.watch(&WatchParams::default().labels(&ours), &version).await?.boxed();
    let mut left = HashSet::new();
    for i in 0..plan.bindings {
        left.insert(BindingId::parse(&name(i))?.object_name());
    }
    // Whole seconds, as those that are granted.
    let ends = Timestamp::from_second((Timestamp::now() + plan.ahead).as_second())?;
    let patch = Patch::Merge(json!({"status": {"expiresAt": ends}}));
    let shorten = |i: usize| {
        let (bindings, patch) = (&bindings, &patch);
        async move { bindings.patch_status(&name(i), &PatchParams::default(), patch).await.map(drop) }
    };
    stream::iter(0..plan.bindings).map(shorten).buffer_unordered(CLIENTS).try_collect::<()>().await?;
    anyhow::ensure!(Timestamp::now() < ends, "the ends could not be brought together in {:#}", plan.ahead);

    let mut lag = Series::default();
    let gone = async {
        while !left.is_empty() {
            match events.try_next().await?.context("the watch of the role bindings ended")? {
                WatchEvent::Deleted(gone) if left.remove(&gone.name_any()) => {
                    lag.push(0, Timestamp::now().duration_since(ends).as_secs_f64());
                }
                WatchEvent::Error(status) => anyhow::bail!("the watch of the role bindings: {status:?}"),
                _ => {}
            }
        }
        Ok(())
    };
    let patience = PATIENCE + Duration::try_from(plan.ahead)?;
    tokio::time::timeout(patience, gone).await.context("some role bindings did not go")??;
    let what = format!("role bindings gone, {} at once on {} instances", plan.bindings, plan.instances);
    let first = lag.figure();
    Ok(vec![
        Line::alone(PART, what, "s", first).shall(Target::P99AtMost(2.0)),
        Line::single(PART, "the first of them", "s", lag.least()),
        Line::single(PART, "the last of them", "s", first.max),
    ])
}
