//! Faults of every kind under load, and what held: see [`e2e::chaos`].

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::chaos;
use e2e::operator::become_operator_if_asked;

#[derive(Parser)]
struct Args {
    /// Draws the faults; the same seed draws the same ones
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
    /// How long faults are made
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Instead of all that: kills the leader so many times, with the default lease and a short one
    #[arg(long, value_name = "TIMES")]
    failovers: Option<usize>,
}

fn main() -> ExitCode {
    become_operator_if_asked();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("VIOLATION: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(times) = args.failovers {
        return chaos::failover::run(times).await;
    }
    println!("seed {}, {} minutes", args.seed, args.minutes);
    Box::pin(chaos::run(args.seed, Duration::from_secs(60 * args.minutes))).await
}
