//! `kyma-bindings cleanup`: removes all bindings of a namespace before the software goes that could do
//! it later. The running operator revokes them; this only asks, waits, and says what is left.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::api::binding::KymaBinding;
use crate::api::names::{FINALIZER, FORGET};
use crate::kubernetes::error::Trouble;
use crate::kubernetes::trial;

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
        "the control plane refused to {action} (HTTP {code}); list, patch and delete on kymabindings must be allowed, which \
         is what 403 is about"
    )]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Status of the answer.
        code: u16,
    },
    /// There is nothing to clean up in.
    #[error("namespace {0} does not exist, so it has no bindings; --namespace must name the operator's")]
    NamespaceMissing(String),
    /// The time is up, and nobody could look.
    #[error("the control plane did not answer, so nothing is known of the bindings; try again when it does")]
    Silent,
    /// Bindings that nobody removes.
    #[error(
        "{} binding(s) are still there: {}. Only a running operator removes them: start it and try again. Or take the \
         finalizer {FINALIZER} off them: then their tokens end by themselves when they expire, and their ServiceAccounts and \
         RBAC stay in the managed clusters. Told to give up their managed cluster: {}", .left.len(), .left.join(", "),
        .forgotten.join(", ")
    )]
    Left {
        /// Their names.
        left: Vec<String>,
        /// Names of those whose managed cluster was given up.
        forgotten: Vec<String>,
    },
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bindings that were there.
    pub removed: usize,
    /// Those whose managed cluster was given up, because they were not removed in time.
    pub forgotten: Vec<String>,
    /// Whether the namespace could not be seen: without a binding in it, it may be missing.
    pub unseen: bool,
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

/// Removes all bindings; those that are still there after `timeout` give up their managed cluster. Ends
/// [`FORGETTING`] later at the latest.
///
/// # Errors
/// When some are left then, or the control plane refuses or is silent.
pub async fn cleanup(client: Client, namespace: &str, timeout: Duration) -> Result<Report, CleanupError> {
    let bindings: Api<KymaBinding> = Api::namespaced(client.clone(), namespace);
    let late = Instant::now() + timeout;
    let mut known = Known::default();
    let ended = tokio::time::timeout_at(late + FORGETTING, known.rounds(&bindings, late)).await;
    let Known { seen, left, forgotten } = known;
    match (ended, left) {
        (Ok(Ok(())), _) => {
            let unseen = seen.is_empty() && !is_there(client, namespace, &bindings).await?;
            Ok(Report { removed: seen.len(), forgotten, unseen })
        }
        (Ok(Err(error)), _) => Err(error),
        (Err(_), None) => Err(CleanupError::Silent),
        (Err(_), Some(left)) => Err(CleanupError::Left { left, forgotten }),
    }
}

/// Whether the namespace is there; false when this account can't tell. A list in one that is missing is empty.
async fn is_there(
    client: Client,
    namespace: &str,
    bindings: &Api<KymaBinding>,
) -> Result<bool, CleanupError> {
    let namespaces: Api<Namespace> = Api::all(client);
    let seen = tokio::time::timeout(DEADLINE, namespaces.get_metadata(namespace)).await;
    match seen.map_or(Err(Trouble::Silent), |seen| seen.map_err(|error| Trouble::of(&error))) {
        Ok(_) => return Ok(true),
        Err(Trouble::NamespaceMissing) => return Err(CleanupError::NamespaceMissing(namespace.to_owned())),
        Err(_) => {}
    }
    // Whoever may create a binding is told, too.
    match tokio::time::timeout(DEADLINE, trial::create(bindings)).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(Trouble::NamespaceMissing)) => Err(CleanupError::NamespaceMissing(namespace.to_owned())),
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

/// What was found out.
#[derive(Default)]
struct Known {
    /// UIDs of all bindings that were there.
    seen: HashSet<String>,
    /// Names of those that were there at the last look, if there was one.
    left: Option<Vec<String>>,
    forgotten: Vec<String>,
}

impl Known {
    /// Looks and does what is needed, until nothing is left.
    async fn rounds(&mut self, bindings: &Api<KymaBinding>, late: Instant) -> Result<(), CleanupError> {
        loop {
            match self.round(bindings, late).await {
                Ok(true) => return Ok(()),
                // Whatever did not come through is tried again.
                Ok(false) | Err(CleanupError::Silent) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// True when nothing is left.
    async fn round(&mut self, bindings: &Api<KymaBinding>, late: Instant) -> Result<bool, CleanupError> {
        let left = list(bindings).await?;
        self.seen.extend(left.iter().filter_map(ResourceExt::uid));
        self.left = Some(left.iter().map(ResourceExt::name_any).collect());
        let changes = left.iter().map(|binding| change(bindings, binding, late));
        let mut changes = stream::iter(changes).buffer_unordered(CHANGES);
        while let Some(forgotten) = changes.next().await {
            self.forgotten.extend(forgotten?);
        }
        Ok(left.is_empty())
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
    late: Instant,
) -> Result<Option<String>, CleanupError> {
    let name = binding.name_any();
    let deleting = binding.metadata.deletion_timestamp.is_some();
    let forgets = binding.annotations().get(FORGET).is_some_and(|value| value == "true");
    match need(deleting, forgets, Instant::now() >= late) {
        Need::Patience => Ok(None),
        Need::Delete => {
            let of_this = Preconditions { uid: binding.uid(), resource_version: None };
            let params = DeleteParams::background().preconditions(of_this);
            bounded("delete a binding", bindings.delete(&name, &params)).await?;
            Ok(None)
        }
        Need::Forget => {
            let patch = json!({"metadata": {"uid": binding.uid(), "annotations": {FORGET: "true"}}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let patched = bindings.patch_metadata(&name, &params, &patch);
            let patched = bounded("annotate a binding", patched).await?;
            Ok(patched.map(|_| name))
        }
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
            // The list has changed under its pages, or there is too much to do.
            410 | 429 | 500.. => Err(CleanupError::Silent),
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
