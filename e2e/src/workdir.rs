//! Directories that cannot outlive this process.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, PipeWriter};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Again where something in it was still being written: processes of other namespaces end a moment later.
const REMOVE_DIRECTORY: &str = r#"rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }"#;

/// A shell that runs a script once the last holder of its standard input is gone, however that ends.
#[derive(Debug)]
pub(crate) struct Guard {
    held: Option<PipeWriter>,
    shell: Child,
}

impl Guard {
    /// The script gets `argument` as `$1`.
    pub fn set(script: &str, argument: &OsStr) -> io::Result<Self> {
        let (input, held) = io::pipe()?;
        let shell = shell(&format!("while read -r _; do :; done\n{script}"))
            .arg(argument)
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { held: Some(held), shell })
    }

    fn hold(&self) -> io::Result<PipeWriter> {
        self.held.as_ref().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), PipeWriter::try_clone)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.held = None;
        let _ = self.shell.wait();
    }
}

/// A directory that could not be created, or not be guarded.
#[derive(Debug, thiserror::Error)]
#[error("work directory {}: {source}", path.display())]
pub struct WorkDirError {
    path: PathBuf,
    source: io::Error,
}

/// A directory, readable by the owner only, removed when the last process in it has ended.
///
/// The guard that removes it waits for the end of a pipe which we and the supervisor of every
/// process in the directory hold, so nothing can still write there when it is removed.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    guard: Guard,
}

impl WorkDir {
    /// Creates a directory under the system's temporary directory.
    ///
    /// # Errors
    /// [`WorkDirError`] when it, or its guard, cannot be created.
    pub fn new(prefix: &str) -> Result<Self, WorkDirError> {
        Self::new_in(&std::env::temp_dir(), prefix)
    }

    /// Creates a directory with a name of its own under `parent`.
    ///
    /// # Errors
    /// [`WorkDirError`] when it, or its guard, cannot be created.
    pub fn new_in(parent: &Path, prefix: &str) -> Result<Self, WorkDirError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{prefix}-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    return match Guard::set(REMOVE_DIRECTORY, path.as_os_str()) {
                        Ok(guard) => Ok(Self { path, guard }),
                        Err(source) => {
                            let _ = fs::remove_dir(&path);
                            Err(WorkDirError { path, source })
                        }
                    };
                }
                // Another process had this id once, in another process namespace.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(WorkDirError { path, source }),
            }
        }
    }

    /// The directory, an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A share of the pipe whose end lets the guard remove the directory.
    pub(crate) fn hold(&self) -> io::Result<PipeWriter> {
        self.guard.hold()
    }
}

/// A shell in a process group of its own, which the terminal's signals do not reach.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "e2e-supervisor"]).process_group(0);
    command
}
