//! Calls for single objects, past kube's client but by its requests: see [`direct`](crate::kubernetes::direct).

use std::marker::PhantomData;

use http::StatusCode;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request, request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use crate::kubernetes::direct::{BoxError, Client};
use crate::kubernetes::pruned::Pruned;
use crate::support::secret::Zeroize as _;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request could not be written.
    #[error("the request can't be written")]
    Write(#[source] BoxError),
    /// The API server did not answer.
    #[error("the control plane did not answer")]
    Send(#[source] BoxError),
    /// It refused. Its message may quote what was sent: it ends here.
    #[error("the control plane answered HTTP {code} {reason}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The word for it, if it was a Kubernetes `Status`.
        reason: String,
    },
    /// What it answered is not the object. A parser's text would quote it: it ends here.
    #[error("the control plane's answer is not the object that was asked for")]
    Parse,
}

impl CallError {
    /// Whether there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether there is an object of that name.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { code: 409, reason } if reason == "AlreadyExists")
    }

    /// Whether the object is not the one that was meant, or no longer as it was.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. }) && !self.is_already_exists()
    }
}

impl From<request::Error> for CallError {
    fn from(error: request::Error) -> Self {
        Self::Write(error.into())
    }
}

/// The objects of one kind in one namespace, read without `managedFields`. No call has a deadline.
pub struct Objects<K> {
    client: Client,
    requests: Request,
    kind: PhantomData<fn() -> K>,
}

/// What an API server answers where there is no object to show, or an error.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    reason: String,
}

/// An answer may be a kubeconfig.
struct Answer(Vec<u8>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Answer {
    fn of(status: StatusCode, body: Vec<u8>) -> Result<Self, CallError> {
        let answer = Self(body);
        if status.is_success() {
            return Ok(answer);
        }
        // Whatever stands between may answer in its own words.
        let reason = answer.parse().map(|said: Status| said.reason).unwrap_or_default();
        Err(CallError::Refused { code: status.as_u16(), reason })
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.0).map_err(|_| CallError::Parse)
    }

    /// What a deletion left: an object that waits for its finalizers, or word that it is gone.
    fn left<T: DeserializeOwned>(&self) -> Result<Option<T>, CallError> {
        let gone = self.parse::<Status>()?.kind == "Status";
        if gone { Ok(None) } else { self.parse().map(Some) }
    }
}

impl<K> Objects<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    Pruned<K>: DeserializeOwned,
{
    /// Those in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, requests: Request::new(K::url_path(&(), Some(namespace))), kind: PhantomData }
    }

    /// The object of that name, if there is one.
    ///
    /// # Errors
    /// As all calls: when the API server refuses, doesn't answer, or with something else.
    pub async fn get(&self, name: &str) -> Result<Option<K>, CallError> {
        found(self.call(self.requests.get(name, &GetParams::default())?).await)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As all calls; there may be one of that name.
    pub async fn create(&self, object: &K) -> Result<K, CallError> {
        self.call(self.requests.create(&PostParams::default(), json(object)?)?).await
    }

    /// Writes the status of an object as it was seen.
    ///
    /// # Errors
    /// As all calls; it may have changed since.
    pub async fn replace_status(&self, name: &str, object: &K) -> Result<K, CallError> {
        let request =
            self.requests.replace_subresource("status", name, &PostParams::default(), json(object)?)?;
        self.call(request).await
    }

    /// Changes an object by a merge patch (RFC 7386).
    ///
    /// # Errors
    /// As all calls; it may have changed since the version that the patch names.
    pub async fn merge(&self, name: &str, patch: &serde_json::Value) -> Result<K, CallError> {
        self.call(self.requests.patch(name, &PatchParams::default(), &Patch::Merge(patch))?).await
    }

    /// Asks for the deletion of the object with that UID, of that version alone if one is named. What is left of it
    /// until its finalizers are done.
    ///
    /// # Errors
    /// As all calls; the name may be another object's.
    pub async fn delete(&self, name: &str, uid: &str, version: Option<&str>) -> Result<Option<K>, CallError> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: version.map(str::to_owned),
        });
        let left: Option<Pruned<K>> = self.answer(self.requests.delete(name, &params)?).await?.left()?;
        Ok(left.map(|left| left.0))
    }

    async fn call(&self, request: http::Request<Vec<u8>>) -> Result<K, CallError> {
        Ok(self.answer(request).await?.parse::<Pruned<K>>()?.0)
    }
}

