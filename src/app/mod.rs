//! Starts the parts that a role has, and ends the process when one of them ends.

mod listening;
#[cfg(test)]
mod metrics_docs;
mod tools;

use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use http::Uri;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::crd;
use crate::broker::catalog::{Catalog, CatalogError};
use crate::broker::store_view::Bindings;
use crate::broker::{self, Broker, openapi};
use crate::cli::{Cli, Command, ConfigError, Role, RunArgs};
use crate::cluster::address::Policy;
use crate::controller::context::Settings;
use crate::controller::{BindingController, ControllerError};
use crate::diagnostics::check::CheckError;
use crate::diagnostics::cleanup::CleanupError;
use crate::diagnostics::rbac;
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::fence::Fence;
use crate::kubernetes::lease::{Elector, LeaderError};
use crate::kubernetes::trial::Trial;
use crate::server::listen::{ListenError, listen};
use crate::server::{ADMIN_CONNECTIONS, Server};
use crate::store::Mirror;
use crate::store::metrics;
use crate::support::descriptors;
use crate::support::memory;
use crate::support::reload::{Current, FileError};
use crate::telemetry::admin::{self, Admin, Check};
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tasks::{self, Tasks};
use crate::telemetry::traces::{Traces, TracesError};

/// How long requests in flight may go on after SIGTERM; the process ends within 10 s.
const DRAIN: Duration = Duration::from_secs(8);

/// How long giving up the lease may take.
const RELEASE: Duration = Duration::from_millis(500);

/// How long a broker waits for the first list of a controller that may lead at once.
const SOON: Duration = Duration::from_millis(500);

