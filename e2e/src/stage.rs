//! Where a test or the playground acts: namespaces of its own in a control plane, and instances
//! whose managed clusters are real.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, GetParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Resource, ResourceExt as _};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::crd::custom_resource_definition;
use kyma_bindings::instances::runtime;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::client_from;
use crate::{Cluster, Operator, canary, eventually, kept};

/// How long anything may take that should take a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Namespace of the `ServiceAccount`s in managed clusters.
pub const MANAGED_NAMESPACE: &str = "kyma-system";

/// Namespaces of one operator in a control plane; in tests it is searched for credentials when it is dropped.
pub struct Stage<'a> {
    control: &'a Cluster,
    /// Namespace of the bindings.
    pub namespace: String,
    /// Namespace of what describes the instances.
    pub instance_namespace: String,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        kept::search(self.control, &self.namespace);
    }
}

/// Installs the CRD into a control plane and waits until it is served.
///
/// # Errors
/// When the API server refuses it.
pub async fn install_crd(control: &Cluster) -> Result<()> {
    install(control, custom_resource_definition()).await?;
    let bindings: Api<KymaBinding> = Api::all(control.client());
    eventually("KymaBindings to be served", SOON, async || {
        bindings.list(&ListParams::default()).await.map(drop)
    })
    .await?;
    Ok(())
}

/// Installs a `Runtime` CRD as far as it matters here.
///
/// # Errors
/// When the API server refuses it.
pub async fn install_runtime_crd(control: &Cluster) -> Result<()> {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "runtimes.infrastructuremanager.kyma-project.io"},
        "spec": {
            "group": "infrastructuremanager.kyma-project.io", "scope": "Namespaced",
            "names": {"kind": "Runtime", "plural": "runtimes", "singular": "runtime"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    install(control, serde_json::from_value(crd)?).await?;
    let runtimes: Api<DynamicObject> = Api::all_with(control.client(), &runtime::api_resource());
    eventually("Runtimes to be served", SOON, async || runtimes.list(&ListParams::default()).await.map(drop))
        .await?;
    Ok(())
}

async fn install(control: &Cluster, crd: CustomResourceDefinition) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(control.client());
    let name = crd.metadata.name.clone().unwrap_or_default();
    crds.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&crd)).await?;
    Ok(())
}

/// Makes a cluster one that can be managed: it has the namespace, and a Secret to read as proof.
///
/// # Errors
/// When the API server refuses.
pub async fn prepare_managed(cluster: &Cluster) -> Result<()> {
    create_namespace(cluster, MANAGED_NAMESPACE).await?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    let proof = Secret {
        metadata: ObjectMeta { name: Some("proof".into()), ..ObjectMeta::default() },
        string_data: Some([("cluster".to_owned(), cluster.name().to_owned())].into()),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &proof).await?;
    Ok(())
}

/// Proves a kubeconfig: a client built from it reads a Secret. Returns the name of the cluster
/// that the Secret was read in.
///
/// # Errors
/// What the API server says, when it refuses.
pub async fn prove(kubeconfig: &str) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client_from(kubeconfig).await?, "default");
    let proof = secrets.get("proof").await?;
    let data = proof.data.and_then(|mut d| d.remove("cluster")).context("the Secret has no data")?;
    Ok(String::from_utf8(data.0)?)
}

/// A kubeconfig that should be refused and isn't.
#[derive(Debug, thiserror::Error)]
#[error("the kubeconfig still works")]
pub struct StillWorks;

/// Proves that a kubeconfig is good for nothing any more: refused by the API server, not merely
/// without an answer.
///
/// # Errors
/// When it still works, or fails for another reason.
pub async fn prove_refused(kubeconfig: &str) -> Result<()> {
    match prove(kubeconfig).await {
        Ok(_) => Err(StillWorks.into()),
        Err(error) => match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if status.code == 401 || status.code == 403 => Ok(()),
            _ => Err(error),
        },
    }
}

/// Waits until the API server's watches are as far as that. Who writes what an operator must know, and asks it at once, would
/// otherwise ask now and then before it can know.
async fn shown<K>(api: &Api<K>, written: &K) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let version = written.resource_version().context("an object without a version")?;
    api.get_with(&written.name_any(), &GetParams::at(&version)).await?;
    Ok(())
}

/// UID of a namespace: the id of a control plane is that of its bindings' namespace, that of a managed cluster the one of
/// its `kube-system`.
///
/// # Errors
/// When the API server refuses.
pub async fn uid_of(cluster: &Cluster, namespace: &str) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.get(namespace).await?.metadata.uid.context("a namespace without UID")
}

async fn create_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    Ok(())
}

impl<'a> Stage<'a> {
    /// Namespaces for `name` in a control plane that has the CRD.
    ///
    /// # Errors
    /// When there are such already.
    pub async fn new(control: &'a Cluster, name: &str) -> Result<Self> {
        Self::with_namespaces(control, &format!("bindings-{name}"), &format!("instances-{name}")).await
    }

