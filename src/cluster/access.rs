//! ServiceAccount, ClusterRole, ClusterRoleBinding and token of one binding: made and removed.

use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::clients::Cluster;
use super::compare::{Difference, differences};
use super::manifest::Kind;
use super::ownership::{Owner, Verdict};
use super::proven::Proven;
use super::token::{self, Defect, Judged};
use crate::cluster::client::{Answer, Wire};
use crate::cluster::error::{Failure, Misbehaviour};
use crate::support::secret::SecretString;

/// UIDs of what was made, so that it can be removed in one round trip.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Uids {
    pub(super) service_account: Option<String>,
    pub(super) cluster_role: Option<String>,
    pub(super) cluster_role_binding: Option<String>,
}

impl Uids {
    /// All of one name.
    #[must_use]
    pub fn all_named(uid: &str) -> Self {
        let uid = Some(uid.to_owned());
        Self { service_account: uid.clone(), cluster_role: uid.clone(), cluster_role_binding: uid }
    }
}

/// What is to be removed.
#[derive(Debug, Default)]
pub struct Left {
    /// The objects, as far as they are known.
    pub uids: Uids,
    /// Whether somebody may have its token.
    pub handed_out: bool,
    /// Whether its role binding was seen gone already.
    pub disarmed: bool,
}

/// A token that has passed judgement.
pub struct Grant {
    /// The token.
    pub token: SecretString,
    /// When it ends, UTC, whole seconds.
    pub expires_at: Timestamp,
    /// What was made for it.
    pub uids: Uids,
    /// How long its request took; the rest of the grant is the account and its rights.
    pub took: Duration,
}

/// An object as the cluster has it.
pub(super) struct Found {
    pub(super) metadata: ObjectMeta,
    /// All of it.
    pub(super) object: Value,
}

impl Found {
    fn read(answer: &Answer) -> Result<Self, Failure> {
        let object: Value = answer.parse()?;
        let metadata = object.get("metadata").cloned().map(serde_json::from_value).transpose();
        let metadata = metadata.map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?;
        Ok(Self { metadata: metadata.unwrap_or_default(), object })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    kind: String,
    #[serde(default)]
    spec: TokenSpec,
    status: TokenStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TokenSpec {
    bound_object_ref: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    token: SecretString,
    expiration_timestamp: Time,
}

/// The objects of one binding in one managed cluster.
pub struct Bound<'a> {
    wire: &'a Wire,
    proven: &'a Proven,
    pub(super) owner: &'a Owner,
    namespace: &'a str,
    pub(super) name: String,
}

impl<'a> Bound<'a> {
    /// `namespace` is where the `ServiceAccount` goes.
    #[must_use]
    pub fn new(cluster: &'a Cluster, owner: &'a Owner, namespace: &'a str) -> Self {
        let name = owner.binding.object_name();
        Self { wire: &cluster.wire, proven: &cluster.proven, owner, namespace, name }
    }

    /// Makes what isn't there yet and asks for a token of `seconds` lifetime: two round trips.
    /// What is there already and ours stays as it is; the role's rules belong to the cluster's owner.
    ///
    /// # Errors
    /// A foreign object goes before all other failures. What was made stays: the caller tries
    /// again or removes it.
    pub async fn grant(&self, seconds: i64, now: Timestamp) -> Result<Grant, Failure> {
        let account_and_token = async {
            let uid = self.ensure(Kind::ServiceAccount).await?;
            let began = Instant::now();
            let (token, granted) = self.request_token(seconds).await?;
            let took = began.elapsed();
            let subject = format!("system:serviceaccount:{}:{}", self.namespace, self.name);
            let Judged { ends, audiences } = token::judge(&token, granted, seconds, &subject, now)?;
            self.proven.prove(self.wire, &token, &subject, audiences).await?;
            Ok((uid, token, ends, took))
        };
        // All three run to their end: a call cut off half-way would leave its outcome unknown.
        let (account, role, binding) = futures::join!(
            account_and_token,
            self.ensure(Kind::ClusterRole),
            self.ensure(Kind::ClusterRoleBinding),
        );
        let foreign = [account.as_ref().err(), role.as_ref().err(), binding.as_ref().err()]
            .into_iter()
            .flatten()
            .find(|failure| matches!(failure, Failure::Foreign { .. }));
        if let Some(foreign) = foreign {
            return Err(foreign.clone());
        }
        let (service_account, token, expires_at, took) = account?;
        let uids = Uids { service_account, cluster_role: role?, cluster_role_binding: binding? };
        Ok(Grant { token, expires_at, uids, took })
    }

