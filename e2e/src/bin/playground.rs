//! The playground: starts two clusters and the operator, makes bindings in both ways, proves them,
//! and stays up to be played with.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::WorkDir;
use e2e::playground::{Access, Auth, Clusters, Playground, Steps, log_tail, say, seconds};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Starts two real clusters and the operator on this machine, makes short-lived kubeconfigs by
/// HTTP and by kubectl apply, proves them, and stays up until Ctrl-C. Needs Rust and Go.
#[derive(Parser)]
#[command(name = "playground")]
struct Args {
    /// End after the proof
    #[arg(long)]
    once: bool,
    /// How requests are authenticated
    #[arg(long, default_value = "none")]
    auth: Auth,
}

fn main() -> ExitCode {
    // The operator is this program again: there is nothing else to build.
    e2e::operator::become_operator_if_asked();
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let dir = Arc::new(WorkDir::new("playground")?);
        let done = run(args, &dir).await;
        if let Err(error) = &done
            && !error.is::<Interrupted>()
            && let Some(log) = log_tail(&dir)
        {
            eprintln!("\nThe end of the operator's log, without its details:\n{log}");
        }
        drop(dir);
        if done.is_ok() {
            say("The kubeconfig files are removed, too; their clusters are gone.");
        }
        done
    });
    // Somebody else's build may still be waited for, which nothing can interrupt.
    runtime.shutdown_background();
    done
}

async fn run(args: &Args, dir: &Arc<WorkDir>) -> Result<()> {
    let mut interrupts = Interrupts::new()?;
    let steps = Steps::default();
    let started = Instant::now();
    let access = Access::new(args.auth, dir)?;
    let clusters = interrupts.end(Box::pin(Clusters::start(&steps))).await?;
    let playground = interrupts.end(Box::pin(Playground::start(&steps, &clusters, dir, access))).await?;
    interrupts.end(Box::pin(playground.prove(&steps))).await?;
    say(&format!("All proved in {}.\n", seconds(started.elapsed())));
    if args.once {
        say("Without --once all of this stays up for lines like these:\n");
        say(&playground.hints());
    } else {
        say("To go on with, in another terminal:\n");
        say(&playground.hints());
        say("\nUp until Ctrl-C; everything is removed then.");
        tokio::select! {
            () = interrupts.next() => {}
            ended = playground.watch() => ended?,
        }
    }
    say("");
    let ended = |(): &()| "the operator has ended in order".to_owned();
    steps.step("ending the operator", playground.stop(), ended).await?;
    let removed = |(): &()| "both clusters are stopped and removed".to_owned();
    steps.step("removing the clusters", Box::pin(clusters.stop()), removed).await
}

/// Somebody's wish, so nothing that the operator's log could explain.
#[derive(Debug, thiserror::Error)]
#[error("interrupted before all was proved; what was started is removed")]
struct Interrupted;

/// What ends the playground before it ends by itself. Its children don't hear the terminal's
/// signals: they are ended in order, or with this process.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        let receive = |kind| signal(kind).context("signals can't be received");
        Ok(Self {
            interrupt: receive(SignalKind::interrupt())?,
            terminate: receive(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Does `work`, or drops it with all that it has started.
    async fn end<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.next() => Err(Interrupted.into()),
        }
    }
}
