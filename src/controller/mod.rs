//! The controller: it alone decides and makes. Fetch, decide, apply, write the status.

pub mod apply;
pub mod backoff;
pub mod context;
pub mod decide;
mod events;
mod expiry;
pub mod gauges;
pub mod health;
pub mod leader;
pub mod ledger;
pub mod limit;
mod mend;
pub mod plane;
mod queue;
pub mod reconcile;
pub mod record;
pub mod schedule;
pub mod secrets;
pub mod status;
pub mod strays;
pub mod sweep;
pub mod sweeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, Stream};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::api::binding::KymaBinding;
use crate::api::names::{MANAGED_BY, MANAGED_BY_VALUE, TRACEPARENT, TRACESTATE};
use crate::clock;
use crate::instances::Instances;
use crate::managed::connect::Deadlines;
use crate::managed::{Clients, ControlPlane};
use crate::own_writes::End;
use crate::telemetry::admin::Check;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;
use crate::telemetry::watch::{again, heard};
use context::{Context, Settings};
use health::Health;
use leader::Fence;
use ledger::Ledger;
use plane::Plane;
use queue::Action;
use reconcile::Error;
use secrets::Secrets;

/// Most bindings that wait to be looked at beside those that have changed.
const MAX_LOOKS: usize = 1024;
/// Longest wait for the control plane's identity.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// It does not know in which control plane it is.
    #[error(
        "cannot read namespace kube-system, whose UID identifies this control plane (HTTP {0}): \
         'get' on it must be allowed"
    )]
    NotIdentified(u16),
    /// The control plane can't be asked.
    #[error("the control plane does not answer")]
    NoAnswer,
    /// A watch ended, which it never should.
    #[error("the controller's stream of events ended")]
    Ended,
}

/// A controller that is set up but does not run yet.
pub struct BindingController {
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    instances: Arc<Instances>,
    changes: mpsc::Receiver<String>,
    secrets: Arc<Secrets>,
    store: Store<KymaBinding>,
    writer: reflector::store::Writer<KymaBinding>,
    ledger: Arc<Mutex<Ledger>>,
    leading: Arc<AtomicBool>,
    broker: End,
}

impl BindingController {
    /// Sets up; nothing is read or written before [`Self::run`]. `broker` is the way to one in this process.
    #[must_use]
    pub fn new(client: Client, settings: Settings, metrics: Arc<Metrics>, broker: End) -> Self {
        let (instances, changes) = Instances::new();
        let (store, writer) = reflector::store();
        Self {
            client,
            settings,
            metrics,
            instances: Arc::new(instances),
            changes,
            secrets: Arc::default(),
            store,
            writer,
            ledger: Arc::default(),
            leading: Arc::default(),
            broker,
        }
    }

    /// The bindings as the controller's watch has them.
    #[must_use]
    pub fn store(&self) -> Store<KymaBinding> {
        self.store.clone()
    }

    /// What readiness depends on, by name. Whoever stands by has nothing to wait for.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        let (instances, secrets, ledger) =
            (self.instances.clone(), self.secrets.clone(), self.ledger.clone());
        let check = |synced: Box<dyn Fn() -> bool + Send + Sync>| -> Box<dyn Fn() -> bool + Send + Sync> {
            let leading = self.leading.clone();
            Box::new(move || !leading.load(Ordering::Relaxed) || synced())
        };
        vec![
            ("instances", check(Box::new(move || instances.is_synced()))),
            ("binding Secrets", check(Box::new(move || secrets.is_synced()))),
            ("controller's KymaBindings", check(Box::new(move || ledger.lock().is_listed()))),
        ]
    }

    /// Whether this process reconciles.
    #[must_use]
    pub fn leading(&self) -> Arc<AtomicBool> {
        self.leading.clone()
    }

    /// Reconciles, as long as the fence holds, until it fails; a process without a controller
    /// should not go on. Everything is listed only now: a new leader decides on nothing older.
    ///
    /// # Errors
    /// When the control plane can't be identified, or a stream ends.
    pub async fn run(self, fence: Fence) -> Result<(), ControllerError> {
        let Self { client, settings, metrics, instances, changes, secrets, store, writer, .. } = self;
        let Self { ledger, leading, broker, .. } = self;
        leading.store(true, Ordering::Relaxed);
        let control_plane = identify(&client, &settings.namespace).await?;
        let bindings: Api<KymaBinding> = Api::namespaced(client.clone(), &settings.namespace);
        let secret_events = of_secrets(client.clone(), &settings.namespace);
        let reporter = Reporter { controller: MANAGED_BY_VALUE.into(), instance: None };
        let (look, looks) = mpsc::channel(MAX_LOOKS);
        let lost = look.clone();
        let holds = fence.clone();
        let gate = Arc::new(move || holds.holds());
        let context = Arc::new(Context {
            disarming: watch::Sender::new(0),
            control_plane,
            look,
            plane: Plane::new(client.clone(), &settings.namespace, fence, broker.tell, broker.secrets),
            store: store.clone(),
            ledger: ledger.clone(),
            secrets: secrets.clone(),
            instances: instances.clone(),
            clients: Clients::new(
                client.clone(),
                &settings.instance_namespace,
                Deadlines::default(),
                settings.servers.clone(),
                gate,
                metrics.clone(),
            ),
            health: Health::default(),
            recorder: Recorder::new(client.clone(), reporter),
            metrics: metrics.clone(),
            settings,
        });
        // The ledger takes in every event before the store shows it to a reconcile.
        let remember = ledger.clone();
        let stray = Arc::new(Notify::new());
        let found_stray = stray.clone();
        let listed = store.clone();
        let events = watcher(bindings, watcher::Config::default()).backoff(again());
        let events = broker
            .listen
            .beside(events)
            .modify(|binding| binding.managed_fields_mut().clear())
            .inspect_ok(move |event| {
                if remember.lock().observe(event, clock::now()) {
                    found_stray.notify_one();
                }
            })
            .reflect(writer);
        let touched =
            heard("KymaBindings", events).flat_map(move |event| stream::iter(touched(event, &listed)));
        let namespace = context.settings.namespace.clone();
        let seen = move |name: &str| store.get(&ObjectRef::new(name).within(&namespace));
        let issued = seen.clone();
        // What is being removed loses its Secret as it should.
        let touched_by_loss = ReceiverStream::new(looks)
            .filter(move |name| std::future::ready(issued(name).is_some_and(|b| is_kept(&b))));
        let swept = Arc::new(sweeper::Changes::default());
        let to_sweep = swept.clone();
        let touched_by_instance = ReceiverStream::new(changes).flat_map(move |instance| {
            to_sweep.tell(&instance);
            stream::iter(ledger.lock().names_of(&instance))
        });
        // Each part is a task, so that an event of one doesn't wake all.
        let mut parts = JoinSet::new();
        let (ctx, known) = (context.clone(), instances.clone());
        parts.spawn(async move {
            // Before, every instance looks absent.
            known.synced().await;
            strays::run(ctx, &stray).await;
        });
        let (ctx, known) = (context.clone(), instances.clone());
        parts.spawn(async move {
            known.synced().await;
            sweeper::run(ctx, &swept).await;
        });
        let (ctx, known, their) = (context.clone(), instances.clone(), secrets.clone());
        parts.spawn(async move {
            // What doesn't know all instances and Secrets would take them for gone.
            futures::join!(known.synced(), their.synced());
            let names = stream::select(stream::select(touched, touched_by_instance), touched_by_loss);
            // No bound on concurrency: a slow cluster must not keep the others waiting. Calls under
            // way are bounded where they are made: to the control plane, and to each cluster.
            let round = |name: &str| Some(guarded(seen(name)?, ctx.clone(), metrics.clone()));
            queue::run(names, round).await;
        });
        let (ctx, known) = (context.clone(), instances.clone());
        parts.spawn(async move { known.run(client, &ctx.settings.instance_namespace).await });
        parts.spawn(async move { secrets.follow(secret_events, &lost).await });
        parts.spawn(async move { context.health.watch(&context.clients, &instances, &context.ledger).await });
        parts.join_next().await;
        Err(ControllerError::Ended)
    }
}