    /// Removes all that was made for this binding and sees it gone: one round trip where the UIDs
    /// are known. What isn't ours is left alone.
    ///
    /// A token that was handed out lives as long as its account, whatever marks that has by now: an
    /// account of our name without them is no end, unless another UID is known to have been ours.
    ///
    /// # Errors
    /// When anything of ours may still be there.
    pub async fn revoke(&self, left: &Left) -> Result<(), Failure> {
        let Left { uids, handed_out, disarmed } = left;
        let binding = async {
            if *disarmed {
                return Ok(());
            }
            self.remove(Kind::ClusterRoleBinding, uids.cluster_role_binding.as_deref(), false).await
        };
        let (binding, role, account) = futures::join!(
            binding,
            self.remove(Kind::ClusterRole, uids.cluster_role.as_deref(), false),
            self.remove(Kind::ServiceAccount, uids.service_account.as_deref(), *handed_out),
        );
        // What keeps the token alive is the first to be told of.
        account.and(binding).and(role)
    }

    /// Removes the role binding alone and sees it gone; false where its UID is not known. One after the other: as
    /// many may be asked for at once as a cluster has bindings.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn disarm(&self, uids: &Uids) -> Result<bool, Failure> {
        let _turn = self.wire.turn().await;
        match uids.cluster_role_binding.as_deref() {
            Some(uid) => self.delete(Kind::ClusterRoleBinding, uid).await,
            None => Ok(false),
        }
    }

