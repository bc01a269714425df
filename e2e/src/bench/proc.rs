//! What processes have used: /proc (proc(5)).

use std::fs;

use anyhow::{Context as _, Result};

/// Of the times in `stat`, a second; fixed for programs, whatever the kernel's own.
const TICKS: f64 = 100.0;

/// CPU time of a process and its threads, milliseconds.
///
/// # Errors
/// When it has ended.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat).map(|ticks| ticks * 1000.0 / TICKS).context("no times in stat")
}

/// Time in the program and in the kernel: the 14th and 15th word, counted from the end of the
/// name, which may have spaces.
fn ticks(stat: &str) -> Option<f64> {
    let words: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let word = |number: usize| words.get(number)?.parse::<f64>().ok();
    Some(word(11)? + word(12)?)
}

/// CPU time of several, milliseconds.
///
/// # Errors
/// When one of them has ended.
pub fn cpu_of(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu_ms(*pid)).sum()
}

/// Resident memory, KiB.
///
/// # Errors
/// When it has ended.
pub fn memory_kib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no VmRSS in status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat).map(|ticks| format!("{ticks}")).as_deref(), Some("300"));
        assert_eq!(ticks("7 (a"), None);
        let me = std::process::id();
        assert!(memory_kib(me).unwrap() > 100.0 && cpu_of(&[me, me]).unwrap() >= 0.0);
    }
}
