//! One client for each managed cluster: made once however many ask, bounded, and made anew when
//! the kubeconfig Secret changes or the cluster answers 401.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::{PartialObjectMeta, Request};
use kube::{Api, Client, Resource as _};
use moka::future::Cache;

use super::address::Policy;
use super::connect::{self, Deadlines};
use super::kubeconfig::{self, Access};
use super::proven::Proven;
use crate::cluster::client::{Gate, Wire};
use crate::cluster::error::{Failure, Misbehaviour, Missing};
use crate::instances::state::KubeconfigRef;
use crate::support::failpoint;
use crate::telemetry::metrics::{Held, Metrics};

/// Key of the kubeconfig in its Secret.
pub const KUBECONFIG_KEY: &str = "config";
/// Most clients kept. Each costs a TLS configuration and a few idle connections.
const MAX_CLIENTS: u64 = 2_000;
/// Longest wait for an answer that only tells whether there are any.
const QUESTION: Duration = Duration::from_secs(2);
/// How long an unused client is kept.
const IDLE: Duration = Duration::from_mins(10);

/// A managed cluster that has told its id.
pub struct Cluster {
    /// The calls to it.
    pub wire: Wire,
    /// UID of its `kube-system` namespace.
    pub id: String,
    /// What is known of the tokens that its API server takes.
    pub(super) proven: Proven,
    /// How it is reached, for the kubeconfigs that are handed out.
    pub access: Access,
    /// It is counted for as long as it is kept.
    _counted: Held,
}

/// The clients of all managed clusters.
pub struct Clients {
    secrets: Api<Secret>,
    deadlines: Deadlines,
    servers: Arc<Policy>,
    gate: Gate,
    metrics: Arc<Metrics>,
    clusters: Cache<KubeconfigRef, Arc<Cluster>>,
    /// For each Secret the version whose client was made last.
    newest: Cache<String, String>,
}

impl Clients {
    /// Reads kubeconfig Secrets in `namespace` of the control plane; `servers` says where they may lead.
    #[must_use]
    pub fn new(
        control_plane: Client,
        namespace: &str,
        deadlines: Deadlines,
        servers: Arc<Policy>,
        gate: Gate,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(control_plane, namespace),
            deadlines,
            servers,
            gate,
            metrics,
            clusters: Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(IDLE).build(),
            newest: Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(IDLE).build(),
        }
    }

    /// The cluster that a kubeconfig Secret leads to. Many who ask at once wait for one answer;
    /// a failure is not remembered.
    ///
    /// # Errors
    /// When the kubeconfig is missing or refused, or the cluster doesn't tell its id.
    pub async fn get(&self, kubeconfig: &KubeconfigRef) -> Result<Arc<Cluster>, Failure> {
        let mut asked = false;
        let found = self
            .clusters
            .try_get_with(kubeconfig.clone(), async {
                asked = true;
                let cluster = self.connect(&kubeconfig.secret).await?;
                self.supersede(kubeconfig).await;
                Ok::<_, Failure>(cluster)
            })
            .await;
        self.metrics.client_lookup(match &found {
            Err(_) => "error",
            Ok(_) if asked => "miss",
            Ok(_) => "hit",
        });
        found.map_err(|failure: Arc<Failure>| (*failure).clone())
    }

    /// Whether the cluster answers at this moment.
    pub async fn answers(&self, kubeconfig: &KubeconfigRef) -> bool {
        let ask = async { cluster_id(&self.get(kubeconfig).await?.wire).await };
        matches!(tokio::time::timeout(QUESTION, ask).await, Ok(Ok(_)))
    }

    /// Forgets a client whose credentials were refused: the next one reads the Secret again.
    pub async fn forget(&self, kubeconfig: &KubeconfigRef) {
        self.clusters.invalidate(kubeconfig).await;
    }

    /// Nobody needs the client of a kubeconfig that was renewed: its credentials, connections and
    /// tasks go at once.
    async fn supersede(&self, kubeconfig: &KubeconfigRef) {
        let KubeconfigRef { secret, resource_version } = kubeconfig;
        let before = self.newest.get(secret).await;
        self.newest.insert(secret.clone(), resource_version.clone()).await;
        if let Some(resource_version) = before.filter(|before| before != resource_version) {
            self.clusters.invalidate(&KubeconfigRef { secret: secret.clone(), resource_version }).await;
        }
    }

    async fn connect(&self, secret: &str) -> Result<Arc<Cluster>, Failure> {
        let read = failpoint::around("controller", "read the kubeconfig", self.secrets.get_opt(secret));
        let read = tokio::time::timeout(self.deadlines.call, read);
        let Ok(Ok(read)) = read.await else { return Err(Failure::ReadKubeconfig) };
        let access = kubeconfig::accept(&config(secret, read)?.0)?;
        let client = connect::client(&access, &self.servers, self.deadlines)?;
        let wire = Wire::new(client, self.deadlines.call, self.gate.clone(), self.metrics.clone());
        let id = cluster_id(&wire).await?;
        Ok(Arc::new(Cluster { wire, id, proven: Proven::default(), access, _counted: self.metrics.client() }))
    }
}

/// The kubeconfig in its Secret, as the control plane has it.
fn config(name: &str, secret: Option<Secret>) -> Result<ByteString, Missing> {
    let secret = secret.ok_or_else(|| Missing::Gone(name.to_owned()))?;
    let mut data = secret.data.unwrap_or_default();
    let config = data.remove(KUBECONFIG_KEY).ok_or_else(|| Missing::Key(name.to_owned()))?;
    if config.0.is_empty() { Err(Missing::Empty(name.to_owned())) } else { Ok(config) }
}

async fn cluster_id(wire: &Wire) -> Result<String, Failure> {
    let request = Request::new(Namespace::url_path(&(), None))
        .get("kube-system", &kube::api::GetParams::default())
        .map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?;
    let answer = wire.call(request).await?;
    if answer.status != http::StatusCode::OK {
        return Err(answer.failure());
    }
    let namespace: PartialObjectMeta<Namespace> = answer.parse()?;
    if namespace.types.is_none_or(|types| types.kind != "Namespace") {
        return Err(Failure::Misbehaves(Misbehaviour::Form));
    }
    // It becomes part of a status: a UID, not a novel.
    let uid = namespace.metadata.uid.filter(|uid| !uid.is_empty() && uid.len() <= 64);
    let plain = |uid: &String| uid.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    uid.filter(plain).ok_or(Failure::Misbehaves(Misbehaviour::Form))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_of_a_kubeconfig_is_named_with_its_secret() {
        for (secret, expected) in [
            (json!(null), "Secret s is gone"),
            (json!({}), "Secret s has no key 'config'"),
            (json!({"data": {"kubeconfig": "eA=="}}), "Secret s has no key 'config'"),
            (json!({"data": {"config": ""}}), "the key 'config' of Secret s, which must hold it, is empty"),
        ] {
            let missing = config("s", serde_json::from_value(secret).unwrap()).unwrap_err();
            assert!(missing.to_string().contains(expected), "{missing}");
        }
        let there = serde_json::from_value(json!({"data": {"config": "eA=="}})).unwrap();
        assert_eq!(config("s", there).unwrap().0, b"x");
    }
}
