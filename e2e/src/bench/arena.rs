//! The clusters of a run, and the operator that is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, Patch, PatchParams, WatchEvent, WatchParams};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::conditions::Kind;

use super::delay::DelayLine;
use super::floor::Floor;
use crate::cluster::client_from;
use crate::operator::AS_OPERATOR;
use crate::stage::{install_crd, prepare_managed};
use crate::{Cluster, Operator, Osb, Stage};

/// Half of the long way's round trip.
const ONE_WAY: Duration = Duration::from_millis(25);
/// Instances of a site: each has calls to its cluster of its own, as in life.
const INSTANCES: usize = 16;
/// Most bindings of an instance here.
const LIMIT: &str = "1000";

/// What is measured.
#[derive(Debug, Clone)]
pub enum Program {
    /// A program that is the operator, as it is shipped.
    Shipped(PathBuf),
    /// One that becomes it, such as a test.
    Becomes(PathBuf),
}

impl Program {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Shipped(path) | Self::Becomes(path) => path,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        if let Self::Becomes(_) = self {
            command.arg(AS_OPERATOR);
        }
        command
    }
}

/// A control plane, a managed cluster, a long way to it, and the program under test.
pub struct Arena {
    /// Where the bindings are.
    pub control: Cluster,
    /// The cluster of all instances.
    pub managed: Cluster,
    line: DelayLine,
    program: Program,
}

/// How far it is to the managed cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On this machine.
    Short,
    /// 50 ms there and back.
    Long,
}

/// An operator at work, and beside it the floor, in namespaces of its own.
pub struct Site<'a> {
    /// Where the operator works.
    pub stage: Stage<'a>,
    /// The operator; without its broker, if that is apart.
    pub operator: Operator,
    /// The broker, if it is apart.
    pub broker: Option<Operator>,
    /// Its API.
    pub osb: Osb,
    /// What it is compared with.
    pub floor: Floor,
    /// Its instances.
    pub instances: Vec<String>,
    /// Two clients, so that what is applied finds a connection, which a watch would take.
    applied: Api<KymaBinding>,
    watched: Api<KymaBinding>,
}

impl Arena {
    /// Starts the clusters.
    ///
    /// # Errors
    /// When one doesn't start.
    pub async fn start(program: Program) -> Result<Self> {
        let (control, managed) =
            tokio::try_join!(Cluster::start("bench-control"), Cluster::start("bench-managed"))?;
        install_crd(&control).await?;
        prepare_managed(&managed).await?;
        let line = DelayLine::start(managed.url(), ONE_WAY).await?;
        Ok(Self { control, managed, line, program })
    }

    /// The kubeconfig of the managed cluster.
    #[must_use]
    pub fn kubeconfig(&self, way: Way) -> String {
        match way {
            Way::Short => self.managed.admin_kubeconfig(),
            Way::Long => self.line.through(&self.managed.admin_kubeconfig()),
        }
    }

    /// An operator with its instances, and a floor of the same way.
    ///
    /// # Errors
    /// When it doesn't get ready.
    pub async fn site(&self, name: &str, way: Way) -> Result<Site<'_>> {
        self.prepared(name, way, false).await
    }

    /// The same near, where broker and controller are a process each.
    ///
    /// # Errors
    /// As [`Self::site`].
    pub async fn apart(&self, name: &str) -> Result<Site<'_>> {
        self.prepared(name, Way::Short, true).await
    }

    async fn prepared(&self, name: &str, way: Way, apart: bool) -> Result<Site<'_>> {
        let stage = Stage::new(&self.control, name).await?;
        let beside = Stage::new(&self.control, &format!("{name}-floor")).await?;
        let kubeconfig = self.kubeconfig(way);
        let floor = Floor::new(&beside, &client_from(&kubeconfig).await?);
        let instances = register(&stage, name, INSTANCES, &kubeconfig).await?;
        let role: &[&str] = if apart { &["--role", "controller"] } else { &[] };
        let operator = self.operator(&stage, role).await?;
        let mut site = Site::new(stage, operator, floor, instances);
        if apart {
            let broker = self.operator(&site.stage, &["--role", "broker"]).await?;
            site.osb = broker.osb();
            site.broker = Some(broker);
        }
        site.warm(name).await?;
        Ok(site)
    }

    /// The operator of a stage, as it is shipped and with its defaults, but for the limit and the sweeps.
    ///
    /// # Errors
    /// When it doesn't get ready.
    pub async fn operator(&self, stage: &Stage<'_>, args: &[&str]) -> Result<Operator> {
        let (began, operator) = self.begin(stage, args).await?;
        operator.ready().await.with_context(|| format!("{:?} after its start", began.elapsed()))?;
        Ok(operator)
    }

    /// The same as soon as it listens.
    ///
    /// # Errors
    /// When it ends.
    pub async fn begin(&self, stage: &Stage<'_>, args: &[&str]) -> Result<(Instant, Operator)> {
        let settings =
            ["--max-bindings-per-instance", LIMIT, "--sweep-interval", "24h", "--log-level", "info"];
        let args = [&stage.args()[..], &settings, args].concat();
        let began = Instant::now();
        let started =
            Operator::launch_command(self.program.command(), self.control.kubeconfig_path(), &args).await?;
        Ok((began, started))
    }
}

