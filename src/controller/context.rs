//! What every reconcile works with.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, Recorder};
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::abandoned::Abandoned;
use super::decide::BindablePlans;
use super::events::Told;
use super::health::Health;
use super::ledger::Ledger;
use crate::api::binding::KymaBinding;
use crate::api::conditions::Reason;
use crate::api::names::{BindingId, NameError};
use crate::cluster::address::Policy;
use crate::cluster::{Clients, ControlPlane, Failure, Owner};
use crate::controller::dirty::Touched;
use crate::controller::ledger::record::Record;
use crate::controller::secret_index::Secrets;
use crate::controller::writer::Plane;
use crate::instances::Instances;
use crate::instances::state::KubeconfigRef;
use crate::store::Mirror;
use crate::support::failpoint;
use crate::telemetry::metrics::Metrics;

/// Longest wait for an Event to be written.
const EVENT_DEADLINE: Duration = Duration::from_secs(5);

/// What the operator's owner has set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the bindings.
    pub namespace: String,
    /// Namespace of what describes the instances.
    pub instance_namespace: String,
    /// Namespace in the managed clusters for the `ServiceAccount`s.
    pub managed_namespace: String,
    /// Most unexpired bindings of an instance.
    pub max_bindings: usize,
    /// Plans whose instances may have bindings.
    pub bindable_plans: BindablePlans,
    /// Shortest and longest lifetime, seconds.
    pub lifetimes: (i64, i64),
    /// Where the managed clusters' servers may be.
    pub servers: Arc<Policy>,
    /// How often each managed cluster is swept.
    pub sweep_interval: Duration,
    /// What is younger in a managed cluster may belong to a bind in flight.
    pub young: Duration,
}

/// Shared by all reconciles.
pub struct Context {
    /// How many bindings are losing their rights at this moment, because their time is over.
    pub disarming: watch::Sender<usize>,
    /// The settings.
    pub settings: Settings,
    /// Who we are in the eyes of the managed clusters.
    pub control_plane: ControlPlane,
    /// Writes to the control plane.
    pub plane: Plane,
    /// The bindings.
    pub mirror: Arc<Mirror>,
    /// What is remembered beside them.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Those of them that are to be looked at.
    pub touched: Arc<Touched>,
    /// The Secrets that exist.
    pub secrets: Arc<Secrets>,
    /// The instance directory.
    pub instances: Arc<Instances>,
    /// The managed clusters.
    pub clients: Clients,
    /// Which of them do not answer.
    pub health: Health,
    /// Events for people.
    pub recorder: Recorder,
    /// Names of bindings to look at though their objects haven't changed.
    pub look: mpsc::Sender<String>,
    /// Bindings that were let go although their access is there, until it ends by itself.
    pub abandoned: Abandoned,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// The marks for what is made for a binding.
    ///
    /// # Errors
    /// When the name is none that objects can be named after; the API server lets none through.
    pub fn owner(&self, binding: &KymaBinding) -> Result<Owner, NameError> {
        self.owner_named(&binding.name_any(), binding.uid().unwrap_or_default())
    }

    /// The same for a binding that is gone.
    ///
    /// # Errors
    /// As [`Self::owner`].
    pub fn owner_named(&self, name: &str, uid: String) -> Result<Owner, NameError> {
        Ok(Owner { binding: BindingId::parse(name)?, uid, control_plane: self.control_plane.clone() })
    }

    /// Where the access of the binding with that UID was made, if it was.
    #[must_use]
    pub fn record(&self, uid: &str) -> Option<Record> {
        self.ledger.lock().entry(uid)?.record.as_ref()?.get()
    }

    /// The cluster that a binding is pinned to: as we wrote it down, else as its status says.
    #[must_use]
    pub fn pin(&self, binding: &KymaBinding) -> Option<String> {
        let recorded = self.record(binding.metadata.uid.as_deref()?).map(|record| record.cluster_id);
        recorded.or_else(|| binding.status.as_ref()?.cluster_id.clone())
    }

    /// Takes note of how a call to a managed cluster went, and says whether to try again at once:
    /// after a 401 the client is forgotten, since the kubeconfig may have been renewed a moment ago.
    pub async fn note<T>(
        &self,
        instance: &str,
        kubeconfig: &KubeconfigRef,
        result: &Result<T, Failure>,
    ) -> bool {
        let Err(failure) = result else {
            self.health.succeeded(instance);
            return false;
        };
        self.health.failed(instance, kubeconfig, failure);
        self.metrics.managed_cluster_error(reason(failure).as_str());
        let renew = matches!(failure, Failure::Unauthorized);
        if renew {
            self.clients.forget(kubeconfig).await;
        }
        renew
    }

    /// Tells people of a binding. An Event that can't be written fails nothing; the same one again
    /// only counts up.
    pub async fn tell(&self, binding: &KymaBinding, told: Told, note: String) {
        self.publish(binding.object_ref(&()), told, note).await;
    }

    /// The same of one that is gone.
    pub async fn tell_of_gone(&self, owner: &Owner, told: Told, note: String) {
        let reference = ObjectReference {
            api_version: Some(KymaBinding::api_version(&()).into()),
            kind: Some(KymaBinding::kind(&()).into()),
            namespace: Some(self.settings.namespace.clone()),
            name: Some(owner.binding.to_string()),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        };
        self.publish(reference, told, note).await;
    }

    /// Tells whoever applied a binding how it went. A request over HTTP has its answer instead, so
    /// the road from PUT to 201 has no write for an Event.
    pub async fn tell_applicant(&self, binding: &KymaBinding, told: Told, note: String) {
        if !binding.is_from_osb() {
            self.tell(binding, told, note).await;
        }
    }

    async fn publish(&self, reference: ObjectReference, told: Told, note: String) {
        // Whoever leads by now tells of what it sees itself.
        if self.plane.check_leading("write an Event").is_err() {
            return;
        }
        let event = Event {
            type_: told.type_(),
            reason: told.reason().to_owned(),
            note: Some(note),
            action: told.action().to_owned(),
            secondary: None,
        };
        let write =
            failpoint::around("controller", "write the Event", self.recorder.publish(&event, &reference));
        let published = tokio::time::timeout(EVENT_DEADLINE, write).await;
        if !matches!(published, Ok(Ok(()))) {
            let binding_id = reference.name.unwrap_or_default();
            tracing::warn!(binding_id, reason = told.reason(), "an Event could not be written");
        }
    }
}

/// The condition reason that a failure of a managed cluster stands for.
#[must_use]
pub fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::NotLeading => Reason::Pending,
        Failure::ReadKubeconfig | Failure::Unreachable(_) => Reason::ClusterUnreachable,
        Failure::NoKubeconfig(_) => Reason::KubeconfigMissing,
        Failure::Kubeconfig(_) => Reason::KubeconfigRefused,
        Failure::Address(_) => Reason::AddressRefused,
        Failure::TimedOut => Reason::ClusterTimedOut,
        Failure::Unauthorized => Reason::ClusterUnauthorized,
        Failure::Forbidden(_) | Failure::Kept { .. } => Reason::ClusterForbidden,
        Failure::RateLimited => Reason::ClusterRateLimited,
        Failure::Unavailable(_) => Reason::ClusterUnavailable,
        Failure::Misbehaves(_) | Failure::Lingers(_) => Reason::ClusterMisbehaves,
        Failure::Altered { .. } => Reason::ObjectAltered,
        Failure::NamespaceMissing(_) => Reason::NamespaceMissing,
        Failure::Token(_) => Reason::TokenRefused,
        Failure::Foreign { .. } => Reason::ForeignObject,
    }
}
