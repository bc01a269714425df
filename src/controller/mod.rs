//! The controller: it alone decides and makes. Fetch, decide, apply, write the status.

pub mod abandoned;
pub mod bind;
pub mod context;
pub mod decide;
pub mod dirty;
mod events;
mod expiry;
pub mod gc;
pub mod health;
mod identity;
pub mod ledger;
mod look;
mod permanent;
mod queue;
pub mod reconcile;
mod repair;
pub mod secret_index;
pub mod status;
pub mod writer;

use crate::controller::gc::bypass;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::{StreamExt as _, stream};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::api::binding::KymaBinding;
use crate::api::id::Id;
use crate::api::names::{MANAGED_BY, MANAGED_BY_VALUE, TRACEPARENT, TRACESTATE};
use crate::cluster::Clients;
use crate::cluster::connect::Deadlines;
use crate::instances::Instances;
use crate::kubernetes::direct;
use crate::kubernetes::watch::follow;
use crate::store::{Change, Follower, Mirror};
use crate::support::clock;

use crate::controller::dirty::Touched;
use crate::controller::ledger::backoff::Retry;
use crate::controller::secret_index::Secrets;
use crate::controller::writer::Plane;
use crate::kubernetes::fence::Fence;
use crate::telemetry::admin::Check;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;
use abandoned::Abandoned;
use context::{Context, Settings};
use health::Health;
use identity::IdentityError;
use ledger::Ledger;
use look::{Found, Plan};
use queue::{Action, Turn};
use reconcile::Error;

/// Most bindings that wait to be looked at beside those that have changed.
const MAX_LOOKS: usize = 1024;

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// It does not know in which control plane it is.
    #[error(transparent)]
    NotIdentified(#[from] IdentityError),
    /// A part of it ended, which it never should.
    #[error("the controller's stream of events ended")]
    Ended,
}

/// A controller that is set up but does not run yet.
pub struct BindingController {
    client: Client,
    direct: direct::Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    instances: Arc<Instances>,
    changes: mpsc::Receiver<String>,
    secrets: Arc<Secrets>,
    mirror: Arc<Mirror>,
    ledger: Arc<Mutex<Ledger>>,
    leading: Arc<AtomicBool>,
}

impl BindingController {
    /// Sets up, with kube's client of the control plane and the direct one; nothing is read or written before
    /// [`Self::run`].
    #[must_use]
    pub fn new(
        (client, direct): (Client, direct::Client),
        settings: Settings,
        metrics: Arc<Metrics>,
        mirror: Arc<Mirror>,
    ) -> Self {
        let (instances, changes) = Instances::new();
        let ledger = Ledger::new(settings.max_bindings);
        Self {
            client,
            direct,
            settings,
            metrics,
            instances: Arc::new(instances),
            changes,
            secrets: Arc::default(),
            mirror,
            ledger: Arc::new(Mutex::new(ledger)),
            leading: Arc::default(),
        }
    }

