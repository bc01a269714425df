//! A machine within the machine: namespaces of its own for mounts, network, processes and names.

mod door;

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::eventually;
use crate::process::{ManagedProcess, is_alive};
use crate::workdir::{Guard, WorkDir};

pub use door::Door;

/// The addresses of the nodes in their network, which nobody outside sees.
pub(crate) const NODE_ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// How long mounts and network may take.
const FURNISH_DEADLINE: Duration = Duration::from_secs(20);
/// How long all processes in the namespaces may take to die.
const END_DEADLINE: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";
/// Removes the control groups of containers, which die a moment before.
const REMOVE_CGROUPS: &str = r#"
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    left=
    for group in /sys/fs/cgroup/*/"$1"; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} +
        [ -d "$group" ] && left=yes
    done
    [ "$left" ] || exit 0
    sleep 0.3
done
"#;

/// The namespaces, until they are dropped or this process ends: then all processes in them die, and
/// their mounts, addresses and rules are gone.
pub(crate) struct Namespaces {
    /// Of their first process, as it is seen from outside.
    first: u32,
    path: String,
    cgroup: String,
    // In this order: control groups can go after the processes.
    holder: Option<ManagedProcess>,
    _cgroups: Guard,
    pub dir: Arc<WorkDir>,
}

impl Namespaces {
    /// `packages` is the root of unpacked packages, `pause` the program that becomes the first process.
    pub async fn start(packages: &Path, pause: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a node needs root: it makes namespaces, mounts and control groups"
        );
        let dir = Arc::new(WorkDir::new("e2e-node")?);
        let cgroup = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cgroups = Guard::set(REMOVE_CGROUPS, OsStr::new(&cgroup))?;
        make_cgroups(&cgroup)?;
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/setup.sh");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--", "/bin/sh"])
            .args([setup.as_path(), dir.path(), packages, pause])
            .arg(NODE_ADDRESSES.join(" "));
        let holder = ManagedProcess::spawn("node", &command, &dir)?;
        let furnished = dir.path().join("furnished");
        let outcome = eventually("a node to be furnished", FURNISH_DEADLINE, async || match holder.exit() {
            Some(exit) => Ok(Err(exit)),
            None if furnished.exists() => Ok(Ok(())),
            None => Err("not yet"),
        });
        if let Err(exit) = outcome.await? {
            anyhow::bail!("the node ended with {exit}: {}", holder.log_tail(10));
        }
        let children = format!("/proc/{0}/task/{0}/children", holder.pid());
        let first = fs::read_to_string(&children)?.trim().parse().context("the node has no process")?;
        let path = format!("/run/tools:{}:/usr/sbin:/usr/bin:/sbin:/bin", packages.join("usr/bin").display());
        Ok(Self { first, path, cgroup, holder: Some(holder), _cgroups: cgroups, dir })
    }

    /// A program that sees the network in here, and the machine's files and processes.
    pub fn in_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network().display())).arg("--").arg(program);
        command
    }

    /// A program that is all in here.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.first))
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--wd=/", "--"])
            .arg(program)
            .env("PATH", &self.path);
        command
    }

    /// The file that stands for the network.
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.first).into()
    }

    /// A door from a port of this machine to the same one of the first node.
    pub fn door_at(&self, port: u16) -> Result<Door> {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        Door::open(TcpListener::bind(target)?, &self.network(), target)
    }

    /// The directories that are outside.
    pub fn places(&self) -> Result<Vec<PathBuf>> {
        let groups = hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(&self.cgroup));
        Ok([self.dir.path().to_owned()].into_iter().chain(groups).collect())
    }

    /// The control group of a node, as kubelet names it.
    pub fn cgroup(&self, node: &str) -> String {
        format!("/{}/{node}", self.cgroup)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.holder = None;
        // The kernel ends what is inside after the first process, and directories are removed next.
        let end = Instant::now() + END_DEADLINE;
        while is_alive(self.first) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Makes a group with one for each node in every hierarchy.
fn make_cgroups(name: &str) -> Result<()> {
    let unified = Path::new(CGROUPS).join("cgroup.controllers");
    ensure!(!unified.exists(), "a node needs control groups v1; this machine has v2 alone");
    for hierarchy in hierarchies()? {
        let parent = hierarchy.join(name);
        for group in [parent.clone(), parent.join("a"), parent.join("b")] {
            fs::create_dir(&group).with_context(|| group.display().to_string())?;
            for set in ["cpuset.cpus", "cpuset.mems"] {
                // Empty in a new group, and then no process may join it.
                if let (Ok(of_all), true) = (fs::read(hierarchy.join(set)), group.join(set).exists()) {
                    fs::write(group.join(set), of_all)?;
                }
            }
        }
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let all: Vec<_> = fs::read_dir(CGROUPS)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    // Names of hierarchies that are mounted together are links to one.
    Ok(all.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}
