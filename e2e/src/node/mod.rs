//! A whole Kubernetes: two nodes with kubelet, containerd and pods, scheduler, controllers and
//! Services, in namespaces of their own.
//!
//! Nothing of it is left on the machine, whatever ends the process, and several can run side by side. It
//! needs root, control groups v1 and Debian's `apt-get`; the programs are found or built like others.
//! Nodes share a network, and see nothing of the machine's: what pods shall reach has to be in it.

mod config;
mod programs;
mod worker;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Api;

use crate::apiserver::write_private;
use crate::machine::{Door, NODE_ADDRESSES, Namespaces};
use crate::process::ManagedProcess;
use crate::{Cluster, ClusterOptions, eventually};

use programs::Programs;
use worker::Worker;

/// How long nodes and controllers may take.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Names of the nodes.
const NODES: [&str; 2] = ["a", "b"];

/// A running cluster with nodes; dropping it ends and removes all of it.
pub struct NodeCluster {
    cluster: Cluster,
    // In this order: the namespaces end last, and with them what has outlived its starter.
    workers: Vec<Worker>,
    control: Vec<ManagedProcess>,
    namespaces: Arc<Namespaces>,
}

impl NodeCluster {
    /// Starts one and returns when its nodes and controllers are ready. Programs may have to be built
    /// first, which takes minutes.
    ///
    /// # Errors
    /// When the machine is not made for it, or something is not ready within a minute.
    pub async fn start(name: &str) -> Result<Self> {
        let programs = Programs::find_or_build().await?;
        let namespaces = Arc::new(Namespaces::start(&programs.packages, &programs.pause).await?);
        let cluster =
            Cluster::start_in(name, ClusterOptions::default(), Some(Arc::clone(&namespaces))).await?;
        let network = namespaces.dir.path().join("network");
        fs::create_dir(&network)?;
        fs::write(network.join("node.conflist"), config::network().to_string())?;
        let pause = programs::pause_image(&programs.pause, namespaces.dir.path())?;
        let start = |(node, address)| Worker::start(node, address, &programs, &cluster, &namespaces, &pause);
        let workers = NODES.into_iter().zip(NODE_ADDRESSES).map(start);
        let workers = futures::future::try_join_all(workers).await?;
        let mut this = Self { cluster, workers, control: Vec::new(), namespaces };
        this.control = this.start_control(&programs)?;
        this.ready().await?;
        Ok(this)
    }

    /// Its API server.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Another cluster, without nodes, whose API server pods of this one can reach.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn neighbour(&self, name: &str) -> Result<Cluster> {
        Cluster::start_in(name, ClusterOptions::default(), Some(Arc::clone(&self.namespaces))).await
    }

    /// Gives all nodes the images of a tar of the OCI layout.
    ///
    /// # Errors
    /// When a node does not take it within a minute.
    pub async fn import(&self, image: &Path) -> Result<()> {
        for worker in &self.workers {
            worker.import(&self.namespaces, image).await?;
        }
        Ok(())
    }

    /// A door from a free port of this machine to an address of the nodes' network, such as a Service's.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn door(&self, target: SocketAddr) -> Result<Door> {
        Door::open(TcpListener::bind("127.0.0.1:0")?, &self.namespaces.network(), target)
    }

    /// Runs a script of the shell in here, and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub async fn inside(&self, script: &str) -> Result<String> {
        let mut command = self.namespaces.inside("/bin/sh");
        command.args(["-euc", script]);
        let output = run(command).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// All that it has on this machine outside of its namespaces: directories, which go with it.
    ///
    /// # Errors
    /// When these can't be listed.
    pub fn places(&self) -> Result<Vec<PathBuf>> {
        self.namespaces.places()
    }

    /// Kills all processes of a pod's container, as a crash would.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn kill_container(&self, node: &str, container: &str) -> Result<()> {
        let worker = self.workers.iter().find(|worker| worker.name == node);
        let worker = worker.with_context(|| format!("there is no node {node}"))?;
        worker.ctr(&self.namespaces, &["tasks", "kill", "--signal", "SIGKILL", container]).await
    }

    fn start_control(&self, programs: &Programs) -> Result<Vec<ManagedProcess>> {
        let dir = &self.namespaces.dir;
        let keys = self.cluster.dir();
        let kubeconfig = |user: &str| -> Result<String> {
            let path = dir.path().join(format!("{user}.kubeconfig"));
            write_private(&path, &self.cluster.kubeconfig_for(&format!("system:{user}"), &[])?)?;
            Ok(path.display().to_string())
        };
        let mut controllers = self.namespaces.in_network(&programs.controller_manager);
        let access = kubeconfig("kube-controller-manager")?;
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            controllers.arg(format!("--{flag}={access}"));
        }
        controllers
            .args(["--leader-elect=false", "--bind-address=127.0.0.1", "--use-service-account-credentials"])
            // Each controller has a client of its own, and with the usual limit they start one by one.
            .args(["--kube-api-qps=500", "--kube-api-burst=1000"])
            .arg(format!("--root-ca-file={}", keys.join("ca.crt").display()))
            .arg(format!(
                "--service-account-private-key-file={}",
                keys.join("service-accounts.key").display()
            ));
        let mut scheduler = self.namespaces.in_network(&programs.scheduler);
        let access = kubeconfig("kube-scheduler")?;
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            scheduler.arg(format!("--{flag}={access}"));
        }
        scheduler.args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        let proxy_config = dir.path().join("kube-proxy.json");
        let access = kubeconfig("kube-proxy")?;
        fs::write(&proxy_config, config::proxy(NODE_ADDRESSES[0], Path::new(&access)).to_string())?;
        let mut proxy = self.namespaces.inside(&programs.proxy);
        proxy.arg(format!("--config={}", proxy_config.display()));
        let start = |name, command: Command| Ok(ManagedProcess::spawn(name, &command, dir)?);
        [("controllers", controllers), ("scheduler", scheduler), ("kube-proxy", proxy)]
            .map(|(name, command)| start(name, command))
            .into_iter()
            .collect()
    }

    async fn ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        let leases: Api<Lease> = Api::namespaced(self.cluster.client(), "kube-node-lease");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.cluster.client(), "default");
        let ready = eventually("nodes and controllers to be ready", READY_DEADLINE, async || {
            for name in NODES {
                let node = nodes.get(name).await?;
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
                ensure!(ready.is_some_and(|c| c.status == "True"), "node {name}: {ready:?}");
                // The last object that a node makes of its own: whoever compares objects later must find it before.
                leases.get(name).await?;
            }
            // Controllers make it, and no pod starts before.
            accounts.get("default").await?;
            Ok(())
        });
        ready.await.map_err(|error| anyhow!(error).context(self.logs()))
    }

    /// The ends of all logs, for the message of a failure.
    fn logs(&self) -> String {
        let processes = self.control.iter().chain(self.workers.iter().flat_map(Worker::processes));
        let logs = processes.map(|process| format!("{}:\n{}", process.name(), process.log_tail(5)));
        logs.collect::<Vec<_>>().join("\n")
    }
}

/// Runs it to its end without blocking the runtime.
async fn run(mut command: Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    output.with_context(|| format!("cannot run {shown}"))
}
