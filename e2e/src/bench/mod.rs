//! The benchmark: what the operator takes, beside what nobody could do without.
//!
//! Real clusters, the program that is shipped, and a bare client on the ideal road, in one run: see
//! docs/performance.md.

pub mod arena;
pub mod delay;
pub mod expiry;
pub mod floor;
pub mod isolation;
pub mod paired;
pub mod phases;
pub mod proc;
pub mod report;
pub mod scale;
pub mod stats;
pub mod throughput;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::Binaries;
use arena::{Arena, Program};
use report::{Line, circumstances, load};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each operation beside its floor, on this machine and at 50 ms.
    Paired,
    /// Many clients.
    Throughput,
    /// CPU and memory.
    Costs,
    /// Where the time of a bind goes.
    Phases,
    /// Many ends at once.
    Expiry,
    /// A healthy instance beside dead ones.
    Isolation,
    /// 1,000, 10,000 and 100,000 live bindings.
    Scale,
}

/// What to measure, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program under test.
    pub program: Program,
    /// All, if empty.
    pub only: Vec<Part>,
    /// Rounds of each.
    pub rounds: usize,
    /// Little of everything, to see that it works.
    pub quick: bool,
    /// Said in the file, for whoever repeats it.
    pub seed: u64,
}

/// What a run has found.
pub struct Outcome {
    /// What was measured.
    pub lines: Vec<Line>,
    /// All of it, with its circumstances.
    pub json: Value,
}

/// Runs the parts one after the other on the same clusters.
///
/// # Errors
/// When something is not answered as it should be.
pub async fn run(options: &Options) -> Result<Outcome> {
    let binaries = Binaries::find_or_build().await?;
    let mut about = circumstances(
        options.seed,
        options.rounds,
        &[options.program.path(), &binaries.kube_apiserver, &binaries.etcd],
    );
    let arena = Arena::start(options.program.clone()).await?;
    let mut lines = Vec::new();
    for part in Part::value_variants() {
        if options.only.is_empty() || options.only.contains(part) {
            let began = Instant::now();
            let found = Box::pin(one(&arena, options, *part)).await?;
            // At once: a part that fails later must not cost what this one has found.
            println!("{}", report::table(&found));
            println!("measured: {part:?}, {:.0} s, load {}", began.elapsed().as_secs_f64(), load());
            lines.extend(found);
        }
    }
    about["loadAtTheEnd"] = json!(load());
    let said: Vec<_> = lines.iter().map(|line| json!({"line": line, "met": line.met()})).collect();
    Ok(Outcome { lines, json: json!({"about": about, "lines": said}) })
}

async fn one(arena: &Arena, options: &Options, part: Part) -> Result<Vec<Line>> {
    let Options { rounds, quick, .. } = *options;
    let times = if quick { 3 } else { 40 };
    match part {
        Part::Paired => Box::pin(paired::run(arena, rounds, times)).await,
        Part::Phases => phases::run(arena, rounds, times).await,
        Part::Isolation => isolation::run(arena, rounds, times).await,
        Part::Throughput => {
            let plan = throughput::Plan {
                rounds,
                clients: if quick { vec![1, 8] } else { vec![1, 8, 32, 128] },
                lasts: Duration::from_secs(if quick { 1 } else { 5 }),
            };
            throughput::run(arena, &plan).await
        }
        Part::Costs => throughput::costs(arena, rounds, if quick { 20 } else { 400 }).await,
        Part::Expiry => {
            let (bindings, instances, ahead) = if quick { (30, 10, 4) } else { (1000, 100, 30) };
            let ahead = SignedDuration::from_secs(ahead);
            expiry::run(arena, expiry::Plan { bindings, instances, ahead }).await
        }
        Part::Scale => {
            let sizes: &[usize] = if quick { &[50] } else { &[1000, 10_000, 100_000] };
            let lease: &[&str] = if quick {
                &["--lease-duration=2s", "--lease-renew-deadline=1s", "--lease-retry-period=200ms"]
            } else {
                &["--lease-duration=15s"]
            };
            let rest = Duration::from_secs(if quick { 1 } else { 30 });
            scale::run(arena, &scale::Plan { sizes: sizes.to_vec(), rounds, times, rest, lease }).await
        }
    }
}
