//! The operator's rights in the control plane: what the README says it needs, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Resource;
use kube::api::{Api, DeleteParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apiserver::write_private;
use crate::{Relay, Stage, eventually};

/// How long a wish may take while the API server is in trouble.
const PATIENCE: Duration = Duration::from_mins(2);

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

    /// Has every new request of the user answered with 429, as an overloaded API server does: by
    /// API priority and fairness, with a priority level that has no seats.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn overload(&self) -> Result<()> {
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
        create(&Api::all(self.stage.control().client()), &schema).await
    }

    /// The end of the overload.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn relieve(&self) -> Result<()> {
        delete(&Api::<FlowSchema>::all(self.stage.control().client()), self.user).await
    }

    fn rules(&self) -> [(&str, Value); 3] {
        let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
        let read = json!(["get", "list", "watch"]);
        let group = "bindings.kyma-project.io";
        let own = json!([
            {"apiGroups": [group], "resources": ["kymabindings", "kymabindings/status"], "verbs": all},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "delete"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        ]);
        let instances = json!([
            {"apiGroups": [""], "resources": ["secrets"], "verbs": read},
            {"apiGroups": ["infrastructuremanager.kyma-project.io"], "resources": ["runtimes"], "verbs": read},
        ]);
        let system = json!([
            {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
        ]);
        [(&self.stage.namespace, own), (&self.stage.instance_namespace, instances), ("kube-system", system)]
    }

    fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.stage.control().client(), namespace)
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
