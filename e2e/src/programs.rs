//! Programs written in Go that tests need: found, or built once from the module proxy and kept.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::{ManagedProcess, ProcessError};
use crate::workdir::WorkDir;

/// How often a running build reports that it still runs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
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

/// A Go module of this package, which pins the sources of programs.
pub struct Module {
    /// Its directory in this package.
    pub directory: &'static str,
    /// Where its programs are kept in the cache: their versions are part of the name.
    pub kept: &'static str,
    /// Build tags, separated by commas.
    pub tags: &'static str,
    /// What the linker is told.
    pub ldflags: fn() -> String,
}

/// One program and how it is made.
pub struct Program {
    /// Of its file.
    pub name: &'static str,
    /// Go's path of it.
    pub package: &'static str,
    /// Where its version is pinned.
    pub module: &'static Module,
    /// Without the leading `v`.
    pub version: &'static str,
    /// Rough duration of a build with nothing in Go's own cache.
    pub duration: &'static str,
    /// Whether one on the `PATH` is as good.
    pub from_path: bool,
}

impl Program {
    /// Looks for it in the directory `KUBEBUILDER_ASSETS`, on the `PATH` where that is as good, and in
    /// the cache; builds it into the cache when it is nowhere.
    ///
    /// # Errors
    /// Any [`BinariesError`], all for the reader to fix.
    pub async fn find_or_build(&self) -> Result<PathBuf, BinariesError> {
        Places::from_env()?.provide(self).await
    }

    /// The same from the cache alone: for one whose name another version has, too.
    ///
    /// # Errors
    /// As [`Self::find_or_build`].
    pub async fn build_unless_kept(&self) -> Result<PathBuf, BinariesError> {
        let places = Places { assets: None, ..Places::from_env()? };
        places.provide(self).await
    }
}

/// The directory in which all that is built or fetched is kept.
pub(crate) fn cache() -> Result<PathBuf, BinariesError> {
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("kyma-bindings"))
        .ok_or(BinariesError::NoCacheDirectory)
}

fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The directories in which binaries may be, in the order of preference.
struct Places {
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    /// With a directory for each module.
    cache: PathBuf,
}

impl Places {
    fn from_env() -> Result<Self, BinariesError> {
        let path = env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            path: env::split_paths(&path).collect(),
            cache: cache()?,
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
            .chain([&self.kept(program)])
            .map(|dir| dir.join(program.name))
            .find(|file| is_executable(file))
    }

    fn kept(&self, program: &Program) -> PathBuf {
        self.cache.join(program.module.kept)
    }

    async fn build(&self, program: &Program) -> Result<PathBuf, BinariesError> {
        if !self.path.iter().any(|dir| is_executable(&dir.join("go"))) {
            return Err(BinariesError::GoMissing { binary: program.name });
        }
        let directory = self.kept(program);
        fs::create_dir_all(&directory).map_err(BinariesError::io(&directory))?;
        // Two test binaries at once must not both build: the second finds the first's result.
        let _lock = lock(&directory.join(".lock"), program.name).await?;
        let kept = directory.join(program.name);
        if !is_executable(&kept) {
            run_go(program, &directory, &kept).await?;
        }
        Ok(kept)
    }
}

async fn run_go(program: &Program, directory: &Path, kept: &Path) -> Result<(), BinariesError> {
    let cannot_run = |source| BinariesError::Run { binary: program.name, source: Arc::new(source) };
    report(&format!(
        "building {} v{} from the Go module proxy: {} the first time, kept in {}",
        program.name,
        program.version,
        program.duration,
        directory.display(),
    ));
    // In the cache, not the temporary directory: a rename within one filesystem is atomic.
    let dir = Arc::new(WorkDir::new_in(directory, ".build").map_err(|e| cannot_run(e.into()))?);
    let built = dir.path().join(program.name);
    let started = Instant::now();
    let go = ManagedProcess::spawn("go", &go_build(program, &built), &dir);
    let go = go.map_err(cannot_run)?;
    let exit = loop {
        match go.wait(PROGRESS_INTERVAL).await {
            Ok(exit) => break exit,
            Err(_) => {
                report(&format!("still building {} after {} s", program.name, started.elapsed().as_secs()));
            }
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

fn go_build(program: &Program, output: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .args(["build", "-tags", program.module.tags, "-ldflags"])
        .arg((program.module.ldflags)())
        .arg("-o")
        .args([output.as_os_str(), OsStr::new(program.package)])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(program.module.directory))
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off");
    command
}

/// Takes the lock of the cache; it ends with the returned file, or with this process.
pub(crate) async fn lock(path: &Path, binary: &'static str) -> Result<File, BinariesError> {
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
pub(crate) fn report(line: &str) {
    let _ = writeln!(io::stderr(), "e2e: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binaries::{ETCD, ETCD_VERSION, KUBECTL};

    fn places(root: &Path) -> Places {
        Places { assets: Some(root.join("assets")), path: vec![root.join("path")], cache: root.join("cache") }
    }

    fn put(dir: &Path, name: &str, mode: u32) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn assets_come_before_path_before_cache() {
        let dir = WorkDir::new("e2e-find").unwrap();
        let places = places(dir.path());
        assert_eq!(places.find(&ETCD), None);
        let (kept, path) = (places.kept(&ETCD), places.path[0].clone());
        for place in [&kept, &path] {
            put(place, "etcd", 0o755);
            assert_eq!(places.find(&ETCD), Some(place.join("etcd")));
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
            fs::read_dir(places.kept(&ETCD)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "etcd"]);
    }
}
