//! What a run has shown.

use std::time::Duration;

use super::arena::Tally;
use crate::load::Load;

/// Prints the whole.
pub fn print(load: &Load<'_>, tally: &Tally) {
    let all: usize = tally.faults.values().sum();
    println!(
        "{all} faults: {} while another one lasted or had not been recovered from, {} with requests under way",
        tally.overlapping, tally.met
    );
    println!("{:<24} {:>6} {:>10} {:>14} {:>14}", "fault", "count", "recovered", "p50", "max");
    for (fault, count) in &tally.faults {
        let mut times = tally.recoveries.get(fault).cloned().unwrap_or_default();
        times.sort();
        let shown =
            |time: Option<&Duration>| time.map_or("-".to_owned(), |t| format!("{} ms", t.as_millis()));
        println!(
            "{:<24} {count:>6} {:>10} {:>14} {:>14}",
            format!("{fault:?}"),
            times.len(),
            shown(times.get(times.len().saturating_sub(1) / 2)),
            shown(times.last()),
        );
    }
    println!("answers:");
    for (answer, count) in load.answers() {
        println!("  {answer:<32} {count:>8}");
    }
    println!("invariants, and how often each was looked at and held:");
    for (invariant, count) in load.held() {
        println!("  {invariant:<32} {count:>8}");
    }
    println!("0 violations");
}
