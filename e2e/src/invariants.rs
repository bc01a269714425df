//! What must hold whatever happens to the operator, as code.
//!
//! A [`Witness`] remembers what the broker has answered, and compares it with what is true in the
//! clusters:
//!
//! - I1: every token that was returned works until unbind or expiry, and is refused from the moment
//!   that DELETE has answered 200.
//! - I2: no `ServiceAccount`, `ClusterRole`, `ClusterRoleBinding` or Secret of ours is without a
//!   living binding, once the trouble is over.
//! - I3: no instance ever has more unexpired accepted bindings than the limit.
//! - I4: what was answered with 201 is found by GET until it expires or is deleted.
//! - I5: a binding id has at most one living token that was handed out.
//! - I6: no secret is in any log, Event or status.
//! - I7: memory, tasks and file descriptors of a process return to their level, see [`crate::level`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::conditions::Kind;
use kyma_bindings::api::names::{BINDING_UID, CONTROL_PLANE_NAMESPACE, MANAGED_BY, MANAGED_BY_VALUE};
use serde::de::DeserializeOwned;

use crate::osb::Answer;
use crate::stage::{MANAGED_NAMESPACE, prove, prove_refused};
use crate::{Cluster, Osb, Stage, canary, eventually};

/// How long after the trouble something may be left that belongs to nobody.
const CLEANED: Duration = Duration::from_mins(1);
/// Length of the pieces of a token that are searched for, bytes.
const PIECE: usize = 24;
/// How all tokens of service accounts begin: `{"alg":"` in the alphabet of JWTs.
const TOKEN: &str = "eyJhbGciOi";

/// How far a binding is, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Handed out, and nobody has asked for its end.
    Held,
    /// DELETE was sent and has not been answered with success: it may work or not.
    Ending,
    /// DELETE was answered, or its time is over.
    Ended,
}

#[derive(Debug, Clone)]
struct Handed {
    binding: String,
    instance: String,
    kubeconfig: String,
    fate: Fate,
}

/// Remembers what the broker has returned.
#[derive(Default)]
pub struct Witness {
    handed: Mutex<Vec<Handed>>,
    /// Kubeconfigs that have ended and were seen to be refused: sought in what is printed, still.
    retired: Mutex<Vec<(String, String)>>,
}

impl Witness {
    /// Takes note of an answer with a kubeconfig, be it to a PUT or a GET.
    ///
    /// # Errors
    /// When there is none in it, or another than the one that is out already (I5).
    pub fn returned(&self, instance: &str, binding: &str, answer: &Answer) -> Result<()> {
        let kubeconfig = answer.kubeconfig()?;
        let mut handed = self.lock();
        let earlier = handed.iter().find(|h| h.binding == binding && h.fate != Fate::Ended);
        match earlier {
            Some(earlier) if earlier.kubeconfig == kubeconfig => {}
            Some(_) => bail!("I5: a second token for {binding} was handed out while the first lives"),
            None => handed.push(Handed {
                binding: binding.to_owned(),
                instance: instance.to_owned(),
                kubeconfig: kubeconfig.to_owned(),
                fate: Fate::Held,
            }),
        }
        Ok(())
    }

    /// Before a DELETE is sent: from now on the token may be refused.
    pub fn deleting(&self, binding: &str) {
        self.set(binding, Fate::Ending);
    }

    /// A DELETE was answered with 200, or with 410 to a repetition, or the binding has expired.
    pub fn ended(&self, binding: &str) {
        self.set(binding, Fate::Ended);
    }

