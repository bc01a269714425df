//! The floor: the calls that nobody can do without, by a bare client that checks nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use kyma_bindings::api::binding::{KymaBinding, KymaBindingSpec};
use kyma_bindings::api::names::{BindingId, FINALIZER, ORIGIN, ORIGIN_OSB};
use kyma_bindings::api::secret;
use kyma_bindings::cluster::{ControlPlane, Owner};
use kyma_bindings::controller::status::{Issue, Outcome, Pin, desired};
use serde_json::json;

use crate::Stage;
use crate::stage::MANAGED_NAMESPACE;

/// The steps of a bind, by the names of the operator's phases.
pub const STEPS: [&str; 5] = ["create", "rbac", "token", "secret", "status"];
/// About what a kubeconfig has beside its token, bytes.
const KUBECONFIG: usize = 2000;

/// A bare client of both clusters.
pub struct Floor {
    bindings: Api<KymaBinding>,
    secrets: Api<Secret>,
    accounts: Api<ServiceAccount>,
    roles: Api<ClusterRole>,
    role_bindings: Api<ClusterRoleBinding>,
    namespace: String,
}

impl Floor {
    /// One that writes into a stage where no operator is, and reaches the managed cluster by `managed`.
    #[must_use]
    pub fn new(stage: &Stage<'_>, managed: &Client) -> Self {
        let control = stage.control().client();
        Self {
            bindings: Api::namespaced(control.clone(), &stage.namespace),
            secrets: Api::namespaced(control, &stage.namespace),
            accounts: Api::namespaced(managed.clone(), MANAGED_NAMESPACE),
            roles: Api::all(managed.clone()),
            role_bindings: Api::all(managed.clone()),
            namespace: stage.namespace.clone(),
        }
    }

    /// The object; account, role and role binding at once, and the token; the Secret; the status.
    ///
    /// # Errors
    /// When an API server refuses.
    pub async fn bind(&self, name: &str) -> Result<()> {
        self.bind_by_steps(name).await.map(drop)
    }

    /// The same, and how long each of [`STEPS`] took.
    ///
    /// # Errors
    /// When an API server refuses.
    pub async fn bind_by_steps(&self, name: &str) -> Result<[Duration; 5]> {
        let began = Instant::now();
        let created = self.create(name, "i-floor").await?;
        let create = began.elapsed();
        let owner = self.owner(name, &created)?;
        let object = owner.binding.object_name();
        let metadata = json!({"name": object, "labels": owner.labels()});
        let group = "rbac.authorization.k8s.io";
        let account = serde_json::from_value(json!({"metadata": metadata}))?;
        let role = serde_json::from_value(json!({"metadata": metadata, "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        ]}))?;
        let role_binding = serde_json::from_value(json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": object},
            "subjects": [{"kind": "ServiceAccount", "name": object, "namespace": MANAGED_NAMESPACE}],
        }))?;
        let request: TokenRequest = serde_json::from_value(json!({
            "spec": {"audiences": [], "expirationSeconds": 600},
        }))?;
        let params = PostParams::default();
        let token = async {
            self.accounts.create(&params, &account).await?;
            let began = Instant::now();
            let token = self.accounts.create_token_request(&object, &params, &request).await?;
            Ok((token, began.elapsed()))
        };
        let began = Instant::now();
        let ((token, took), _, _) = futures::try_join!(
            token,
            self.roles.create(&params, &role),
            self.role_bindings.create(&params, &role_binding)
        )?;
        let rbac = began.elapsed().saturating_sub(took);
        let token = token.status.context("no token")?;
        let (text, ends) = token.token.zip(token.expiration_timestamp).context("no token")?;
        let text = format!("{:KUBECONFIG$}{text}", "");
        let [secret, status] = self.issue(&created, &owner, text, ends.0, "r-floor", "").await?;
        Ok([create, rbac, took, secret, status])
    }

    /// The object, as an OSB request makes it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create(&self, name: &str, instance: &str) -> Result<KymaBinding> {
        let mut binding = KymaBinding::new(
            name,
            KymaBindingSpec {
                instance_id: instance.to_owned(),
                expiration_seconds: 7200,
                service_id: Some("kyma".to_owned()),
                plan_id: Some("aws".to_owned()),
                predecessor_binding_id: None,
                created_by: None,
            },
        );
        binding.metadata.annotations = Some([(ORIGIN.to_owned(), ORIGIN_OSB.to_owned())].into());
        binding.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        Ok(self.bindings.create(&PostParams::default(), &binding).await?)
    }