/// What happens to the Secrets of bindings, without their data.
fn of_secrets(
    client: Client,
    namespace: &str,
) -> impl Stream<Item = Event<PartialObjectMeta<Secret>>> + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, namespace);
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_VALUE}"));
    heard("binding Secrets", watcher(secrets, ours).backoff(again()))
}

/// Runs a round and counts it.
async fn guarded(binding: Arc<KymaBinding>, ctx: Arc<Context>, metrics: Arc<Metrics>) -> Action {
    let began = Instant::now();
    let _under_way = metrics.reconcile();
    // It goes on in the trace of the request that made the binding.
    let span = tracing::info_span!(
        "reconcile",
        otel.status_code = Empty,
        binding_id = binding.name_any(),
        instance_id = binding.spec.instance_id
    );
    let said = |key: &str| binding.annotations().get(key).map(String::as_str);
    traces::follow(&span, said(TRACEPARENT), said(TRACESTATE));
    let round = reconcile::reconcile(binding.clone(), ctx.clone()).instrument(span.clone());
    let result = caught(round).await;
    if result.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    metrics.reconciled(result.is_ok(), began.elapsed());
    result.unwrap_or_else(|error| reconcile::after_error(&binding, &error, &ctx))
}

/// Runs something as a task of its own: a panic ends the task, not the stream that all live on.
async fn caught(
    round: impl Future<Output = Result<Action, Error>> + Send + 'static,
) -> Result<Action, Error> {
    AbortOnDropHandle::new(tokio::spawn(round)).await.unwrap_or(Err(Error::Panicked))
}

/// Names of the bindings to look at after an event. Those of a list are looked at when it is complete: the
/// store shows none of them before, and an object that it doesn't show is passed over.
fn touched(event: Event<KymaBinding>, store: &Store<KymaBinding>) -> Vec<String> {
    match event {
        Event::Apply(binding) => vec![binding.name_any()],
        Event::InitDone => store.state().iter().map(|binding| binding.name_any()).collect(),
        Event::Init | Event::InitApply(_) | Event::Delete(_) => Vec::new(),
    }
}

/// Whether a binding was issued and shall stay so.
fn is_kept(binding: &KymaBinding) -> bool {
    decide::is_issued(binding) && !binding.is_deleting()
}

async fn identify(client: &Client, namespace: &str) -> Result<ControlPlane, ControllerError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let read = tokio::time::timeout(IDENTIFY_TIMEOUT, namespaces.get_metadata("kube-system")).await;
    let system = match read {
        Ok(Ok(system)) => system,
        Ok(Err(kube::Error::Api(status))) => return Err(ControllerError::NotIdentified(status.code)),
        Ok(Err(_)) | Err(_) => return Err(ControllerError::NoAnswer),
    };
    Ok(ControlPlane { id: system.uid().unwrap_or_default(), namespace: namespace.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_that_round_alone() {
        let result = caught(async { panic!("a defect") }).await;
        assert!(matches!(result, Err(Error::Panicked)));
        assert!(caught(async { Ok(Action::await_change()) }).await.is_ok());
    }
}
