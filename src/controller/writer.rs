//! Writes to the control plane, bounded in time and number. Each is conditional: on the resource
//! version for what was decided, on the UID for what is deleted.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::api::binding::{KymaBinding, KymaBindingStatus};
use crate::api::names::{DECIDED_BY, FINALIZER};
use crate::kubernetes::direct::Client;
use crate::kubernetes::fence::Fence;
use crate::kubernetes::objects::{CallError, Objects};
use crate::store::Mirror;
use crate::support::failpoint;

/// Longest wait for one answer of the control plane.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most calls under way at once: HTTP/1.1 takes a connection for each.
const MAX_CALLS: usize = 64;

/// Why a call to the control plane failed. The server's text stays in the source and is not shown.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Somebody else wrote the object first; what was decided may no longer be right.
    #[error("cannot {0}: the object has changed meanwhile")]
    Changed(&'static str),
    /// The object is gone.
    #[error("cannot {0}: the object is gone")]
    Gone(&'static str),
    /// An object of that name exists.
    #[error("cannot {0}: an object of that name exists")]
    Exists(&'static str),
    /// The API server refused.
    #[error("cannot {action}: the control plane answered HTTP {code}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The HTTP status.
        code: u16,
    },
    /// Somebody else may be writing.
    #[error("cannot {0}: this process no longer leads")]
    NotLeading(&'static str),
    /// The API server did not answer, in time or at all.
    #[error("cannot {0}: the control plane did not answer")]
    NoAnswer(&'static str),
}

/// The control plane's objects that the controller writes.
pub struct Plane {
    bindings: Objects<KymaBinding>,
    secrets: Objects<Secret>,
    calls: Semaphore,
    fence: Fence,
    mirror: Arc<Mirror>,
    /// A name that no other process has.
    me: String,
}

impl Plane {
    /// Writes in `namespace`, as long as the fence holds. The mirror is told of what others wait for.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, fence: Fence, mirror: Arc<Mirror>) -> Self {
        Self {
            bindings: Objects::new(client.clone(), namespace),
            secrets: Objects::new(client.clone(), namespace),
            calls: Semaphore::new(MAX_CALLS),
            fence,
            mirror,
            me: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Writes the status of the object as it was seen.
    ///
    /// # Errors
    /// [`PlaneError::Changed`] when the object is no longer what it was.
    pub async fn write_status(
        &self,
        binding: &KymaBinding,
        status: KymaBindingStatus,
    ) -> Result<KymaBinding, PlaneError> {
        let mut object = binding.clone();
        object.status = Some(status);
        let name = binding.name_any();
        let begun = self.mirror.writing();
        let write = self.bindings.replace_status(&name, &object);
        let written = self.call("write the status", write).await?;
        self.mirror.is(begun, &written);
        Ok(written)
    }

    /// Writes on the object as it was seen who decides on it: what an earlier leader may have under
    /// way for it fails from now on.
    ///
    /// # Errors
    /// [`PlaneError::Changed`] when the object is no longer what it was.
    pub async fn claim(&self, binding: &KymaBinding) -> Result<KymaBinding, PlaneError> {
        let patch = json!({"metadata": {
            "resourceVersion": binding.resource_version(), "annotations": {DECIDED_BY: self.me},
        }});
        let name = binding.name_any();
        self.call("claim the binding", self.bindings.merge(&name, &patch)).await
    }

    /// Puts our finalizer on the object as it was seen.
    ///
    /// # Errors
    /// [`PlaneError::Changed`] when the object is no longer what it was.
    pub async fn add_finalizer(&self, binding: &KymaBinding) -> Result<KymaBinding, PlaneError> {
        let finalizers: Vec<_> = binding.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.set_finalizers("add the finalizer", binding, &finalizers).await
    }

    /// Takes our finalizer off the object as it was seen; one that is gone already is as good.
    ///
    /// # Errors
    /// [`PlaneError::Changed`] when the object is no longer what it was.
    pub async fn remove_finalizer(&self, binding: &KymaBinding) -> Result<(), PlaneError> {
        let finalizers: Vec<_> =
            binding.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
        let begun = self.mirror.writing();
        match self.set_finalizers("remove the finalizer", binding, &finalizers).await {
            Ok(left) => {
                // The last finalizer of what is being deleted takes the object with it.
                if left.is_deleting() && left.finalizers().is_empty() {
                    self.mirror.is_gone(begun, left);
                }
                Ok(())
            }
            Err(PlaneError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn set_finalizers(
        &self,
        action: &'static str,
        binding: &KymaBinding,
        finalizers: &[&str],
    ) -> Result<KymaBinding, PlaneError> {
        let patch =
            json!({"metadata": {"resourceVersion": binding.resource_version(), "finalizers": finalizers}});
        let name = binding.name_any();
        self.call(action, self.bindings.merge(&name, &patch)).await
    }

    /// Asks for the deletion of a binding; one that is gone already is as good.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn delete_binding(&self, binding: &KymaBinding) -> Result<(), PlaneError> {
        let uid = binding.uid().unwrap_or_default();
        let name = binding.name_any();
        match self.call("delete the binding", self.bindings.delete(&name, &uid, None)).await {
            // A conflict says that the name belongs to another binding now.
            Ok(_) | Err(PlaneError::Gone(_) | PlaneError::Changed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The binding as it is now, past all caches.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn binding(&self, name: &str) -> Result<Option<KymaBinding>, PlaneError> {
        self.call("read the binding", self.bindings.get(name)).await
    }

    /// Creates a Secret.
    ///
    /// # Errors
    /// [`PlaneError::Exists`] when there is one of that name.
    pub async fn create_secret(&self, secret: &Secret) -> Result<(), PlaneError> {
        let stored = self.call("create the Secret", self.secrets.create(secret)).await?;
        self.mirror.secrets().stored(stored);
        Ok(())
    }

    /// Metadata of a Secret.
    ///
    /// # Errors
    /// When the control plane refuses or doesn't answer.
    pub async fn find_secret(&self, name: &str) -> Result<Option<ObjectMeta>, PlaneError> {
        self.call("read the Secret", self.secrets.metadata(name)).await
    }

    /// Deletes the Secret with that UID; one that is gone already is as good.
    ///
    /// # Errors
    /// [`PlaneError::Changed`] when the name belongs to another Secret now.
    pub async fn delete_secret(&self, name: &str, uid: &str) -> Result<(), PlaneError> {
        match self.call("delete the Secret", self.secrets.delete(name, uid, None)).await {
            Ok(_) | Err(PlaneError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, PlaneError> {
        let bounded = async {
            // The semaphore is never closed.
            let _permit = self.calls.acquire().await;
            self.check_leading(action)?;
            failpoint::around("controller", action, call).await.map_err(|error| refused(action, &error))
        };
        tokio::time::timeout(DEADLINE, bounded).await.unwrap_or(Err(PlaneError::NoAnswer(action)))
    }

    /// Whether this process may still write, here or in a managed cluster.
    ///
    /// # Errors
    /// [`PlaneError::NotLeading`] when somebody else may be leading by now.
    pub fn check_leading(&self, action: &'static str) -> Result<(), PlaneError> {
        self.fence.holds().then_some(()).ok_or(PlaneError::NotLeading(action))
    }
}

fn refused(action: &'static str, error: &CallError) -> PlaneError {
    match error {
        error if error.is_not_found() => PlaneError::Gone(action),
        error if error.is_already_exists() => PlaneError::Exists(action),
        error if error.is_conflict() => PlaneError::Changed(action),
        CallError::Refused { code, .. } => PlaneError::Refused { action, code: *code },
        CallError::Write(_) | CallError::Send(_) | CallError::Parse => PlaneError::NoAnswer(action),
    }
}