/// Registers instances that all have the same cluster; returns their names.
///
/// # Errors
/// When the API server refuses.
pub async fn register(stage: &Stage<'_>, name: &str, number: usize, kubeconfig: &str) -> Result<Vec<String>> {
    let names: Vec<_> = (0..number).map(|i| format!("i-{name}-{i}")).collect();
    let register = |i: usize| {
        let (instance, runtime) = (&names[i], format!("r-{name}-{i}"));
        async move { stage.register(instance, &runtime, kubeconfig).await }
    };
    stream::iter(0..number).map(register).buffer_unordered(16).try_collect::<()>().await?;
    Ok(names)
}

impl<'a> Site<'a> {
    /// Of an operator that runs on the stage.
    #[must_use]
    pub fn new(stage: Stage<'a>, operator: Operator, floor: Floor, instances: Vec<String>) -> Self {
        let [applied, watched] = [stage.bindings(), stage.bindings()];
        Self { osb: operator.osb(), stage, operator, broker: None, floor, instances, applied, watched }
    }

    /// Connections are made, and clients of all instances.
    async fn warm(&self, name: &str) -> Result<()> {
        let bind = |i: usize| async move {
            let name = format!("{name}-warm-{i}");
            self.bind(i, &name).await?;
            self.unbind(i, &name).await?;
            self.floor.bind(&format!("floor-{name}")).await?;
            self.floor.unbind(&format!("floor-{name}")).await
        };
        stream::iter(0..self.instances.len()).map(bind).buffer_unordered(4).try_collect::<()>().await?;
        let applied = format!("{name}-warm");
        self.apply(0, &applied).await?;
        self.unbind(0, &applied).await
    }

    fn instance(&self, number: usize) -> &str {
        &self.instances[number % self.instances.len()]
    }

    /// PUT, up to 201.
    ///
    /// # Errors
    /// Another answer.
    pub async fn bind(&self, number: usize, name: &str) -> Result<()> {
        let answer = self.osb.bind(self.instance(number), name, None).await?;
        ensure!(answer.status == 201, "PUT {name}: {} {}", answer.status, answer.description());
        Ok(())
    }

    /// The same PUT again.
    ///
    /// # Errors
    /// Another answer than 200.
    pub async fn bind_again(&self, number: usize, name: &str) -> Result<()> {
        let answer = self.osb.bind(self.instance(number), name, None).await?;
        ensure!(answer.status == 200, "PUT {name} again: {} {}", answer.status, answer.description());
        Ok(())
    }

    /// GET.
    ///
    /// # Errors
    /// Another answer than 200.
    pub async fn fetch(&self, number: usize, name: &str) -> Result<()> {
        let answer = self.osb.fetch(self.instance(number), name).await?;
        ensure!(answer.status == 200, "GET {name}: {} {}", answer.status, answer.description());
        Ok(())
    }

    /// DELETE.
    ///
    /// # Errors
    /// Another answer than 200.
    pub async fn unbind(&self, number: usize, name: &str) -> Result<()> {
        let answer = self.osb.unbind(self.instance(number), name).await?;
        ensure!(answer.status == 200, "DELETE {name}: {} {}", answer.status, answer.description());
        Ok(())
    }

    /// Applies a binding; the time until its watch says that it is ready.
    ///
    /// # Errors
    /// When the watch ends before.
    pub async fn apply(&self, number: usize, name: &str) -> Result<Duration> {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = self.watched.watch(&params, "0").await?.boxed();
        let object = serde_json::json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {"name": name}, "spec": {"instanceId": self.instance(number)},
        });
        let began = Instant::now();
        let params = PatchParams::apply("kubectl").force();
        self.applied.patch(name, &params, &Patch::Apply(&object)).await?;
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(binding) | WatchEvent::Modified(binding) = event
                && binding.is(Kind::Ready)
            {
                return Ok(began.elapsed());
            }
        }
        anyhow::bail!("the watch of {name} ended before it was ready")
    }

    /// The metrics of the operator.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.operator.admin("/metrics").await?.1)
    }
}
