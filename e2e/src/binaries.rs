//! The real `etcd`, `kube-apiserver` and `kubectl`: found, or built once and kept.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::process::{ManagedProcess, ProcessError};
use crate::workdir::WorkDir;

/// The Kubernetes version in `kubernetes/go.mod`, without the leading `v`.
pub const KUBERNETES_VERSION: &str = "1.36.3";
/// The etcd version in `kubernetes/go.mod`, without the leading `v`.
pub const ETCD_VERSION: &str = "3.6.8";

/// How often a running build reports that it still runs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
/// The Go module that pins the sources.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes");

/// Why the binaries are not there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BinariesError {
    /// Something has to be built, and there is no Go toolchain.
    #[error(
        "{binary} is not there and cannot be built: install Go 1.26 or later \
         (https://go.dev/dl) so that `go` is on the PATH, or set KUBEBUILDER_ASSETS to a \
         directory with etcd, kube-apiserver and kubectl"
    )]
    GoMissing {
        /// The binary that is needed first.
        binary: &'static str,
    },
    /// There is no place to keep the results of a build.
    #[error("neither XDG_CACHE_HOME nor HOME is set: no place to keep built binaries")]
    NoCacheDirectory,
    /// The build failed; `output` is the end of what the Go tool wrote.
    #[error("building {binary} failed:\n{output}")]
    Build {
        /// The binary.
        binary: &'static str,
        /// The last lines of the Go tool.
        output: String,
    },
    /// The Go tool could not be run.
    #[error("cannot run the build of {binary}: {source}")]
    Run {
        /// The binary.
        binary: &'static str,
        /// The cause.
        source: Arc<ProcessError>,
    },
    /// A file of the cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl BinariesError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source: Arc::new(source) }
    }
}

/// Where the programs of a test cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// `kube-apiserver`.
    pub kube_apiserver: PathBuf,
    /// `etcd`.
    pub etcd: PathBuf,
    /// `kubectl` of the same version as the API server.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Looks for each binary in the directory `KUBEBUILDER_ASSETS`, on the `PATH` (not for
    /// `kubectl`, which there may be a wrapper or years old) and in the cache; builds it into
    /// the cache when it is nowhere. Done once per process, failures are remembered, too.
    ///
    /// # Errors
    /// Any [`BinariesError`], all for the reader to fix.
    pub async fn find_or_build() -> Result<Self, BinariesError> {
        static FOUND: OnceCell<Result<Binaries, BinariesError>> = OnceCell::const_new();
        FOUND.get_or_init(|| async { Places::from_env()?.binaries().await }).await.clone()
    }
}

/// One program and how it is made.
struct Program {
    name: &'static str,
    package: &'static str,
    version: &'static str,
    /// Rough duration of a build with nothing in Go's own cache.
    duration: &'static str,
    from_path: bool,
}

const ETCD: Program = Program {
    name: "etcd",
    package: "./etcd",
    version: ETCD_VERSION,
    duration: "about a minute",
    from_path: true,
};
const KUBE_APISERVER: Program = Program {
    name: "kube-apiserver",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    version: KUBERNETES_VERSION,
    duration: "about four minutes",
    from_path: true,
};
const KUBECTL: Program = Program {
    name: "kubectl",
    package: "k8s.io/kubernetes/cmd/kubectl",
    version: KUBERNETES_VERSION,
    duration: "about a minute",
    from_path: false,
};

/// The directories in which binaries may be, in the order of preference.
struct Places {
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    cache: PathBuf,
}

impl Places {
    fn from_env() -> Result<Self, BinariesError> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or(BinariesError::NoCacheDirectory)?;
        let path = env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            path: env::split_paths(&path).collect(),
            cache: cache.join(format!("kyma-bindings/kubernetes-v{KUBERNETES_VERSION}-etcd-v{ETCD_VERSION}")),
        })
    }

    async fn binaries(&self) -> Result<Binaries, BinariesError> {
        Ok(Binaries {
            etcd: self.provide(&ETCD).await?,
            kube_apiserver: self.provide(&KUBE_APISERVER).await?,
            kubectl: self.provide(&KUBECTL).await?,
        })
    }

    async fn provide(&self, program: &Program) -> Result<PathBuf, BinariesError> {
        match self.find(program) {
            Some(found) => Ok(found),
            None => self.build(program).await,
        }
    }

    fn find(&self, program: &Program) -> Option<PathBuf> {
        let on_path = self.path.iter().filter(|_| program.from_path);
        self.assets
            .iter()
            .chain(on_path)
            .chain([&self.cache])
            .map(|dir| dir.join(program.name))
            .find(|file| is_executable(file))
    }

    async fn build(&self, program: &Program) -> Result<PathBuf, BinariesError> {
        if !self.path.iter().any(|dir| is_executable(&dir.join("go"))) {
            return Err(BinariesError::GoMissing { binary: program.name });
        }
        fs::create_dir_all(&self.cache).map_err(BinariesError::io(&self.cache))?;
        // Two test binaries at once must not both build: the second finds the first's result.
        let _lock = lock(&self.cache.join(".lock"), program.name).await?;
        let kept = self.cache.join(program.name);
        if !is_executable(&kept) {
            self.run_go(program, &kept).await?;
        }
        Ok(kept)
    }

    async fn run_go(&self, program: &Program, kept: &Path) -> Result<(), BinariesError> {
        let cannot_run = |source| BinariesError::Run { binary: program.name, source: Arc::new(source) };
        report(&format!(
            "building {} v{} from the Go module proxy: {} the first time, kept in {}",
            program.name,
            program.version,
            program.duration,
            self.cache.display(),
        ));
        // In the cache, not the temporary directory: a rename within one filesystem is atomic.
        let dir = Arc::new(WorkDir::new_in(&self.cache, ".build").map_err(|e| cannot_run(e.into()))?);
        let built = dir.path().join(program.name);
        let started = Instant::now();
        let go = ManagedProcess::spawn("go", &go_build(program, &built), &dir);
        let go = go.map_err(cannot_run)?;
        let exit = loop {
            match go.wait(PROGRESS_INTERVAL).await {
                Ok(exit) => break exit,
                Err(_) => report(&format!(
                    "still building {} after {} s",
                    program.name,
                    started.elapsed().as_secs()
                )),
            }
        };
        if !exit.success() {
            return Err(BinariesError::Build {
                binary: program.name,
                output: format!("{}\n({exit})", go.log_tail(30)),
            });
        }
        fs::rename(&built, kept).map_err(BinariesError::io(kept))?;
        report(&format!("built {} in {} s", program.name, started.elapsed().as_secs()));
        Ok(())
    }
}

