//! Child processes that cannot outlive this process.
//!
//! Every child has a small shell as its supervisor, whose standard input is a pipe that we
//! hold. The kernel closes that pipe however this process ends (return from `main`, panic,
//! `SIGKILL`), which is what `static` values, never dropped by Rust, need. A supervisor then
//! kills its child by the child's own id. The parent-death signal of Linux is no substitute:
//! it follows the thread that spawned the child, and a test's thread ends with the test.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::workdir::{WorkDir, WorkDirError, shell};

/// Runs a program, forwards the signals named on its standard input, and kills the program
/// when that input ends. The watcher starts before the id is printed: a supervisor which dies
/// of `SIGPIPE` there leaves a watcher behind that still does its work.
const SUPERVISOR: &str = r#"
log=$1
shift
exec 3<&0 </dev/null
"$@" >>"$log" 2>&1 3<&- &
child=$!
{
    while read -r signal; do kill -s "$signal" "$child"; done
    kill -s KILL "$child"
} <&3 >/dev/null &
watcher=$!
exec 3<&-
echo "$child"
wait "$child"
status=$?
kill -s KILL "$watcher"
wait "$watcher"
exit "$status"
"#;

/// How long a killed process may take to disappear.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// What can go wrong with a supervised process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The directory for the process is not usable.
    #[error(transparent)]
    WorkDir(#[from] WorkDirError),
    /// The supervisor could not be started.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// The name given to the process.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// The process still runs at the end of a deadline.
    #[error("{name} (pid {pid}) still runs after {deadline:?}")]
    StillRunning {
        /// The name given to the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// How long was waited.
        deadline: Duration,
    },
}

/// How a process ended.
///
/// The status comes through a shell, where death by signal `n` reads as code `128 + n`; a
/// program that itself exits with such a code is reported as killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// True for exit code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    fn of_supervisor(status: Option<ExitStatus>) -> Self {
        // A supervisor without a code was itself killed, and its watcher kills the child.
        match status.and_then(|status| status.code()) {
            Some(code) if code > 128 => Self::Signal(code - 128),
            Some(code) => Self::Code(code),
            None => Self::Signal(9),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What looks at a log, and is told whose it is.
type Look = dyn FnOnce(&str, &str) + Send + Sync;

/// What is done when a process has ended.
struct AtItsEnd(Box<Look>);

impl fmt::Debug for AtItsEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtItsEnd")
    }
}

/// A running program; dropping it kills it and waits until it is gone. Processes that the
/// program itself starts are its own business.
#[derive(Debug)]
pub struct ManagedProcess {
    name: String,
    pid: u32,
    log: PathBuf,
    control: Mutex<Option<ChildStdin>>,
    exit: watch::Receiver<Option<Exit>>,
    waiter: Option<JoinHandle<()>>,
    at_its_end: Option<AtItsEnd>,
    // Last field: the directory may go only after the process.
    _dir: Arc<WorkDir>,
}

impl ManagedProcess {
    /// Starts `command` with its program, arguments, environment and current directory; its
    /// output is appended to `<name>.log` in `dir`, its input is empty.
    ///
    /// Cleared environments and redirections of `command` are not seen; `env_remove` works.
    /// A program that does not exist is reported by [`Self::wait`] as exit code 127. As a
    /// shell's background job the program starts with `SIGINT` and `SIGQUIT` ignored.
    /// Blocks for some milliseconds, and needs no async runtime.
    ///
    /// # Errors
    /// [`ProcessError::Spawn`] when no supervisor can be started.
    pub fn spawn(name: &str, command: &Command, dir: &Arc<WorkDir>) -> Result<Self, ProcessError> {
        let log = dir.path().join(format!("{name}.log"));
        let failed = |source| ProcessError::Spawn { name: name.to_owned(), source };
        let mut supervisor = supervise(command, &log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(dir.hold().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let control = supervisor.stdin.take();
        let pid = read_pid(&mut supervisor).map_err(failed)?;
        let (ended, exit) = watch::channel(None);
        // A thread, not a task: the process belongs to no runtime, tests have one each.
        let waiter = std::thread::Builder::new()
            .name(format!("wait-{name}"))
            .spawn(move || {
                let status = supervisor.wait().ok();
                ended.send_replace(Some(Exit::of_supervisor(status)));
            })
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            log,
            control: Mutex::new(control),
            exit,
            waiter: Some(waiter),
            at_its_end: None,
            _dir: Arc::clone(dir),
        })
    }

