//! One node: containerd and kubelet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::apiserver::write_private;
use crate::machine::Namespaces;
use crate::process::ManagedProcess;
use crate::{Cluster, eventually};

use super::programs::Programs;
use super::{config, run};

/// How long containerd may take to listen.
const CONTAINERD_DEADLINE: Duration = Duration::from_secs(20);

/// The two processes, which are in the namespaces and die with them.
pub(crate) struct Worker {
    pub name: &'static str,
    containerd: ManagedProcess,
    kubelet: Option<ManagedProcess>,
    socket: PathBuf,
    ctr: PathBuf,
}

impl Worker {
    /// Starts both, containerd with an image for pauses; kubelet registers its node by itself.
    pub async fn start(
        name: &'static str,
        address: &str,
        programs: &Programs,
        cluster: &Cluster,
        namespaces: &Namespaces,
        pause: &Path,
    ) -> Result<Self> {
        let dir = namespaces.dir.path().join(name);
        fs::create_dir(&dir)?;
        let socket = PathBuf::from(format!("/run/containerd-{name}.sock"));
        let cgroup = namespaces.cgroup(name);
        let packages = &programs.packages;
        let worker = config::Worker {
            dir: &dir,
            address,
            cgroup: &cgroup,
            socket: &socket,
            keys: cluster.dir(),
            packages,
        };
        let toml = dir.join("containerd.toml");
        fs::write(&toml, config::containerd(&worker, &namespaces.dir.path().join("network")))?;
        let kubelet_config = dir.join("kubelet.json");
        fs::write(&kubelet_config, config::kubelet(&worker).to_string())?;
        let access = dir.join("kubeconfig");
        let node = format!("system:node:{name}");
        write_private(&access, &cluster.kubeconfig_for(&node, &["system:nodes"])?)?;

        let mut containerd = namespaces.inside("containerd");
        containerd.arg("--config").arg(&toml);
        let mut kubelet = namespaces.inside(&programs.kubelet);
        kubelet
            .arg(format!("--config={}", kubelet_config.display()))
            .arg(format!("--kubeconfig={}", access.display()))
            .arg(format!("--root-dir={}", dir.join("kubelet").display()))
            .arg(format!("--cert-dir={}", dir.join("kubelet/pki").display()))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--node-ip={address}"));
        let spawn = |program: &str, command: &Command| {
            ManagedProcess::spawn(&format!("{program}-{name}"), command, &namespaces.dir)
        };
        let containerd = spawn("containerd", &containerd)?;
        let ctr = packages.join("usr/bin/ctr");
        let mut this = Self { name, containerd, kubelet: None, socket, ctr };
        let listens = async || this.ctr(namespaces, &["version"]).await;
        eventually("containerd to listen", CONTAINERD_DEADLINE, listens).await?;
        this.import(namespaces, pause).await?;
        // It ends at once where containerd does not listen.
        this.kubelet = Some(spawn("kubelet", &kubelet)?);
        Ok(this)
    }

    pub async fn import(&self, namespaces: &Namespaces, image: &Path) -> Result<()> {
        self.ctr(namespaces, &["images", "import", &image.display().to_string()]).await
    }

    /// Tells containerd to do something, in the namespace of Kubernetes.
    pub async fn ctr(&self, namespaces: &Namespaces, args: &[&str]) -> Result<()> {
        let mut command = namespaces.inside(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(args);
        let output = run(command).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr {args:?} on node {}: {said}", self.name);
        Ok(())
    }

    pub fn processes(&self) -> impl Iterator<Item = &ManagedProcess> {
        [Some(&self.containerd), self.kubelet.as_ref()].into_iter().flatten()
    }
}