    /// What readiness depends on, by name. Whoever stands by has nothing to wait for.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        let (instances, secrets, ledger) =
            (self.instances.clone(), self.secrets.clone(), self.ledger.clone());
        let check = |name, synced: Box<dyn Fn() -> bool + Send + Sync>| {
            let leading = self.leading.clone();
            Check::holds(name, move || !leading.load(Ordering::Relaxed) || synced())
        };
        vec![
            check("instances", Box::new(move || instances.is_synced())),
            check("binding Secrets", Box::new(move || secrets.is_synced())),
            check("controller's KymaBindings", Box::new(move || ledger.lock().is_listed())),
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
        let Self { client, direct, settings, metrics, instances, changes, secrets, mirror, ledger, leading } =
            self;
        leading.store(true, Ordering::Relaxed);
        metrics.begin(&events::cluster_reasons(), &permanent::words());
        let following = Arc::new(Following::new(ledger.clone()));
        mirror.follow(following.clone());
        let control_plane = identity::identify(&client, &settings.namespace).await?;
        let ours = format!("{MANAGED_BY}={MANAGED_BY_VALUE}");
        let secret_events = follow("binding Secrets", client.clone(), &settings.namespace, Some(&ours));
        let reporter = Reporter { controller: MANAGED_BY_VALUE.into(), instance: None };
        let (look, looks) = mpsc::channel(MAX_LOOKS);
        let lost = look.clone();
        let holds = fence.clone();
        let gate = Arc::new(move || holds.holds());
        let context = Arc::new(Context {
            disarming: watch::Sender::new(0),
            control_plane,
            look,
            plane: Plane::new(&direct, &settings.namespace, fence, mirror.clone()),
            mirror: mirror.clone(),
            ledger: ledger.clone(),
            touched: following.touched.clone(),
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
            abandoned: Abandoned::default(),
            recorder: Recorder::new(client.clone(), reporter),
            metrics: metrics.clone(),
            settings,
        });
        let (touched, follows) = (following.touched.clone(), following.clone());
        // Until then the mirror may show what was there before this process led.
        let seen =
            move |name: &Id| follows.listed.load(Ordering::Acquire).then(|| mirror.get(name)).flatten();
        let issued = seen.clone();
        // What is being removed loses its Secret as it should.
        let touched_by_loss = ReceiverStream::new(looks)
            .filter(move |name| {
                std::future::ready(issued(&name.as_str().into()).is_some_and(|b| is_kept(&b)))
            })
            .map(|name| Id::from(name.as_str()));
        let swept = Arc::<Touched>::default();
        let to_sweep = swept.clone();
        let touched_by_instance = ReceiverStream::new(changes).flat_map(move |instance| {
            to_sweep.tell(instance.as_str());
            stream::iter(ledger.lock().names_of(&instance)).map(|name| Id::from(name.as_str()))
        });
        // Each part is a task, so that an event of one doesn't wake all.
        let mut parts = JoinSet::new();
        let (ctx, known) = (context.clone(), instances.clone());
        parts.spawn(async move {
            // Before, every instance looks absent.
            known.synced().await;
            bypass::run(ctx, &following.stray).await;
        });
        let (ctx, known) = (context.clone(), instances.clone());
        parts.spawn(async move {
            known.synced().await;
            gc::run(ctx, &swept).await;
        });
        let (ctx, known, their) = (context.clone(), instances.clone(), secrets.clone());
        parts.spawn(async move {
            // What doesn't know all instances and Secrets would take them for gone.
            futures::join!(known.synced(), their.synced());
            let names =
                stream::select(stream::select(touched.stream(), touched_by_instance), touched_by_loss);
            // No bound on concurrency: a slow cluster must not keep the others waiting. Calls under
            // way are bounded where they are made: to the control plane, and to each cluster.
            let round = |name: &Id| Some(turn(seen(name)?, ctx.clone(), metrics.clone()));
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

/// What the controller hears of each binding.
struct Following {
    ledger: Arc<Mutex<Ledger>>,
    /// Whether the mirror shows a list that began when this process led.
    listed: AtomicBool,
    touched: Arc<Touched>,
    stray: Notify,
}

impl Following {
    fn new(ledger: Arc<Mutex<Ledger>>) -> Self {
        Self { ledger, listed: AtomicBool::new(false), touched: Arc::default(), stray: Notify::new() }
    }
}

impl Follower for Following {
    /// The ledger takes in every event before the mirror shows it to a reconcile.
    fn comes(&self, event: &Event<KymaBinding>) {
        if self.touched.wake(&self.ledger, |ledger| ledger.observe(event, clock::now())) {
            self.stray.notify_one();
        }
    }

    fn shown(&self, change: &Change<'_>) {
        match change {
            Change::Changed(name) => self.touched.tell(*name),
            Change::Gone(..) => {}
            Change::Listed { now, .. } => {
                self.listed.store(true, Ordering::Release);
                now.names().for_each(|name| self.touched.tell(name.clone()));
            }
        }
    }
}

/// Has a look at a binding, and takes the step that is found.
fn turn(
    binding: Arc<KymaBinding>,
    ctx: Arc<Context>,
    metrics: Arc<Metrics>,
) -> Turn<impl Future<Output = Action>> {
    let began = Instant::now();
    let looked = catch_unwind(AssertUnwindSafe(|| look::look(&binding, &ctx)));
    match looked.map_or(Err(Error::Panicked), |found| found.map_err(Error::Name)) {
        Ok(Found::Rest(action)) => {
            metrics.reconciled(true, began.elapsed());
            Turn::Done(action)
        }
        Ok(Found::Act(plan)) => Turn::Goes(guarded(plan, binding, ctx, metrics, began)),
        Err(error) => {
            metrics.reconciled(false, began.elapsed());
            Turn::Done(reconcile::after_error(&binding, &error, &Retry::default(), &ctx))
        }
    }
}

/// Takes a step and counts it.
async fn guarded(
    plan: Box<Plan>,
    binding: Arc<KymaBinding>,
    ctx: Arc<Context>,
    metrics: Arc<Metrics>,
    began: Instant,
) -> Action {
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
    let retry = plan.known.retry.clone();
    let round = reconcile::act(*plan, binding.clone(), ctx.clone()).instrument(span.clone());
    let result = caught(round).await;
    if result.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    metrics.reconciled(result.is_ok(), began.elapsed());
    result.unwrap_or_else(|error| reconcile::after_error(&binding, &error, &retry, &ctx))
}

/// Runs something as a task of its own: a panic ends the task, not the stream that all live on.
async fn caught(
    round: impl Future<Output = Result<Action, Error>> + Send + 'static,
) -> Result<Action, Error> {
    AbortOnDropHandle::new(tokio::spawn(round)).await.unwrap_or(Err(Error::Panicked))
}

/// Whether a binding was issued and shall stay so.
fn is_kept(binding: &KymaBinding) -> bool {
    decide::is_issued(binding) && !binding.is_deleting()
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
