//! I7: what a process holds returns to its level when its work is done.

use std::fs;

use anyhow::{Context as _, Result, ensure};

/// How much more memory is no leak, MiB: an allocator keeps what it once had.
const SPARE_MEMORY: u64 = 48;

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Resident memory, MiB.
    pub memory: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Tasks that have begun and not ended.
    pub tasks: u64,
}

impl Level {
    /// Of the process with this id, which says its tasks in `metrics`.
    ///
    /// # Errors
    /// When it has ended, or says nothing.
    pub fn of(pid: u32, metrics: &str) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = number(&status, "VmRSS:").context("no VmRSS (proc_pid_status(5))")? / 1024;
        let files = u64::try_from(fs::read_dir(format!("/proc/{pid}/fd"))?.count())?;
        let tasks = number(metrics, "kyma_bindings_tasks ").context("no number of tasks in the metrics")?;
        Ok(Self { memory, files, tasks })
    }

    /// I7: not above what it was before the work, but for `spare` file descriptors and tasks: a client
    /// that was made for a managed cluster keeps a few connections.
    ///
    /// # Errors
    /// Both levels.
    pub fn check(self, before: Self, spare: u64) -> Result<()> {
        let holds = self.memory <= before.memory + SPARE_MEMORY
            && self.files <= before.files + spare
            && self.tasks <= before.tasks + spare;
        ensure!(holds, "I7: the level was {before:?} and is {self:?}");
        Ok(())
    }
}

/// The most memory that a process has ever had in use at once, MiB.
///
/// # Errors
/// When it has ended.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(number(&status, "VmHWM:").context("no VmHWM (proc_pid_status(5))")? / 1024)
}

/// The number behind the line's beginning.
fn number(text: &str, start: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_and_compared() {
        let read = Level::of(std::process::id(), "# TYPE\nkyma_bindings_tasks 12\n").unwrap();
        assert!(read.memory > 0 && read.files > 2 && read.tasks == 12, "{read:?}");
        read.check(read, 0).unwrap();
        Level { tasks: 13, files: read.files + 1, ..read }.check(read, 1).unwrap();
        assert!(Level { tasks: 14, ..read }.check(read, 1).is_err());
        assert!(Level { files: read.files + 2, ..read }.check(read, 1).is_err());
        assert!(Level { memory: read.memory + SPARE_MEMORY + 1, ..read }.check(read, 1).is_err());
    }
}
