//! What a node is made of: programs of Kubernetes from the Go module proxy, and packages of Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::binaries::{KUBE_CONTROLLER_MANAGER, KUBE_PROXY, KUBE_SCHEDULER, KUBELET};
use crate::image::{Image, ImageFile};
use crate::programs::{Module, Program, cache, lock, report};

use super::config::PAUSE_IMAGE;

/// Of `runc` and `containerd`, which are built with libraries of the system, and of the plugins for the network.
const PACKAGES: [&str; 12] = [
    "containerd",
    "containernetworking-plugins",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libseccomp2",
    "libxtables12",
    "runc",
];

const NODE: Module = Module { directory: "node", kept: "node-1", tags: "", ldflags: || "-s -w".to_owned() };
const PAUSE: Program = Program {
    name: "pause",
    package: "./pause",
    module: &NODE,
    version: "1",
    duration: "some seconds",
    from_path: false,
};

/// Where they are.
pub(crate) struct Programs {
    pub controller_manager: PathBuf,
    pub scheduler: PathBuf,
    pub kubelet: PathBuf,
    pub proxy: PathBuf,
    pub pause: PathBuf,
    /// The root of the unpacked packages.
    pub packages: PathBuf,
}

impl Programs {
    pub async fn find_or_build() -> Result<Self> {
        Ok(Self {
            packages: packages().await?,
            controller_manager: KUBE_CONTROLLER_MANAGER.find_or_build().await?,
            scheduler: KUBE_SCHEDULER.find_or_build().await?,
            kubelet: KUBELET.find_or_build().await?,
            proxy: KUBE_PROXY.find_or_build().await?,
            pause: PAUSE.find_or_build().await?,
        })
    }
}

/// Unpacks the packages in the cache, without installing anything: no script of theirs runs.
async fn packages() -> Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache)?;
    let kept = cache.join("node-packages-1");
    let _lock = lock(&cache.join("node-packages.lock"), "the packages of a node").await?;
    if !kept.is_dir() {
        report(&format!("fetching {} packages of Debian, kept in {}", PACKAGES.len(), kept.display()));
        let into = kept.clone();
        tokio::task::spawn_blocking(move || unpack(&into)).await??;
    }
    Ok(kept)
}

fn unpack(kept: &Path) -> Result<()> {
    let partial = kept.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let fetched = partial.join("fetched");
    fs::create_dir_all(&fetched)?;
    let hint = "a node needs Debian 12 or a later one with package lists: run apt-get update";
    run(Command::new("apt-get").arg("download").args(PACKAGES).current_dir(&fetched)).context(hint)?;
    for package in fs::read_dir(&fetched)? {
        run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(&partial))?;
    }
    fs::remove_dir_all(&fetched)?;
    fs::rename(&partial, kept)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

/// Writes the image of what keeps a pod's namespaces.
pub(crate) fn pause_image(pause: &Path, dir: &Path) -> Result<PathBuf> {
    let file = ImageFile { path: "/pause".into(), mode: 0o755, content: fs::read(pause)? };
    let image = Image::new(PAUSE_IMAGE, &["/pause"], "65535", vec![file]);
    let path = dir.join("pause.tar");
    image.context("there is no image for this processor")?.write(fs::File::create(&path)?)?;
    Ok(path)
}
