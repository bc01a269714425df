//! Whether a `KymaBinding` could be made at this moment: one is created as a dry run, again and again.
//!
//! It is the only question that tells whether the namespace is there with no more rights than bindings need: a list of
//! what is in none is empty, and a watch of it waits.

use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use kube::{Client, Resource as _};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::binding::KymaBinding;
use crate::kubernetes::error::Trouble;
use crate::support::grace::Lasting;

/// How often it is asked while all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same while it isn't.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks, and remembers.
pub struct Trial {
    client: Client,
    bindings: Api<KymaBinding>,
    namespace: String,
    lasting: Mutex<Lasting<Trouble>>,
}

impl Trial {
    /// Of that namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        let bindings = Api::namespaced(client.clone(), namespace);
        Self { client, bindings, namespace: namespace.to_owned(), lasting: Mutex::default() }
    }

    /// Asks for ever.
    pub async fn run(&self) {
        loop {
            let went = tokio::time::timeout(DEADLINE, create(&self.bindings)).await;
            let mut trouble = judge(went.unwrap_or(Err(Trouble::Silent)));
            // What admission refuses may be this one alone; who lacks the right can make none.
            if trouble == Some(Trouble::Refused(403)) && self.may_create().await {
                trouble = None;
            }
            let news = self.lasting.lock().note(trouble.map_or(Ok(()), Err), Instant::now());
            match trouble {
                Some(trouble) if news => {
                    tracing::warn!(why = self.say(trouble), "no binding could be made at this moment");
                }
                None if news => tracing::info!("bindings can be made again"),
                _ => {}
            }
            tokio::time::sleep(if trouble.is_some() { AGAIN } else { INTERVAL }).await;
        }
    }

    /// Why no binding can be made, when that has lasted, or is not known yet.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let lasting = self.lasting.lock();
        if !lasting.is_asked() {
            return Some("it was not asked yet whether bindings can be made".to_owned());
        }
        lasting.counts(Instant::now()).map(|trouble| self.say(trouble))
    }

    /// Whether RBAC lets us; where that can't be learned, it may be so.
    async fn may_create(&self) -> bool {
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            verb: Some("create".to_owned()),
            group: Some(KymaBinding::group(&()).into_owned()),
            resource: Some(KymaBinding::plural(&()).into_owned()),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        match tokio::time::timeout(DEADLINE, reviews.create(&params, &review)).await {
            Ok(Ok(answer)) => answer.status.is_none_or(|status| status.allowed),
            Ok(Err(_)) | Err(_) => true,
        }
    }

    fn say(&self, trouble: Trouble) -> String {
        let namespace = &self.namespace;
        match trouble {
            Trouble::NamespaceMissing => format!(
                "namespace {namespace} does not exist; create it, or let --namespace name the right one"
            ),
            Trouble::NamespaceTerminating => {
                format!("namespace {namespace} is being deleted; create it again when it is gone")
            }
            Trouble::Refused(404) => format!(
                "{} are not served; install the CRD: kyma-bindings crd | kubectl apply --server-side -f -",
                KymaBinding::plural(&())
            ),
            Trouble::Refused(403) => format!(
                "'create' on {} in namespace {namespace} is forbidden (HTTP 403); a Role there must allow it, as \
                 kyma-bindings rbac prints it",
                KymaBinding::plural(&())
            ),
            Trouble::Refused(code) => format!(
                "creating a {} fails (HTTP {code}); its API server must be well, and each admission webhook that it asks",
                KymaBinding::kind(&())
            ),
            other => other.to_string(),
        }
    }
}

/// Creates a binding without keeping it: admission and storage say whether they would take it.
///
/// # Errors
/// When they wouldn't, or nobody answers.
pub async fn create(bindings: &Api<KymaBinding>) -> Result<(), Trouble> {
    let binding = json!({
        "apiVersion": KymaBinding::api_version(&()), "kind": KymaBinding::kind(&()),
        "metadata": {"generateName": "check-"}, "spec": {"instanceId": "check"},
    });
    let binding: KymaBinding = serde_json::from_value(binding).map_err(|_| Trouble::Refused(0))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    bindings.create(&params, &binding).await.map(drop).map_err(|error| Trouble::of(&error))
}

/// The trouble that keeps every binding from being made. Other refusals may be about this one alone: a quota,
/// or too much to do at this moment; of a 403 RBAC knows more.
fn judge(went: Result<(), Trouble>) -> Option<Trouble> {
    match went {
        Ok(()) | Err(Trouble::Refused(0..=402 | 405..=499)) => None,
        Err(trouble) => Some(trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_trial_itself_is_no_trouble_for_all() {
        assert_eq!(judge(Ok(())), None);
        for code in [400, 409, 422, 429] {
            assert_eq!(judge(Err(Trouble::Refused(code))), None, "{code}");
        }
        for trouble in [
            Trouble::Silent,
            Trouble::Unauthorized,
            Trouble::NamespaceMissing,
            Trouble::NamespaceTerminating,
            Trouble::Refused(403),
            Trouble::Refused(404),
            Trouble::Refused(500),
        ] {
            assert_eq!(judge(Err(trouble)), Some(trouble));
        }
    }
}
