//! Faults of objects: a binding is applied for each, something is done to it, and what must come of
//! that is looked at, at once where the watch shows it, else when it is quiet: what happens in a
//! managed cluster is found by the sweep, which waits for a settled list.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kyma_bindings::api::conditions::Kind;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::arena::{Arena, PATIENCE, Victim, lock, persist};
use super::fault::{Drawn, Fault};
use crate::Cluster;
use crate::stage::{MANAGED_NAMESPACE, StillWorks, prove, prove_refused};

/// Applies a binding and does something to it.
///
/// # Errors
/// When it never gets ready, or what must come of it doesn't.
pub async fn hurt(arena: &Arena<'_>, drawn: Drawn, name: &str) -> Result<()> {
    let stage = &arena.load.stage;
    let number = drawn.which % arena.sites.len();
    let site = &arena.sites[number];
    let there = lock(&arena.victims).iter().filter(|victim| victim.site == number).count();
    let instance = &site.victims[there % site.victims.len()];
    persist("a binding to be applied", async || stage.apply(name, instance, None).await).await?;
    let kubeconfig = persist("an applied binding to be ready", async || stage.ready(name).await).await?;
    works(&kubeconfig).await?;
    let object = format!("kyma-binding-{name}");
    let (client, bindings, secrets) = (site.cluster.client(), stage.bindings(), stage.secrets());
    let mut victim = Victim {
        name: name.to_owned(),
        site: number,
        kubeconfigs: vec![kubeconfig],
        fault: drawn.fault,
        hurt: Instant::now(),
    };
    let merge = async |patch: Value| {
        let patch = Patch::Merge(patch);
        persist("a binding to be changed", async || {
            found(bindings.patch(name, &PatchParams::default(), &patch).await)
        })
        .await
    };
    match drawn.fault {
        Fault::SecretDeleted => {
            let before =
                persist("its Secret to be read", async || Ok(secrets.get(&object).await?)).await?.uid();
            delete(&secrets, &object).await?;
            let again = persist("its Secret to be made again", async || {
                let now = secrets.get(&object).await?;
                ensure!(now.uid() != before, "it is the old one");
                stage.ready(name).await
            })
            .await?;
            arena.recovered(drawn.fault, victim.hurt.elapsed());
            works(&again).await?;
            victim.kubeconfigs.push(again);
        }
        Fault::RoleDeleted => delete(&Api::<ClusterRole>::all(client), &object).await?,
        Fault::RoleBindingDeleted => delete(&Api::<ClusterRoleBinding>::all(client), &object).await?,
        Fault::SubjectAdded => {
            let subjects = json!({"subjects": [
                {"kind": "ServiceAccount", "name": object, "namespace": MANAGED_NAMESPACE},
                {"kind": "User", "name": "intruder", "apiGroup": "rbac.authorization.k8s.io"},
            ]});
            let (patch, roles) = (Patch::Merge(subjects), Api::<ClusterRoleBinding>::all(client));
            persist("a role binding to be changed", async || {
                found(roles.patch(&object, &PatchParams::default(), &patch).await)
            })
            .await?;
        }
        Fault::AccountDeleted => {
            delete(&Api::<ServiceAccount>::namespaced(client, MANAGED_NAMESPACE), &object).await?;
        }
        Fault::ExpiredEarly => {
            let past = Timestamp::now() - SignedDuration::from_secs(1);
            let patch = Patch::Merge(json!({"status": {"expiresAt": past}}));
            persist("a status to be changed", async || {
                found(bindings.patch_status(name, &PatchParams::default(), &patch).await)
            })
            .await?;
            arena.gone(&victim).await?;
            arena.recovered(drawn.fault, victim.hurt.elapsed());
            return Ok(());
        }
        _ => {
            merge(json!({"metadata": {"finalizers": null}})).await?;
            delete(&bindings, name).await?;
        }
    }
    lock(&arena.victims).push(victim);
    Ok(())
}

impl Arena<'_> {
    /// Looks at all that something was done to, and removes it. How many there were.
    ///
    /// # Errors
    /// When one of them is not as it must be a while after the trouble.
    pub async fn judge_victims(&self) -> Result<usize> {
        let victims = std::mem::take(&mut *lock(&self.victims));
        for victim in &victims {
            self.judge(victim).await.with_context(|| format!("{} after {:?}", victim.name, victim.fault))?;
        }
        Ok(victims.len())
    }

    async fn judge(&self, victim: &Victim) -> Result<()> {
        let (bindings, cluster) = (self.load.stage.bindings(), self.sites[victim.site].cluster);
        match victim.fault {
            // Kubernetes' own garbage collector would remove the Secret, and none runs here.
            Fault::FinalizerStripped => {
                delete(&self.load.stage.secrets(), &format!("kyma-binding-{}", victim.name)).await?;
            }
            Fault::AccountDeleted => {
                persist("the loss to be said", async || {
                    let binding = bindings.get(&victim.name).await?;
                    ensure!(binding.is(Kind::Stalled), "{:?}", binding.status);
                    Ok(())
                })
                .await?;
            }
            Fault::SubjectAdded => {
                only_subject(cluster, &victim.name).await?;
                self.all_work(victim).await?;
            }
            _ => self.all_work(victim).await?,
        }
        if !matches!(victim.fault, Fault::SecretDeleted) {
            self.recovered(victim.fault, victim.hurt.elapsed());
        }
        delete(&bindings, &victim.name).await?;
        self.gone(victim).await
    }

    async fn all_work(&self, victim: &Victim) -> Result<()> {
        for kubeconfig in &victim.kubeconfigs {
            works(kubeconfig).await?;
            self.load.holds("I1");
        }
        Ok(())
    }

    /// Waits until a binding is gone; its kubeconfigs are good for nothing then. One that was deleted
    /// past the finalizer may be revoked later than it is gone.
    async fn gone(&self, victim: &Victim) -> Result<()> {
        let bindings = self.load.stage.bindings();
        persist("it to be gone", async || match bindings.get_opt(&victim.name).await? {
            Some(binding) => Err(anyhow!("it is there: {:?}", binding.status)),
            None => Ok(()),
        })
        .await?;
        for kubeconfig in &victim.kubeconfigs {
            let late = victim.fault == Fault::FinalizerStripped;
            let refused =
                crate::eventually("its token to be refused", PATIENCE, async || {
                    match prove_refused(kubeconfig).await {
                        Err(error) if error.is::<StillWorks>() && !late => Ok(Err(error.context("I1"))),
                        other => other.map(Ok),
                    }
                });
            refused.await??;
            self.load.holds("I1");
        }
        Ok(())
    }
}

async fn works(kubeconfig: &str) -> Result<()> {
    persist("I1: its token to work", async || prove(kubeconfig).await.map(drop)).await
}

async fn only_subject(cluster: &Cluster, name: &str) -> Result<()> {
    let roles: Api<ClusterRoleBinding> = Api::all(cluster.client());
    persist("the intruder to be out", async || {
        let subjects = roles.get(&format!("kyma-binding-{name}")).await?.subjects.unwrap_or_default();
        ensure!(subjects.len() == 1, "{subjects:?}");
        Ok(())
    })
    .await
}

async fn delete<K>(objects: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    persist("an object to be deleted", async || found(objects.delete(name, &DeleteParams::default()).await))
        .await
}

/// What isn't there any more needs nothing done to it.
fn found<T>(done: kube::Result<T>) -> Result<()> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => Ok(done.map(drop)?),
    }
}