    async fn request_token(&self, seconds: i64) -> Result<(SecretString, Timestamp), Failure> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": {}, "spec": {"audiences": [], "expirationSeconds": seconds},
        });
        let request = Request::new(self.path(Kind::ServiceAccount)).create_subresource(
            "token",
            &self.name,
            &PostParams::default(),
            encode(&body)?,
        );
        let answer = self.send(request).await?;
        if answer.status != StatusCode::CREATED {
            return Err(answer.failure());
        }
        let TokenAnswer { kind, spec, status } = answer.parse()?;
        let TokenStatus { token, expiration_timestamp } = status;
        if kind != "TokenRequest" {
            return Err(Failure::Misbehaves(Misbehaviour::Form));
        }
        if spec.bound_object_ref.is_some() {
            return Err(Failure::Token(Defect::Bound));
        }
        Ok((token, expiration_timestamp.0))
    }

    /// Creates one object; one that is there, ours and as it should be is as good. Returns its UID. What was made
    /// other than asked is removed: it may give rights to somebody else, and may never be found again.
    pub(super) async fn ensure(&self, kind: Kind) -> Result<Option<String>, Failure> {
        let asked = self.manifest(kind);
        let body = encode(&asked)?;
        // A second try is for what vanishes between the look and the leap, or was a leftover.
        for _ in 0..2 {
            let request = Request::new(self.path(kind)).create(&PostParams::default(), body.clone());
            let answer = self.send(request).await?;
            match answer.status {
                StatusCode::CREATED => {
                    let made = Found::read(&answer)?;
                    let Some(difference) = differences(&asked, &made.object).next() else {
                        return Ok(made.metadata.uid);
                    };
                    if let Some(uid) = &made.metadata.uid {
                        self.delete(kind, uid).await?;
                    }
                    return Err(Failure::Altered { kind: kind.word(), name: self.name.clone(), difference });
                }
                StatusCode::CONFLICT => {}
                StatusCode::NOT_FOUND if matches!(kind, Kind::ServiceAccount) => {
                    return Err(Failure::NamespaceMissing(self.namespace.to_owned()));
                }
                _ => return Err(answer.failure()),
            }
            let Some(found) = self.find(kind).await? else { continue };
            match self.owner.verdict(&found.metadata) {
                Verdict::Ours if self.is_as_asked(kind, &found) => return Ok(found.metadata.uid),
                Verdict::Foreign => return Err(self.foreign(kind)),
                Verdict::Ours | Verdict::Leftover => {
                    self.delete(kind, &found.metadata.uid.unwrap_or_default()).await?;
                }
            }
        }
        Err(Failure::Lingers(kind.word()))
    }

    /// Whether an object of ours that is there is as good as one that would be made now.
    pub(super) fn is_as_asked(&self, kind: Kind, found: &Found) -> bool {
        let asked = self.manifest(kind);
        differences(&asked, &found.object).all(Difference::is_tolerated)
            && found.metadata.deletion_timestamp.is_none()
    }

    /// Removes the object of that kind if it is ours, by its known UID or the one that it has now.
    /// `doubtful` says that another one of our name may be ours, too, if no UID is known.
    async fn remove(&self, kind: Kind, known: Option<&str>, doubtful: bool) -> Result<(), Failure> {
        let doubtful = doubtful && known.is_none();
        let mut known = known.map(str::to_owned);
        // Somebody may delete and make it again while we look; not for ever.
        for _ in 0..3 {
            let uid = match known.take() {
                Some(uid) => uid,
                None => match self.find(kind).await? {
                    Some(found) if self.owner.verdict(&found.metadata) == Verdict::Ours => {
                        found.metadata.uid.unwrap_or_default()
                    }
                    Some(_) if doubtful => return Err(self.foreign(kind)),
                    _ => return Ok(()),
                },
            };
            if self.delete(kind, &uid).await? {
                return Ok(());
            }
        }
        Err(Failure::Lingers(kind.word()))
    }

    /// Deletes the object with that UID and sees it gone; false when the name now belongs to an
    /// object with another UID. An answer of 200 is not enough: a finalizer put on by the
    /// token's holder would keep the access alive, so it is stripped.
    pub(super) async fn delete(&self, kind: Kind, uid: &str) -> Result<bool, Failure> {
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let answer = self.send(Request::new(self.path(kind)).delete(&self.name, &params)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => return Ok(true),
            StatusCode::CONFLICT => return Ok(false),
            StatusCode::OK | StatusCode::ACCEPTED => {}
            _ => return Err(self.kept(kind, &answer)),
        }
        // A Status, or the object as it was: of a ServiceAccount even when it is gone.
        let left = Found::read(&answer)?;
        if left.metadata.finalizers.is_none_or(|f| f.is_empty()) {
            return Ok(true);
        }
        let strip = json!({"metadata": {"uid": uid, "finalizers": null}});
        let request =
            Request::new(self.path(kind)).patch(&self.name, &PatchParams::default(), &Patch::Merge(&strip));
        let answer = self.send(request).await?;
        if ![StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT].contains(&answer.status) {
            return Err(self.kept(kind, &answer));
        }
        match self.find(kind).await? {
            Some(still) if still.metadata.uid.as_deref() == Some(uid) => Err(Failure::Lingers(kind.word())),
            _ => Ok(true),
        }
    }

    pub(super) async fn find(&self, kind: Kind) -> Result<Option<Found>, Failure> {
        let answer = self.send(Request::new(self.path(kind)).get(&self.name, &GetParams::default())).await?;
        match answer.status {
            StatusCode::OK => {
                let found = Found::read(&answer)?;
                let as_asked = found.object["kind"] == kind.word();
                as_asked.then_some(Some(found)).ok_or(Failure::Misbehaves(Misbehaviour::Form))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.failure()),
        }
    }

    pub(super) async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Answer, Failure> {
        // A request can't be built only from a name or namespace that no API server takes.
        self.wire.call(request.map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?).await
    }

    pub(super) fn path(&self, kind: Kind) -> String {
        kind.path(self.namespace)
    }

    pub(super) fn manifest(&self, kind: Kind) -> Value {
        kind.manifest(self.owner, &self.name, self.namespace)
    }

    /// Why an object of ours was not deleted: policies and webhooks refuse by any status of 4xx.
    fn kept(&self, kind: Kind, answer: &Answer) -> Failure {
        match answer.failure() {
            Failure::Forbidden(_) | Failure::Misbehaves(_) if answer.status.is_client_error() => {
                Failure::Kept { kind: kind.word(), name: self.name.clone(), status: answer.status.as_u16() }
            }
            failure => failure,
        }
    }

    pub(super) fn foreign(&self, kind: Kind) -> Failure {
        Failure::Foreign { kind: kind.word(), name: self.name.clone() }
    }
}

fn encode(value: &Value) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|_| Failure::Misbehaves(Misbehaviour::Form))
}