/// How much longer than a request waits a bind may be in flight.
const IN_FLIGHT_MARGIN: Duration = Duration::from_secs(15);

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Crd(#[from] crd::RenderError),
    #[error(transparent)]
    Openapi(#[from] openapi::RenderError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error("the runtime could not be started")]
    Runtime(#[source] std::io::Error),
    #[error("signals can't be received")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    ControlPlane(#[from] ConnectError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error(transparent)]
    Leader(#[from] LeaderError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    #[error(transparent)]
    Rights(#[from] rbac::RenderError),
    #[error("{0} ended, which it never should")]
    Ended(&'static str),
}

/// The whole program: runs with the given arguments, the program's name first, and says how it went.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    memory::no_core_dumps();
    // Before anything else: whoever makes a TLS connection must find it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args: Vec<_> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && is_json_wished(&args) => {
            eprintln!("{}", logs::json_line(error.to_string().trim()));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let runs = matches!(cli.command, Command::Run(_));
    let done = match cli.command {
        Command::Crd => tools::print_crd(),
        Command::Openapi => tools::print_openapi(),
        Command::Rbac(args) => tools::print_rbac(&args),
        Command::Run(args) => start(args),
        Command::Check(args) => tools::check_it(&args),
        Command::Cleanup(args) => tools::clean_up(&args),
        Command::Version => {
            println!("kyma-bindings {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            if runs {
                tracing::error!("{message}");
            } else {
                eprintln!("error: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether log lines shall be JSON, for what is said before the flags are understood.
fn is_json_wished(args: &[OsString]) -> bool {
    let runs = args.get(1).is_some_and(|command| command == "run");
    let by_flag = args.windows(2).any(|two| two[0] == "--log-format" && two[1] == "json")
        || args.iter().any(|arg| arg == "--log-format=json");
    let by_environment =
        || std::env::var_os("KYMA_BINDINGS_LOG_FORMAT").is_some_and(|format| format == "json");
    runs && (by_flag || by_environment())
}

fn start(args: Box<RunArgs>) -> Result<(), RunError> {
    let traces = Traces::from_env();
    logs::start(args.log_format, args.log_level, traces.as_ref().ok());
    args.check()?;
    let traces = traces?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    // On the workers: what this thread polls, they would have to wake it for.
    let done =
        runtime.block_on(async { part(run(args)).await.unwrap_or(Err(RunError::Ended("the operator"))) });
    // Nothing that still runs may keep the process.
    runtime.shutdown_background();
    traces.flush();
    done
}

/// A part of the operator, which ends with whoever waits for it. Parts wake each other for nothing if they are one task.
fn part<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

async fn run(args: Box<RunArgs>) -> Result<(), RunError> {
    // From the first moment on: whoever asks to stop while this starts shall find it listening.
    let terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let connected = connect(args.kubeconfig.as_deref()).await?;
    let (client, direct) = (connected.client.clone(), connected.direct()?);
    let metrics = Arc::new(Metrics::default());
    metrics.collect(&tasks::DESCRIBED, Tasks(tokio::runtime::Handle::current()));
    let stop = CancellationToken::new();
    let going_on = stop.clone();
    // Whoever sends requests here shall send them elsewhere.
    let mut checks = vec![Check::holds("end of the process", move || !going_on.is_cancelled())];
    let trial = Arc::new(Trial::new(client.clone(), &args.namespace));
    let tried = trial.clone();
    checks.push(Check::explained("control plane", move || tried.why_not()));

    // One list for both; a controller that leads only later begins with another.
    let awaited = if args.role == Role::All { 2 } else { 1 };
    let mirror = Arc::new(Mirror::new(client.clone(), &args.namespace, awaited));
    let broker = if args.role == Role::Controller {
        None
    } else {
        let bindings = Arc::new(Bindings::new(&direct, &args.namespace, mirror.clone()));
        mirror.follow(bindings.clone());
        let synced = mirror.clone();
        checks.push(Check::holds("broker's KymaBindings", move || synced.is_synced()));
        let auth = listening::authenticator(&args, &metrics)?;
        let settings = broker_settings(&args)?;
        let router = Broker::new(bindings, settings, metrics.clone(), stop.clone()).router(auth);
        let tls = listening::certificate(&args.access, &metrics)?;
        let listener = listen("--listen", args.listen).await?;
        let tls_on = tls.is_some();
        tracing::info!(address = address(&listener), tls = tls_on, "serving the Open Service Broker API");
        let server = server("api", listener, tls, descriptors::connections(), &metrics);
        Some((server, router))
    };
    let controller = if args.role == Role::Broker {
        None
    } else {
        let ways = (client.clone(), direct);
        let controller =
            BindingController::new(ways, settings(&args, connected.url()), metrics.clone(), mirror.clone());
        checks.extend(controller.readiness());
        metrics.collect(&metrics::DESCRIBED, metrics::Gauges::new(mirror.clone(), controller.leading()));
        Some(controller)
    };
    let elector = (args.leader_elect && args.role != Role::Broker).then(|| {
        let (namespace, times) = (&args.namespace, args.lease_times());
        Arc::new(Elector::new(client.clone(), namespace, identity(), times, metrics.clone()))
    });
    if let Some(elector) = &elector {
        let standing = elector.standing();
        checks.push(Check::explained("Lease", move || standing.why_not()));
    }
    let admin = listen("--admin-listen", args.admin_listen).await?;
    tracing::info!(address = address(&admin), "serving probes and metrics");
    // It goes on while requests in flight end.
    let never = CancellationToken::new();
    let admin = server("admin", admin, None, ADMIN_CONNECTIONS, &metrics);
    let admin = part(admin.serve(admin::router(Admin { metrics, checks }), never, Duration::ZERO));

    let controller = controller.map(|controller| part(lead(elector.clone(), controller, mirror.clone())));
    let controller = async {
        match controller {
            Some(controller) => controller.await.unwrap_or(Err(RunError::Ended("the controller"))),
            None => std::future::pending().await,
        }
    };
    let broker = broker.map(|(server, router)| part(server.serve(router, stop.clone(), DRAIN)));
    let broker = async {
        match broker {
            Some(serving) => drop(serving.await),
            None => stop.cancelled().await,
        }
    };
    let watching = part(async move { mirror.run().await });
    let trying = part(async move { trial.run().await });
    tracing::info!(role = ?args.role, version = env!("CARGO_PKG_VERSION"), "started");
    let done = tokio::select! {
        () = until_asked_to_stop(terminate, interrupt, &stop) => Ok(()),
        ended = controller => ended,
        _ = admin => Err(RunError::Ended("the admin listener")),
        _ = watching => Err(RunError::Ended("the watch of bindings")),
        _ = trying => Err(RunError::Ended("the trial of the control plane")),
        () = broker => if stop.is_cancelled() { Ok(()) } else { Err(RunError::Ended("the broker")) },
    };
    // Nothing reconciles any more, so somebody else may at once.
    if let Some(elector) = &elector {
        let _ = tokio::time::timeout(RELEASE, elector.release()).await;
    }
    tracing::info!("stopped");
    done
}

fn server(
    name: &'static str,
    listener: TcpListener,
    tls: Option<Arc<Current<ServerConfig>>>,
    connections: usize,
    metrics: &Arc<Metrics>,
) -> Server {
    Server { name, listener, tls, connections, metrics: metrics.clone() }
}

/// Reconciles while this process leads, and ends with its leadership.
async fn lead(
    elector: Option<Arc<Elector>>,
    controller: BindingController,
    mirror: Arc<Mirror>,
) -> Result<(), RunError> {
    let Some(elector) = elector else { return Ok(Box::pin(controller.run(Fence::open())).await?) };
    let mut acquire = pin!(elector.acquire());
    let lease = if let Ok(lease) = tokio::time::timeout(SOON, &mut acquire).await {
        lease
    } else {
        mirror.await_anybody();
        acquire.await
    };
    tokio::select! {
        ended = Box::pin(controller.run(elector.fence())) => Ok(ended?),
        lost = elector.keep(lease) => Err(lost.into()),
    }
}

/// A name that no other process has: the pod's, and something drawn.
fn identity() -> String {
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "kyma-bindings".to_owned());
    format!("{pod}_{:016x}", rand::random::<u64>())
}

/// Where it really listens: a flag may say port 0.
fn address(listener: &TcpListener) -> Option<String> {
    listener.local_addr().ok().map(|address| address.to_string())
}

/// Ends only when draining has taken its time; usually the broker is done before.
async fn until_asked_to_stop(mut terminate: Signal, mut interrupt: Signal, stop: &CancellationToken) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to stop: no new connections, requests in flight go on");
    stop.cancel();
    tokio::time::sleep(DRAIN + Duration::from_secs(1)).await;
}

fn broker_settings(args: &RunArgs) -> Result<broker::Settings, RunError> {
    let lifetimes = args.lifetimes();
    let catalog = args.broker.catalog.as_deref().map(|path| Catalog::load(path, lifetimes)).transpose()?;
    Ok(broker::Settings {
        lifetimes,
        create_timeout: args.create_timeout,
        async_after: args.broker.async_after,
        renewal: args.broker.renew_before_percentage,
        catalog,
        api_docs: args.broker.api_docs,
        max_in_flight: usize::try_from(args.access.max_in_flight).unwrap_or(usize::MAX),
    })
}

fn settings(args: &RunArgs, control_plane: &Uri) -> Settings {
    let host = control_plane.host().map(str::to_owned);
    let server = host.map(|host| (host, control_plane.port_u16().unwrap_or(443)));
    Settings {
        servers: Arc::new(Policy::new(&args.managed_server_allow, server)),
        namespace: args.namespace.clone(),
        instance_namespace: args.instance_namespace.clone(),
        managed_namespace: args.managed_namespace.clone(),
        max_bindings: usize::from(args.max_bindings_per_instance),
        bindable_plans: args.bindable_plans.clone(),
        lifetimes: (args.min_expiration_seconds, args.max_expiration_seconds),
        sweep_interval: args.sweep_interval,
        young: args.create_timeout + IN_FLIGHT_MARGIN,
    }
}