    /// How many bindings are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().iter().filter(|h| h.fate == Fate::Held).count()
    }

    /// Instances and ids of the bindings that are held now.
    #[must_use]
    pub fn held_bindings(&self) -> Vec<(String, String)> {
        let handed = self.lock();
        let held = handed.iter().filter(|h| h.fate == Fate::Held);
        held.map(|h| (h.instance.clone(), h.binding.clone())).collect()
    }

    /// Ids of all bindings that were handed out and are not [retired](Self::retire).
    #[must_use]
    pub fn bindings(&self) -> BTreeSet<String> {
        self.lock().iter().map(|h| h.binding.clone()).collect()
    }

    /// Looks no more at what has ended: a long run has too much of it to be judged each time.
    pub fn retire(&self) {
        let mut handed = self.lock();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = handed.extract_if(.., |h| h.fate == Fate::Ended);
        retired.extend(ended.map(|h| (h.binding, h.kubeconfig)));
    }

    /// Whether a binding was handed out and has not ended for certain.
    #[must_use]
    pub fn is_alive(&self, binding: &str) -> bool {
        self.lock().iter().any(|h| h.binding == binding && h.fate != Fate::Ended)
    }

    fn set(&self, binding: &str, fate: Fate) {
        for handed in self.lock().iter_mut().filter(|h| h.binding == binding && h.fate != Fate::Ended) {
            handed.fate = fate;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handed>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// I1 for the bindings of one id: what is held works, what has ended is refused, now.
    ///
    /// # Errors
    /// The token that does what it shouldn't.
    pub async fn check_tokens(&self, binding: &str) -> Result<()> {
        let handed: Vec<_> = self.lock().iter().filter(|h| h.binding == binding).cloned().collect();
        for Handed { kubeconfig, fate, .. } in handed {
            match fate {
                Fate::Held => {
                    prove(&kubeconfig).await.with_context(|| format!("I1: the token of {binding}"))?;
                }
                Fate::Ended => prove_refused(&kubeconfig)
                    .await
                    .with_context(|| format!("I1: the token of {binding}, which has ended"))?,
                Fate::Ending => {}
            }
        }
        Ok(())
    }

    /// I4 for one binding that is held: GET answers with what was handed out.
    ///
    /// # Errors
    /// When it answers with anything else.
    pub async fn check_found(&self, osb: &Osb, binding: &str) -> Result<()> {
        let held = self.lock().iter().find(|h| h.binding == binding && h.fate == Fate::Held).cloned();
        let Some(Handed { instance, kubeconfig, .. }) = held else { return Ok(()) };
        let found = osb.fetch(&instance, binding).await?;
        ensure!(found.status == 200, "I4: GET of {binding} answers {} {}", found.status, found.description());
        ensure!(found.kubeconfig()? == kubeconfig, "I5: GET of {binding} answers with another token");
        Ok(())
    }

    /// All of them at a moment of quiet: nothing is under way and the operator is ready.
    ///
    /// # Errors
    /// The first that doesn't hold.
    pub async fn check_all(
        &self,
        stage: &Stage<'_>,
        managed: &[&Cluster],
        osb: &Osb,
        limit: usize,
    ) -> Result<()> {
        for binding in &self.bindings() {
            self.check_tokens(binding).await?;
            self.check_found(osb, binding).await?;
        }
        check_limit(stage, limit).await?;
        check_objects(stage, managed).await?;
        self.check_stage_for_secrets(stage).await
    }

    /// I6 for a text: a log, or what else is written where people read.
    ///
    /// # Errors
    /// When a piece of a token that was handed out, or any token at all, is in it.
    pub fn check_secrets(&self, what: &str, text: &str) -> Result<()> {
        ensure!(!text.contains(TOKEN), "I6: a token is in {what}");
        let handed = self.lock();
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let living = handed.iter().map(|h| (&h.binding, &h.kubeconfig));
        let mut sought: HashMap<&[u8], &String> = HashMap::new();
        for (binding, kubeconfig) in living.chain(retired.iter().map(|(binding, text)| (binding, text))) {
            let pieces = pieces(kubeconfig);
            ensure!(!pieces.is_empty(), "the kubeconfig of {binding} has no token to search for");
            sought.extend(pieces.into_iter().map(|piece| (piece.as_bytes(), binding)));
        }
        // One look at each place of the text, however many tokens there are.
        match text.as_bytes().windows(PIECE).find_map(|window| sought.get(window)) {
            Some(binding) => bail!("I6: a piece of the kubeconfig of {binding} is in {what}"),
            None => Ok(()),
        }
    }

    /// I6 for Events and bindings.
    ///
    /// # Errors
    /// As [`Self::check_secrets`].
    pub async fn check_stage_for_secrets(&self, stage: &Stage<'_>) -> Result<()> {
        let events: Api<Event> = Api::namespaced(stage.control().client(), &stage.namespace);
        let events = events.list(&ListParams::default()).await?.items;
        self.check_secrets("an Event", &serde_json::to_string(&events)?)?;
        let bindings = stage.bindings().list(&ListParams::default()).await?.items;
        self.check_secrets("a KymaBinding", &serde_json::to_string(&bindings)?)
    }
}

/// I3, now.
///
/// # Errors
/// Names the instance that has too many.
pub async fn check_limit(stage: &Stage<'_>, limit: usize) -> Result<()> {
    let now = Timestamp::now();
    let mut accepted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in stage.bindings().list(&ListParams::default()).await?.items {
        let counts = binding.is(Kind::Accepted)
            && !binding.is(Kind::Stalled)
            && binding.expires_at().is_none_or(|ends| ends > now);
        if counts {
            let name = binding.name_any();
            accepted.entry(binding.spec.instance_id).or_default().push(name);
        }
    }
    for (instance, names) in accepted {
        ensure!(names.len() <= limit, "I3: {instance} has more than {limit} bindings: {names:?}");
    }
    Ok(())
}

/// I2, as soon as it can be expected: each binding that is issued has exactly its three objects and
/// its Secret, and nothing else of ours is there.
///
/// # Errors
/// What is there without a binding, or missing.
pub async fn check_objects(stage: &Stage<'_>, managed: &[&Cluster]) -> Result<()> {
    eventually("I2: exactly what the living bindings need", CLEANED, async || {
        let bindings = stage.bindings().list(&ListParams::default()).await?.items;
        let issued = |b: &KymaBinding| b.is(Kind::Ready).then(|| b.uid()).flatten();
        let expected: BTreeSet<_> = bindings.iter().filter_map(issued).collect();
        same("Secret", &expected, &owners(stage.secrets(), stage).await?)?;
        let mut found = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        for cluster in managed {
            let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), MANAGED_NAMESPACE);
            found[0].extend(owners(accounts, stage).await?);
            found[1].extend(owners(Api::<ClusterRole>::all(cluster.client()), stage).await?);
            found[2].extend(owners(Api::<ClusterRoleBinding>::all(cluster.client()), stage).await?);
        }
        for (kind, found) in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"].iter().zip(&found) {
            same(kind, &expected, found)?;
        }
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// The same, where nothing may be left at all, not even a binding.
///
/// # Errors
/// What is left.
pub async fn check_nothing_left(stage: &Stage<'_>, managed: &[&Cluster]) -> Result<()> {
    let bindings = stage.bindings();
    eventually("I2: no binding to be left", CLEANED, async || {
        let left = bindings.list(&ListParams::default()).await?.items;
        let names: Vec<_> = left.iter().map(|b| (b.name_any(), b.status.clone())).collect();
        if names.is_empty() { Ok(()) } else { Err(anyhow!("{names:?}")) }
    })
    .await?;
    let every_secret = stage.secrets().list(&ListParams::default()).await?.items;
    let names: Vec<_> = every_secret.iter().map(Secret::name_any).collect();
    ensure!(names.is_empty(), "I2: Secrets are left: {names:?}");
    check_objects(stage, managed).await
}

/// UIDs of the bindings that a stage's objects of one kind were made for.
async fn owners<K>(objects: Api<K>, stage: &Stage<'_>) -> Result<BTreeSet<String>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let ours = ListParams::default()
        .labels(&format!("{MANAGED_BY}={MANAGED_BY_VALUE},{CONTROL_PLANE_NAMESPACE}={}", stage.namespace));
    let found = objects.list_metadata(&ours).await?;
    found
        .items
        .iter()
        .map(|object| {
            let uid = object.labels().get(BINDING_UID).cloned();
            uid.with_context(|| format!("{} is of no binding", object.name_any()))
        })
        .collect()
}

fn same(kind: &str, expected: &BTreeSet<String>, found: &BTreeSet<String>) -> Result<()> {
    let orphans: Vec<_> = found.difference(expected).collect();
    let missing: Vec<_> = expected.difference(found).collect();
    ensure!(
        orphans.is_empty() && missing.is_empty(),
        "{kind}s: without a binding {orphans:?}, missing {missing:?}"
    );
    Ok(())
}

/// Beginning and end of each part of the token: any of them printed is a leak. The token is the only
/// secret in a kubeconfig of ours; names and the certificate authority are in many places.
fn pieces(kubeconfig: &str) -> Vec<&str> {
    let token = canary::token_in(kubeconfig).unwrap_or_default();
    let parts = token.split('.').filter(|part| part.len() >= PIECE);
    parts.flat_map(|part| [&part[..PIECE], &part[part.len() - PIECE..]]).collect()
}