impl<K> Objects<K> {
    async fn answer(&self, request: http::Request<Vec<u8>>) -> Result<Answer, CallError> {
        let sent = self.client.clone().oneshot(request.map(Into::into)).await;
        let response = sent.map_err(CallError::Send)?;
        Answer::of(response.status(), response.into_body().into())
    }
}

impl Objects<Secret> {
    /// The metadata of the Secret of that name, if there is one.
    ///
    /// # Errors
    /// As all calls.
    pub async fn metadata(&self, name: &str) -> Result<Option<ObjectMeta>, CallError> {
        let request = self.requests.get_metadata(name, &GetParams::default())?;
        let found = self.answer(request).await.and_then(|answer| answer.parse());
        let found: Option<Pruned<PartialObjectMeta<Secret>>> = self::found(found)?;
        Ok(found.map(|object| object.0.metadata))
    }
}

fn json(object: &impl Serialize) -> Result<Vec<u8>, CallError> {
    serde_json::to_vec(object).map_err(|error| CallError::Write(error.into()))
}

fn found<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    fn answer(code: u16, body: &Value) -> Result<Answer, CallError> {
        Answer::of(StatusCode::from_u16(code).unwrap(), body.to_string().into())
    }

    fn refusal(code: u16, reason: &str) -> CallError {
        let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "message": "token abc"});
        answer(code, &status).err().unwrap()
    }

    #[test]
    fn a_refusal_has_its_word_and_nothing_of_what_was_sent() {
        let [exists, changed, gone] = [(409, "AlreadyExists"), (409, "Conflict"), (404, "NotFound")]
            .map(|(code, reason)| refusal(code, reason));
        let is = |e: &CallError| [e.is_already_exists(), e.is_conflict(), e.is_not_found()];
        assert_eq!(is(&exists), [true, false, false]);
        assert_eq!(is(&changed), [false, true, false]);
        assert_eq!(is(&gone), [false, false, true]);
        assert_eq!(exists.to_string(), "the control plane answered HTTP 409 AlreadyExists");
        let elsewhere = Answer::of(StatusCode::BAD_GATEWAY, b"<html>token abc".to_vec()).err().unwrap();
        assert!(matches!(&elsewhere, CallError::Refused { code: 502, reason } if reason.is_empty()));
        assert!(!format!("{exists:?}{elsewhere:?}").contains("abc"));
    }

    #[test]
    fn only_absence_is_no_object() {
        assert!(matches!(found::<()>(Err(refusal(404, "NotFound"))), Ok(None)));
        assert!(matches!(
            found::<()>(Err(refusal(403, "Forbidden"))),
            Err(CallError::Refused { code: 403, .. })
        ));
        assert!(matches!(found(Ok(1)), Ok(Some(1))));
    }

    #[test]
    fn a_deletion_leaves_an_object_or_nothing() {
        let left = |body: &Value| answer(200, body).unwrap().left::<Secret>();
        let waits = json!({"kind": "Secret", "metadata": {"name": "a", "finalizers": ["b"]}});
        assert_eq!(left(&waits).unwrap().unwrap().name_any(), "a");
        assert!(left(&json!({"kind": "Status", "status": "Success"})).unwrap().is_none());
        assert!(matches!(left(&json!({"kind": "Secret", "metadata": "token abc"})), Err(CallError::Parse)));
    }
}