fn go_build(program: &Program, output: &Path) -> Command {
    // Kubernetes takes its version from the linker; kubectl and the API server compare them.
    let mut parts = KUBERNETES_VERSION.split('.');
    let mut part = || parts.next().unwrap_or_default();
    let (major, minor) = (part(), part());
    let version = "k8s.io/component-base/version";
    let mut command = Command::new("go");
    command
        .args(["build", "-ldflags"])
        .arg(format!(
            "-X {version}.gitVersion=v{KUBERNETES_VERSION} \
             -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        ))
        .arg("-o")
        .args([output.as_os_str(), OsStr::new(program.package)])
        .current_dir(MODULE)
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off");
    command
}

/// Takes the lock of the cache; it ends with the returned file, or with this process.
async fn lock(path: &Path, binary: &'static str) -> Result<File, BinariesError> {
    let file = File::create(path).map_err(BinariesError::io(path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            report(&format!("waiting for another build before {binary}"));
        }
        Err(TryLockError::Error(e)) => return Err(BinariesError::io(path)(e)),
    }
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(io::Error::other).flatten().map_err(BinariesError::io(path))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Writes a line past the capture of the test harness: minutes of silence look like a hang.
fn report(line: &str) {
    let _ = writeln!(io::stderr(), "e2e: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        Places { assets: Some(root.join("assets")), path: vec![root.join("path")], cache: root.join("cache") }
    }

    fn put(dir: &Path, name: &str, mode: u32) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn versions_are_those_of_the_go_module() {
        let module = fs::read_to_string(Path::new(MODULE).join("go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes v{KUBERNETES_VERSION}\n")));
        assert!(module.contains(&format!("go.etcd.io/etcd/server/v3 v{ETCD_VERSION}\n")));
    }

    #[test]
    fn assets_come_before_path_before_cache() {
        let dir = WorkDir::new("e2e-find").unwrap();
        let places = places(dir.path());
        assert_eq!(places.find(&ETCD), None);
        for (place, expected) in [(&places.cache, "cache"), (&places.path[0], "path")] {
            put(place, "etcd", 0o755);
            assert_eq!(places.find(&ETCD), Some(dir.path().join(expected).join("etcd")));
        }
        put(&dir.path().join("assets"), "etcd", 0o644);
        assert_eq!(places.find(&ETCD), Some(dir.path().join("path/etcd")));
        put(&dir.path().join("assets"), "etcd", 0o755);
        assert_eq!(places.find(&ETCD), Some(dir.path().join("assets/etcd")));
    }

    #[test]
    fn kubectl_is_not_taken_from_the_path() {
        let dir = WorkDir::new("e2e-find").unwrap();
        let places = places(dir.path());
        put(&places.path[0], "kubectl", 0o755);
        assert_eq!(places.find(&KUBECTL), None);
    }

    #[tokio::test]
    async fn without_go_the_error_says_what_to_do() {
        let dir = WorkDir::new("e2e-find").unwrap();
        let error = places(dir.path()).provide(&ETCD).await.unwrap_err();
        assert!(matches!(error, BinariesError::GoMissing { binary: "etcd" }));
        assert!(error.to_string().contains("KUBEBUILDER_ASSETS"));
    }

    /// Needs Go and the module proxy: `cargo test -p e2e -- --ignored builds_etcd`.
    #[tokio::test]
    #[ignore = "builds etcd, a minute without Go's build cache"]
    async fn builds_etcd_once() {
        let dir = WorkDir::new("e2e-build").unwrap();
        let mut places = places(dir.path());
        places.path = env::split_paths(&env::var_os("PATH").unwrap()).collect();
        let (first, second) = tokio::join!(places.build(&ETCD), places.build(&ETCD));
        let built = first.unwrap();
        assert_eq!(built, second.unwrap());
        let version = Command::new(&built).arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        assert!(version.contains(ETCD_VERSION), "{version}");
        // Nothing but the result and the lock is left.
        let mut left: Vec<_> =
            fs::read_dir(&places.cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "etcd"]);
    }
}
