//! The table and the file that a run ends with. Pure, but for what it says about the machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::stats::{Figure, Series};

/// What shall hold of a line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Of the ratio to the floor.
    RatioAtMost(f64),
    /// Of the ratio to the floor.
    RatioAtLeast(f64),
    /// Of the median.
    AtMost(f64),
    /// Of the 99th percentile.
    P99AtMost(f64),
    /// Of the median, rounded.
    About(f64),
}

/// One thing that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Of the benchmark.
    pub part: &'static str,
    /// What it is.
    pub what: String,
    /// Of its values.
    pub unit: &'static str,
    /// Of the operator.
    pub ours: Figure,
    /// Of the bare client, or what else it is compared with.
    pub floor: Option<Figure>,
    /// Of the rounds' medians.
    pub ratio: Option<Figure>,
    /// What it shall be.
    pub target: Option<Target>,
}

impl Line {
    /// Something without a floor.
    #[must_use]
    pub fn alone(part: &'static str, what: impl Into<String>, unit: &'static str, ours: Figure) -> Self {
        Self { part, what: what.into(), unit, ours, floor: None, ratio: None, target: None }
    }

    /// Something measured once.
    #[must_use]
    pub fn single(part: &'static str, what: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::alone(part, what, unit, Figure::single(value))
    }

    /// Something with its floor.
    #[must_use]
    pub fn paired(
        part: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        ours: &Series,
        floor: &Series,
    ) -> Self {
        let (ratio, compared) = (Some(ours.over(floor)), Some(floor.figure()));
        Self { floor: compared, ratio, ..Self::alone(part, what, unit, ours.figure()) }
    }

    /// With what it shall be.
    #[must_use]
    pub fn shall(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Whether it is what it shall be.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        let ratio = self.ratio.map_or(f64::NAN, |ratio| ratio.p50);
        Some(match self.target? {
            Target::RatioAtMost(most) => ratio <= most,
            Target::RatioAtLeast(least) => ratio >= least,
            Target::AtMost(most) => self.ours.p50 <= most,
            Target::P99AtMost(most) => self.ours.p99 <= most,
            Target::About(number) => (self.ours.p50 - number).abs() < 0.25,
        })
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        large if large >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn figure(figure: &Figure, unit: &str) -> [String; 3] {
    if figure.values == 1 {
        return [format!("{} {unit}", number(figure.p50)), String::new(), String::new()];
    }
    let spread = format!("{}..{}", number(figure.low), number(figure.high));
    [format!("{} {unit}", number(figure.p50)), number(figure.p99), spread]
}

/// All lines, as Markdown whose columns are aligned.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let head = ["part", "what", "ours", "p99", "rounds", "floor", "ratio", "rounds", "target", ""];
    let mut rows = vec![head.map(str::to_owned)];
    for line in lines {
        let [ours, p99, spread] = figure(&line.ours, line.unit);
        let floor = line.floor.map(|floor| number(floor.p50)).unwrap_or_default();
        let [ratio, _, ratios] = line.ratio.map(|ratio| figure(&ratio, "")).unwrap_or_default();
        let target = match line.target {
            None => String::new(),
            Some(Target::RatioAtMost(most)) => format!("ratio ≤ {most}"),
            Some(Target::RatioAtLeast(least)) => format!("ratio ≥ {least}"),
            Some(Target::AtMost(most)) => format!("≤ {most}"),
            Some(Target::P99AtMost(most)) => format!("p99 ≤ {most}"),
            Some(Target::About(number)) => format!("{number}"),
        };
        let met = line.met().map_or("", |met| if met { "✔" } else { "✗" });
        let (part, what) = (line.part.to_owned(), line.what.clone());
        let ratio = ratio.trim().to_owned();
        rows.push([part, what, ours, p99, spread, floor, ratio, ratios, target, met.to_owned()]);
    }
    // Markdown wants three dashes at least.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).fold(3, usize::max);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a String can't fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _ = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    text
}

/// Where and of what it was measured.
#[must_use]
pub fn circumstances(seed: u64, rounds: usize, programs: &[&Path]) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let said = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    };
    let versions: Vec<_> = programs.iter().filter_map(|program| said(program, &["--version"])).collect();
    json!({
        "at": Timestamp::now(),
        "commit": said(Path::new("git"), &["describe", "--always", "--dirty"]),
        "version": env!("CARGO_PKG_VERSION"),
        "programs": versions,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": cpu.map(|(_, model)| model),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": memory.lines().next().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")),
        "load": load(),
        "debug": cfg!(debug_assertions),
        "seed": seed,
        "rounds": rounds,
    })
}

/// The load average of one, five and fifteen minutes.
#[must_use]
pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        values.iter().enumerate().for_each(|(round, value)| series.push(round, *value));
        series
    }

    #[test]
    fn a_target_is_met_or_missed() {
        let (ours, floor) = (series(&[11.0, 12.0, 13.0]), series(&[10.0, 10.0, 10.0]));
        let line = Line::paired("p", "bind", "ms", &ours, &floor);
        assert_eq!(line.met(), None);
        for (target, met) in [
            (Target::RatioAtMost(1.2), true),
            (Target::RatioAtMost(1.1), false),
            (Target::RatioAtLeast(1.3), false),
            (Target::AtMost(12.0), true),
            (Target::P99AtMost(12.0), false),
            (Target::About(12.2), true),
        ] {
            assert_eq!(line.clone().shall(target).met(), Some(met), "{target:?}");
        }
        let nothing = Line::paired("p", "bind", "ms", &series(&[]), &floor);
        assert_eq!(
            nothing.shall(Target::RatioAtMost(9.0)).met(),
            Some(false),
            "what wasn't measured holds nothing"
        );
    }

    #[test]
    fn the_table_is_markdown() {
        let (ours, floor) = (series(&[11.0, 12.0, 13.0]), series(&[10.0, 10.0, 10.0]));
        let lines = [
            Line::paired("loopback", "bind", "ms", &ours, &floor).shall(Target::RatioAtMost(1.1)),
            Line::single("scale", "memory", "MB", 1234.5),
        ];
        let table = table(&lines);
        let rows: Vec<_> = table.lines().collect();
        let words = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
        let bind = "| loopback | bind | 12.00 ms | 13.00 | 11.00..13.00 | 10.00 | 1.20 | 1.10..1.30 | ratio ≤ 1.1 | ✗ |";
        assert_eq!(words(rows[2]), bind);
        assert_eq!(words(rows[3]), "| scale | memory | 1234 MB | | | | | | | |");
        assert!(rows.iter().all(|row| row.chars().count() == rows[0].chars().count()), "{table}");
    }
}