    /// Has this look at its log, named with the first argument, when it is dropped and has ended.
    #[must_use]
    pub fn at_its_end(self, look: impl FnOnce(&str, &str) + Send + Sync + 'static) -> Self {
        // Not `..self`: whatever is dropped can't be taken apart.
        let mut process = self;
        process.at_its_end = Some(AtItsEnd(Box::new(look)));
        process
    }

    /// The process id of the program itself, not of its supervisor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the process ended, or `None` while it runs.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends the signal with this name (`TERM`, `HUP`, `STOP`, ...), a moment later than this
    /// call returns. Does nothing when the process has ended.
    pub fn signal(&self, name: &str) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = control.as_mut() {
            // A broken pipe means that the watcher ended, and so has the program.
            let _ = writeln!(pipe, "{name}");
        }
    }

    /// Asks the process to end (`SIGTERM`).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Ends the process at once (`SIGKILL`).
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// Waits until the process has ended, at most for `deadline`.
    ///
    /// # Errors
    /// [`ProcessError::StillRunning`] at the deadline; the process is left alone.
    pub async fn wait(&self, deadline: Duration) -> Result<Exit, ProcessError> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(deadline, exit.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(status)) => Ok(status.unwrap_or(Exit::Signal(9))),
            // The waiting thread sends before it drops the sender.
            Ok(Err(_)) => Ok(self.exit().unwrap_or(Exit::Signal(9))),
            Err(_) => Err(ProcessError::StillRunning { name: self.name.clone(), pid: self.pid, deadline }),
        }
    }

    /// Asks the process to end and kills it when it still runs after `grace`.
    ///
    /// # Errors
    /// [`ProcessError::StillRunning`] when not even `SIGKILL` ends it within ten seconds.
    pub async fn stop(&self, grace: Duration) -> Result<Exit, ProcessError> {
        self.terminate();
        if let Ok(exit) = self.wait(grace).await {
            return Ok(exit);
        }
        self.kill();
        self.wait(KILL_DEADLINE).await
    }

    /// The file with the output of the process.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What the process has written so far; empty when there is nothing to read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last `lines` lines of the output, for error messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        *self.control.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
        if let Some(AtItsEnd(look)) = self.at_its_end.take() {
            look(&format!("the log of {}", self.name), &self.log());
        }
    }
}

/// Whether a process with this id exists; one that ended but was not waited for does.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    shell("kill -0 \"$1\" 2>/dev/null").arg(pid.to_string()).status().is_ok_and(|status| status.success())
}

fn supervise(command: &Command, log: &Path) -> Command {
    let mut supervisor = shell(SUPERVISOR);
    supervisor.arg(log).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        set_env(&mut supervisor, key, value);
    }
    if let Some(current) = command.get_current_dir() {
        supervisor.current_dir(current);
    }
    supervisor
}

fn set_env(command: &mut Command, key: &OsStr, value: Option<&OsStr>) {
    match value {
        Some(value) => command.env(key, value),
        None => command.env_remove(key),
    };
}

/// The first line of the supervisor: the id of the program.
fn read_pid(supervisor: &mut Child) -> io::Result<u32> {
    let mut line = String::new();
    if let Some(output) = supervisor.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    line.trim()
        .parse()
        .map_err(|_| io::Error::other(format!("the supervisor reported no process id: {line:?}")))
}