    /// The same with full names of the namespaces: of the bindings, and of the instances.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn with_namespaces(control: &'a Cluster, bindings: &str, instances: &str) -> Result<Self> {
        create_namespace(control, bindings).await?;
        create_namespace(control, instances).await?;
        Ok(Self { control, namespace: bindings.to_owned(), instance_namespace: instances.to_owned() })
    }

    /// One whose namespaces are there already.
    #[must_use]
    pub fn existing(control: &'a Cluster, bindings: &str, instances: &str) -> Self {
        Self { control, namespace: bindings.to_owned(), instance_namespace: instances.to_owned() }
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &'a Cluster {
        self.control
    }

    /// Starts an operator here.
    ///
    /// # Errors
    /// When it doesn't get ready.
    pub async fn operator(&self, program: &Path, args: &[&str]) -> Result<Operator> {
        Operator::start(program, self.control.kubeconfig_path(), &[&self.args()[..], args].concat()).await
    }

    /// What tells an operator that it is for this stage.
    #[must_use]
    pub fn args(&self) -> [&str; 4] {
        ["--namespace", &self.namespace, "--instance-namespace", &self.instance_namespace]
    }

    /// The bindings here.
    #[must_use]
    pub fn bindings(&self) -> Api<KymaBinding> {
        Api::namespaced(self.control.client(), &self.namespace)
    }

    /// The Secrets of the bindings.
    #[must_use]
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.control.client(), &self.namespace)
    }

    /// The kubeconfig Secrets of the instances.
    #[must_use]
    pub fn instance_secrets(&self) -> Api<Secret> {
        Api::namespaced(self.control.client(), &self.instance_namespace)
    }

    /// The `Runtime`s of the instances.
    #[must_use]
    pub fn runtimes(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.control.client(), &self.instance_namespace, &runtime::api_resource())
    }

    /// Registers an instance by its kubeconfig Secret, as Kyma's infrastructure manager does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn register(&self, instance: &str, runtime_id: &str, kubeconfig: &str) -> Result<()> {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("kubeconfig-{runtime_id}"), "labels": labels(instance, runtime_id)},
            "stringData": {"config": kubeconfig},
        }))?;
        let secrets = self.instance_secrets();
        let written = secrets.create(&PostParams::default(), &secret).await?;
        shown(&secrets, &written).await
    }

    /// Replaces the kubeconfig of an instance, as a rotation does; `None` empties the key.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn rotate(&self, runtime_id: &str, kubeconfig: Option<&str>) -> Result<()> {
        let patch = match kubeconfig {
            Some(kubeconfig) => json!({"stringData": {"config": kubeconfig}}),
            None => json!({"data": null}),
        };
        let name = format!("kubeconfig-{runtime_id}");
        let secrets = self.instance_secrets();
        let written = secrets.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        shown(&secrets, &written).await
    }

    /// Creates a `Runtime`, or changes its status.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn runtime(&self, instance: &str, runtime_id: &str, status: Value) -> Result<()> {
        let ApiResource { api_version, kind, .. } = runtime::api_resource();
        let object = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": runtime_id, "labels": labels(instance, runtime_id)},
        });
        let apply = PatchParams::apply("e2e").force();
        self.runtimes().patch(runtime_id, &apply, &Patch::Apply(&object)).await?;
        let patch = Patch::Merge(json!({"status": status}));
        let written = self.runtimes().patch_status(runtime_id, &PatchParams::default(), &patch).await?;
        shown(&self.runtimes(), &written).await
    }

    /// Creates a binding as `kubectl apply` would.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply(&self, name: &str, instance: &str, seconds: Option<i64>) -> Result<KymaBinding> {
        let mut spec = json!({"instanceId": instance});
        if let Some(seconds) = seconds {
            spec["expirationSeconds"] = json!(seconds);
        }
        let object = json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {"name": name}, "spec": spec,
        });
        let apply = PatchParams::apply("kubectl").force();
        Ok(self.bindings().patch(name, &apply, &Patch::Apply(&object)).await?)
    }

    /// Waits until a condition of a binding has that status and reason, and returns the binding.
    ///
    /// # Errors
    /// When it doesn't in time; what was seen last is in the message.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<KymaBinding> {
        let what = format!("{name} to have {kind}={status} {reason}");
        let bindings = self.bindings();
        let binding = eventually(&what, SOON, async || {
            let binding = bindings.get(name).await?;
            let conditions = binding.status.iter().flat_map(|s| &s.conditions);
            let found =
                conditions.clone().any(|c| c.type_ == kind && c.status == status && c.reason == reason);
            if found { Ok(binding) } else { Err(anyhow!("{:?}", conditions.collect::<Vec<_>>())) }
        });
        Ok(binding.await?)
    }

    /// Waits until a binding is ready, and returns its kubeconfig.
    ///
    /// # Errors
    /// When it doesn't get ready in time.
    pub async fn ready(&self, name: &str) -> Result<String> {
        let binding = self.condition(name, "Ready", "True", "Issued").await?;
        let secret = binding.status.and_then(|s| s.binding).context("no Secret is named")?.name;
        let mut data = self.secrets().get(&secret).await?.data.unwrap_or_default();
        let kubeconfig = data.remove("kubeconfig").context("the Secret has no kubeconfig")?;
        let kubeconfig = String::from_utf8(kubeconfig.0)?;
        canary::learn_kubeconfig("a token that was issued", &kubeconfig);
        Ok(kubeconfig)
    }

    /// Waits until a binding and its Secret are gone.
    ///
    /// # Errors
    /// When they aren't in time.
    pub async fn gone(&self, name: &str, deadline: Duration) -> Result<()> {
        let (bindings, secrets) = (self.bindings(), self.secrets());
        eventually(&format!("{name} to be gone"), deadline, async || {
            if let Some(binding) = bindings.get_opt(name).await? {
                return Err(anyhow!("it is there at {}: {:?}", Timestamp::now(), binding.status));
            }
            match secrets.get_opt(&format!("kyma-binding-{name}")).await? {
                Some(_) => Err(anyhow!("its Secret is still there")),
                None => Ok(()),
            }
        })
        .await?;
        Ok(())
    }
}

fn labels(instance: &str, runtime_id: &str) -> Value {
    json!({
        runtime::INSTANCE_ID: instance,
        runtime::RUNTIME_ID: runtime_id,
        runtime::PLAN_NAME: "aws",
        runtime::SHOOT_NAME: format!("shoot-{runtime_id}"),
    })
}
