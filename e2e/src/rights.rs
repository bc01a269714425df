//! The operator's rights in the control plane: those of its own table, and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::Resource;
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::ConfigExt as _;
use kyma_bindings::diagnostics::rbac::{self, Place, Rule};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::apiserver::write_private;
use crate::cluster::config_from;
use crate::{Relay, Stage, eventually};

/// How long a wish may take while the API server is in trouble.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a request that shall not end is left alone.
const TURN: Duration = Duration::from_secs(1);
/// When it is sent again.
const AGAIN: Duration = Duration::from_millis(20);

/// An API server that answers the user with 429.
pub struct Overload(JoinHandle<()>);

impl Drop for Overload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A user that the operator acts as, who has only the documented rights.
pub struct Rights<'a> {
    stage: &'a Stage<'a>,
    user: &'a str,
}

impl<'a> Rights<'a> {
    /// Of a user who has none yet; see [`Self::grant`].
    #[must_use]
    pub fn new(stage: &'a Stage<'a>, user: &'a str) -> Self {
        Self { stage, user }
    }

    /// Gives the rights.
    ///
    /// # Errors
    /// When the API server refuses, or is away for long.
    pub async fn grant(&self) -> Result<()> {
        for (namespace, rules) in self.rules() {
            let role: Role =
                serde_json::from_value(json!({"metadata": {"name": self.user}, "rules": rules}))?;
            create(&self.namespaced(namespace), &role).await?;
            let binding: RoleBinding = serde_json::from_value(json!({
                "metadata": {"name": self.user},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.user},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.user}],
            }))?;
            create(&self.namespaced(namespace), &binding).await?;
        }
        Ok(())
    }

    /// Takes them away.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn take_away(&self) -> Result<()> {
        for (namespace, _) in self.rules() {
            delete(&self.namespaced::<RoleBinding>(namespace), self.user).await?;
            delete(&self.namespaced::<Role>(namespace), self.user).await?;
        }
        Ok(())
    }

    /// A file with a kubeconfig of the user, if wished through a relay.
    ///
    /// # Errors
    /// When it can't be signed or written.
    pub fn kubeconfig(&self, file: &str, relay: Option<&Relay>) -> Result<PathBuf> {
        let control = self.stage.control();
        let kubeconfig = control.kubeconfig_for(self.user, &[])?;
        let kubeconfig = relay.map_or_else(|| kubeconfig.clone(), |relay| relay.through(&kubeconfig));
        let path = control.dir().join(file);
        write_private(&path, &kubeconfig)?;
        Ok(path)
    }

    /// Has new requests of the user answered with 429 until [`Self::relieve`], as an overloaded API
    /// server does: by API priority and fairness. The user gets a priority level without any seat;
    /// that lets one request through at a time, so one is sent that doesn't end.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn overload(&self) -> Result<Overload> {
        let level: PriorityLevelConfiguration = serde_json::from_value(json!({
            "metadata": {"name": self.user},
            "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            }},
        }))?;
        create(&Api::all(self.stage.control().client()), &level).await?;
        let all = json!(["*"]);
        let schema: FlowSchema = serde_json::from_value(json!({
            "metadata": {"name": self.user},
            "spec": {
                "priorityLevelConfiguration": {"name": self.user},
                "matchingPrecedence": 2,
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": self.user}}],
                    "resourceRules": [{"verbs": all, "apiGroups": all, "resources": all, "clusterScope": true,
                        "namespaces": all}],
                }],
            },
        }))?;
        create(&Api::all(self.stage.control().client()), &schema).await?;
        let config = config_from(&self.stage.control().kubeconfig_for(self.user, &[])?).await?;
        let tls = TlsConnector::from(Arc::new(config.rustls_client_config()?));
        let address = config.cluster_url.authority().context("no address")?.to_string();
        // The body never follows.
        let request = format!(
            "POST /api/v1/namespaces/{}/secrets HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
            self.stage.namespace
        );
        let occupy = async move || {
            loop {
                // Not for ever: the first may be under way before the API server knows the level.
                let _ = tokio::time::timeout(TURN, endless(&tls, &address, &request)).await;
                tokio::time::sleep(AGAIN).await;
            }
        };
        // One takes the place of the other.
        Ok(Overload(tokio::spawn(async move { futures::join!(occupy(), occupy()).0 })))
    }

    /// The end of the overload.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn relieve(&self, overload: Overload) -> Result<()> {
        drop(overload);
        delete(&Api::<FlowSchema>::all(self.stage.control().client()), self.user).await
    }

    fn rules(&self) -> Vec<(&str, Vec<PolicyRule>)> {
        let of = |place: Place| {
            let rules = rbac::CONTROLLER.iter().filter(|rule| rule.place == place);
            let namespace = place.namespace(&self.stage.namespace, &self.stage.instance_namespace);
            (namespace, rules.map(policy_rule).collect())
        };
        Place::ALL.into_iter().map(of).collect()
    }

    fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.stage.control().client(), namespace)
    }
}

/// A rule as a Role has it.
#[must_use]
pub fn policy_rule(rule: &Rule) -> PolicyRule {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(words(&[rule.group])),
        resources: Some(words(rule.resources)),
        verbs: words(rule.verbs),
        ..PolicyRule::default()
    }
}

async fn create<K>(objects: &Api<K>, object: &K) -> Result<()>
where
    K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    eventually("an object to be created", PATIENCE, async || {
        match objects.create(&PostParams::default(), object).await {
            // A try before may have done it.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            done => done.map(drop),
        }
    })
    .await?;
    Ok(())
}

async fn delete<K>(objects: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    eventually("an object to be deleted", PATIENCE, async || {
        match objects.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => done.map(drop),
        }
    })
    .await?;
    Ok(())
}

async fn endless(tls: &TlsConnector, address: &str, request: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(stream.peer_addr()?.ip());
    let mut stream = tls.connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    stream.read_u8().await?;
    Ok(())
}