    /// What is made for the binding is marked with this.
    ///
    /// # Errors
    /// When it has no name for that.
    pub fn owner(&self, name: &str, created: &KymaBinding) -> Result<Owner> {
        let control_plane =
            ControlPlane { id: "floor".to_owned(), former: None, namespace: self.namespace.clone() };
        Ok(Owner { binding: BindingId::parse(name)?, uid: created.uid().unwrap_or_default(), control_plane })
    }

    /// Secret and status, and how long each took.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn issue(
        &self,
        created: &KymaBinding,
        owner: &Owner,
        kubeconfig: String,
        expires_at: Timestamp,
        runtime_id: &str,
        cluster_id: &str,
    ) -> Result<[Duration; 2]> {
        let (now, labels) = (Timestamp::now(), owner.labels());
        let secret = secret::secret(created, &owner.binding, labels, &kubeconfig.into(), now, expires_at);
        let began = Instant::now();
        self.secrets.create(&PostParams::default(), &secret).await?;
        let stored = began.elapsed();
        let pin = Pin { runtime_id: runtime_id.to_owned(), cluster_id: cluster_id.to_owned() };
        let issue = Issue { expires_at, pin, secret: owner.binding.object_name() };
        let mut object = created.clone();
        object.status = desired(created, &Outcome::Issued(issue), now);
        let began = Instant::now();
        self.bindings.replace_status(&created.name_any(), &PostParams::default(), &object).await?;
        Ok([stored, began.elapsed()])
    }

    /// A binding that looks issued to an operator of this stage, with nothing in the managed cluster.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn load(
        &self,
        name: &str,
        instance: &str,
        runtime_id: &str,
        control_plane: &str,
        cluster_id: &str,
    ) -> Result<()> {
        let created = self.create(name, instance).await?;
        let mut owner = self.owner(name, &created)?;
        control_plane.clone_into(&mut owner.control_plane.id);
        // A token is about half as long as what is around it.
        let text = "k".repeat(KUBECONFIG + KUBECONFIG / 2);
        let ends = created.metadata.creation_timestamp.clone().context("no time of creation")?.0;
        let ends = ends + SignedDuration::from_secs(7200);
        self.issue(&created, &owner, text, ends, runtime_id, cluster_id).await.map(drop)
    }

    /// Bytes of a binding's object and of its Secret, as JSON.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn sizes(&self, name: &str) -> Result<[usize; 2]> {
        let binding = self.bindings.get(name).await?;
        let secret = self.secrets.get(&BindingId::parse(name)?.object_name()).await?;
        Ok([serde_json::to_vec(&binding)?.len(), serde_json::to_vec(&secret)?.len()])
    }

    /// Account, role and role binding at once with the Secret, between the object's deletion and its end.
    ///
    /// # Errors
    /// When an API server refuses.
    pub async fn unbind(&self, name: &str) -> Result<()> {
        let params = DeleteParams::background();
        self.bindings.delete(name, &params).await?;
        let object = BindingId::parse(name)?.object_name();
        futures::try_join!(
            async { self.role_bindings.delete(&object, &params).await.map(drop) },
            async { self.roles.delete(&object, &params).await.map(drop) },
            async { self.accounts.delete(&object, &params).await.map(drop) },
            async { self.secrets.delete(&object, &params).await.map(drop) },
        )?;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.bindings.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// One read of the Secret.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn fetch(&self, name: &str) -> Result<()> {
        self.secrets.get(&BindingId::parse(name)?.object_name()).await?;
        Ok(())
    }

    /// One small read of the managed cluster: a round trip and what the API server takes for it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn round_trip(&self, name: &str) -> Result<()> {
        self.accounts.get_opt(name).await?;
        Ok(())
    }
}
