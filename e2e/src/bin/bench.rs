//! What the operator takes, beside what nobody could do without: see [`e2e::bench`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use e2e::bench::arena::Program;
use e2e::bench::{Options, Part, report, run};
use e2e::image::{Architecture, operator};

#[derive(Parser)]
struct Args {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Little of everything, to see that it works: its numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// The program under test; `.ci/build` builds it where nothing is said
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where the numbers are written
    #[arg(long, default_value = "bench.json")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(measure(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("not measured: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let build = || {
        let here =
            Architecture::here().context("--program must be given: there is no image for this machine")?;
        Ok::<_, anyhow::Error>(operator::build(here)?)
    };
    let program = Program::Shipped(args.program.map_or_else(build, Ok)?);
    let Args { rounds, only, quick, output, .. } = Args { program: None, ..args };
    let outcome = run(&Options { program, only, rounds: rounds.max(1), quick, seed: rand::random() }).await?;
    println!("{}", report::table(&outcome.lines));
    std::fs::write(&output, serde_json::to_vec_pretty(&outcome.json)?)
        .with_context(|| output.display().to_string())?;
    println!("{}", output.display());
    Ok(())
}
