//! `kyma-bindings cleanup`: removes all bindings of a namespace before the software goes that could do
//! it later. The running operator revokes them; this only asks, waits, and says what is left.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::api::binding::KymaBinding;
use crate::api::names::{FINALIZER, FORGET};

/// How long is waited after bindings were told to forget their clusters.
const FORGETTING: Duration = Duration::from_secs(10);
/// How often the bindings are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for one answer of the control plane.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bindings in one answer.
const PAGE: u32 = 500;
/// Changes under way at once.
const CHANGES: usize = 16;

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The bindings can't be listed or changed.
    #[error(
        "the control plane refused to {action} (HTTP {code}): list, patch and delete on kymabindings must be allowed"
    )]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Status of the answer.
        code: u16,
    },
    /// The time is up, and nobody could look.
    #[error("the control plane did not answer, so nothing is known of the bindings; try again when it does")]
    Silent,
    /// Bindings that nobody removes.
    #[error(
        "{} binding(s) are still there: {}. Only a running operator removes them: start it and try again. Or take the \
         finalizer {FINALIZER} off them: then their tokens end by themselves when they expire, and their ServiceAccounts and \
         RBAC stay in the managed clusters", .0.len(), .0.join(", ")
    )]
    Left(Vec<String>),
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bindings that were there.
    pub removed: usize,
    /// Those whose managed cluster was given up, because they were not removed in time.
    pub forgotten: Vec<String>,
}

/// What a binding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Delete,
    Forget,
    Patience,
}

/// What is to be done about a binding that is still there, `late` or in time.
fn need(deleting: bool, forgets: bool, late: bool) -> Need {
    match (deleting, forgets) {
        (false, _) => Need::Delete,
        (true, false) if late => Need::Forget,
        _ => Need::Patience,
    }
}

type Meta = PartialObjectMeta<KymaBinding>;

/// Removes all bindings; those that are still there after `timeout` give up their managed cluster.
///
/// # Errors
/// When some are left [`FORGETTING`] later, or the control plane refuses or is silent.
pub async fn cleanup(client: Client, namespace: &str, timeout: Duration) -> Result<Report, CleanupError> {
    let bindings: Api<KymaBinding> = Api::namespaced(client, namespace);
    let began = Instant::now();
    let mut report = Report::default();
    let mut seen = HashSet::new();
    loop {
        let late = began.elapsed() >= timeout;
        let over = began.elapsed() >= timeout + FORGETTING;
        match list(&bindings).await {
            Ok(left) if left.is_empty() => return Ok(report),
            Ok(left) => {
                seen.extend(left.iter().filter_map(ResourceExt::uid));
                report.removed = seen.len();
                if over {
                    return Err(CleanupError::Left(left.iter().map(ResourceExt::name_any).collect()));
                }
                let changes = left.iter().map(|binding| change(&bindings, binding, late));
                let mut changes = stream::iter(changes).buffer_unordered(CHANGES);
                while let Some(forgotten) = changes.next().await {
                    report.forgotten.extend(forgotten?);
                }
            }
            Err(CleanupError::Silent) if !over => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All bindings; none where there is no such kind.
async fn list(bindings: &Api<KymaBinding>) -> Result<Vec<Meta>, CleanupError> {
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = bounded("list bindings", bindings.list_metadata(&params)).await?;
        let Some(page) = page else { return Ok(all) };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Does what a binding needs; its name when its cluster is given up with that.
async fn change(
    bindings: &Api<KymaBinding>,
    binding: &Meta,
    late: bool,
) -> Result<Option<String>, CleanupError> {
    let name = binding.name_any();
    let (deleting, forgets) =
        (binding.metadata.deletion_timestamp.is_some(), binding.annotations().contains_key(FORGET));
    let done = match need(deleting, forgets, late) {
        Need::Patience => return Ok(None),
        Need::Delete => {
            let of_this = Preconditions { uid: binding.uid(), resource_version: None };
            let params = DeleteParams::background().preconditions(of_this);
            bounded("delete a binding", bindings.delete(&name, &params)).await.map(|_| None)
        }
        Need::Forget => {
            let uid = binding.uid();
            let patch = json!({"metadata": {"uid": uid, "annotations": {FORGET: "true"}}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let patched =
                bounded("annotate a binding", bindings.patch_metadata(&name, &params, &patch)).await;
            patched.map(|patched| patched.map(|_| name))
        }
    };
    // Whatever did not come through is tried again in the next round.
    match done {
        Err(CleanupError::Silent) => Ok(None),
        done => done,
    }
}

/// `None` for what is not there, or is not that one any more.
async fn bounded<T>(
    action: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, CleanupError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            404 | 409 => Ok(None),
            429 | 500.. => Err(CleanupError::Silent),
            code => Err(CleanupError::Refused { action, code }),
        },
        Ok(Err(_)) | Err(_) => Err(CleanupError::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_given_up_only_late_and_once_and_never_before_the_deletion() {
        for late in [false, true] {
            assert_eq!(need(false, false, late), Need::Delete);
            assert_eq!(need(false, true, late), Need::Delete);
            assert_eq!(need(true, true, late), Need::Patience);
        }
        assert_eq!(need(true, false, false), Need::Patience);
        assert_eq!(need(true, false, true), Need::Forget);
    }
}
