//! What all requests share: the bindings, the settings, and the steps that more than one takes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::ids::Ids;
use super::request::Lifetimes;
use crate::api::secret;
use crate::broker::error::{Problem, Why};
use crate::broker::response::Credentials;
use crate::broker::store_view::{Bindings, Progress, View};
use crate::support::secret::SecretString;
use crate::telemetry::metrics::Metrics;

/// What the operator's owner has set.
#[derive(Debug)]
pub struct Settings {
    /// Bounds of `expiration_seconds`.
    pub lifetimes: Lifetimes,
    /// Longest wait for a bind or an unbind.
    pub create_timeout: Duration,
    /// Longest wait where the client takes an incomplete answer.
    pub async_after: Duration,
    /// Which part of a lifetime, at its end, is for renewal, percent.
    pub renewal: u8,
    /// Services and plans, where they are to be served and checked.
    pub catalog: Option<Catalog>,
    /// Whether the OpenAPI document and Swagger UI are served.
    pub api_docs: bool,
    /// Most requests under way at once; each waiting bind is one.
    pub max_in_flight: usize,
}

/// How a removal went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// It was there and nothing of it is left.
    Gone,
    /// There was none of that UID.
    Absent,
    /// It is still there.
    NotYet,
}

/// The broker.
pub struct Broker {
    pub(super) bindings: Arc<Bindings>,
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) in_flight: Arc<Semaphore>,
    /// Cancelled when the process shall end.
    pub(super) stop: CancellationToken,
}

impl Broker {
    /// A broker on the given bindings, which answers what is under way soon after `stop`.
    #[must_use]
    pub fn new(
        bindings: Arc<Bindings>,
        settings: Settings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let in_flight = Arc::new(Semaphore::new(settings.max_in_flight));
        Self { bindings, settings, metrics, in_flight, stop }
    }

    /// Until when a request that begins now may wait.
    pub(super) fn deadline(&self, incomplete: bool) -> Instant {
        let Settings { create_timeout, async_after, .. } = self.settings;
        Instant::now() + if incomplete { async_after.min(create_timeout) } else { create_timeout }
    }

    pub(super) fn credentials(
        &self,
        kubeconfig: SecretString,
        expires_at: Timestamp,
        view: &View,
    ) -> Credentials {
        let View { created, seconds, .. } = *view;
        Credentials { kubeconfig, created, expires_at, seconds, renewal: self.settings.renewal }
    }

    /// The kubeconfig of a binding, only from a Secret of exactly our shape: the one that this process has just
    /// `stored`, or the one that is read.
    pub(super) async fn kubeconfig(
        &self,
        ids: &Ids,
        uid: &str,
        expires_at: Timestamp,
        stored: Option<Secret>,
    ) -> Result<SecretString, Problem> {
        let in_it = |secret| secret::kubeconfig(secret, &ids.binding, uid, expires_at);
        if let Some(kubeconfig) = stored.and_then(in_it) {
            return Ok(kubeconfig);
        }
        let found = self.bindings.secret(&ids.binding.object_name()).await?.ok_or(Problem::SecretMissing)?;
        in_it(found).ok_or(Problem::SecretChanged)
    }

    /// Deletes the binding with that UID and waits until it is gone, which the controller lets
    /// happen only when nothing of it is left.
    pub(super) async fn remove(&self, name: &str, uid: &str, deadline: Instant) -> Result<Removed, Problem> {
        self.remove_version(name, uid, None, deadline).await
    }

    /// The same, if it still is as it was read.
    pub(super) async fn remove_version(
        &self,
        name: &str,
        uid: &str,
        version: Option<&str>,
        deadline: Instant,
    ) -> Result<Removed, Problem> {
        let ask = self.bindings.delete(name, uid, version);
        let (found, gone) = self
            .bindings
            .watch(name, deadline, ask, |found, sight| (!found || sight.gone.contains(uid)).then_some(()))
            .await?;
        if !found {
            return Ok(Removed::Absent);
        }
        if gone.is_some() {
            return Ok(Removed::Gone);
        }
        // A watch that had to start anew may never have seen it.
        let left = self.bindings.read(name).await?;
        Ok(if left.is_none_or(|left| left.uid != uid) { Removed::Gone } else { Removed::NotYet })
    }

    /// Why a binding isn't where it should be, as far as its conditions say.
    pub(super) fn why(&self, name: &str) -> Why {
        Why(self.bindings.seen(name).and_then(|view| match view.progress {
            Progress::Stopped(_, message) => Some(message),
            Progress::Pending | Progress::Ready(_) => None,
        }))
    }
}
