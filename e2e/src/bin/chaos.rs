//! Faults of every kind under load, and what held.
//!
//! Two operators with leader election, a control plane and two managed clusters; clients bind, fetch
//! and unbind all the while. The same seed draws the same faults in the same order.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use e2e::invariants::check_nothing_left;
use e2e::load::Load;
use e2e::operator::{become_operator_if_asked, this_program};
use e2e::stage::{install_crd, prepare_managed};
use e2e::{Cluster, Operator, Osb, Stage, WorkDir, eventually};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

const CLIENTS: usize = 8;
const LIMIT: usize = 3;
const LIMIT_TEXT: &str = "3";
/// An election that takes seconds, so that many fit into a run.
const ELECTION: [&str; 3] =
    ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=300ms"];
/// How long the whole may take to work again after a fault.
const RECOVERY: Duration = Duration::from_mins(1);
/// How long something that is frozen or stopped stays so, at most.
const LONGEST: Duration = Duration::from_secs(4);

#[derive(Parser)]
struct Args {
    /// Draws the faults; the same seed draws the same ones
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
    /// How long faults are made
    #[arg(long, default_value_t = 2)]
    minutes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    OperatorKilled,
    OperatorFrozen,
    OperatorReplaced,
    ControlPlaneKilled,
    ManagedClusterKilled,
    ManagedClusterFrozen,
}

const FAULTS: [Fault; 10] = [
    Fault::OperatorKilled,
    Fault::OperatorKilled,
    Fault::OperatorKilled,
    Fault::OperatorKilled,
    Fault::OperatorFrozen,
    Fault::OperatorReplaced,
    Fault::OperatorReplaced,
    Fault::ControlPlaneKilled,
    Fault::ManagedClusterKilled,
    Fault::ManagedClusterFrozen,
];

struct Chaos<'a> {
    control: &'a Cluster,
    managed: [&'a Cluster; 2],
    args: Vec<&'a str>,
    operators: Vec<Operator>,
    publish: watch::Sender<Vec<Osb>>,
    logs: Vec<String>,
}

impl Chaos<'_> {
    async fn start(&self) -> Result<Operator> {
        let dir = Arc::new(WorkDir::new("chaos-operator")?);
        Operator::launch(&dir, &this_program()?, self.control.kubeconfig_path(), &self.args).await
    }

    /// Puts a new operator in the place of one that has ended.
    async fn replace(&mut self, place: usize) -> Result<()> {
        let operator = self.start().await?;
        let ended = std::mem::replace(&mut self.operators[place], operator);
        self.logs.push(ended.log());
        self.publish.send_replace(self.operators.iter().map(Operator::osb).collect());
        Ok(())
    }

    async fn inject(&mut self, fault: Fault, random: &mut StdRng) -> Result<()> {
        let place = random.random_range(0..self.operators.len());
        let managed = self.managed[random.random_range(0..self.managed.len())];
        let while_it_lasts = random.random_range(Duration::ZERO..LONGEST);
        match fault {
            Fault::OperatorKilled => {
                self.operators[place].kill().await?;
                self.replace(place).await
            }
            Fault::OperatorReplaced => {
                self.operators[place].terminate().await?;
                self.replace(place).await
            }
            Fault::OperatorFrozen => {
                self.operators[place].pause().await?;
                // The drawn time is the fault itself, here and below.
                tokio::time::sleep(while_it_lasts).await;
                self.operators[place].resume();
                // One that has lost its lease meanwhile ends by itself; either way it makes room.
                self.operators[place].kill().await?;
                self.replace(place).await
            }
            Fault::ControlPlaneKilled => {
                self.control.stop_apiserver().await?;
                tokio::time::sleep(while_it_lasts).await;
                self.control.start_apiserver().await?;
                // The leader may have lost its lease, which ends its process.
                for place in 0..self.operators.len() {
                    if !self.operators[place].runs() {
                        self.replace(place).await?;
                    }
                }
                Ok(())
            }
            Fault::ManagedClusterKilled => {
                managed.stop_apiserver().await?;
                tokio::time::sleep(while_it_lasts).await;
                managed.start_apiserver().await
            }
            Fault::ManagedClusterFrozen => {
                managed.pause_apiserver().await;
                tokio::time::sleep(while_it_lasts).await;
                managed.resume_apiserver().await;
                Ok(())
            }
        }
    }

    /// Waits until whoever has ended is replaced and a bind works again.
    async fn recover(&mut self, load: &Load<'_>, number: usize) -> Result<Duration> {
        let began = Instant::now();
        for place in 0..self.operators.len() {
            if !self.operators[place].runs() {
                self.replace(place).await?;
            }
        }
        let binding = format!("probe-{number}");
        let instance = &load.instances[load.instances.len() - 1];
        let brokers: Vec<_> = self.operators.iter().map(Operator::osb).collect();
        eventually("a bind to work again", RECOVERY, async || {
            let answer = brokers[number % brokers.len()].bind(instance, &binding, None).await?;
            ensure!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.description());
            anyhow::Ok(())
        })
        .await?;
        let took = began.elapsed();
        eventually("its unbind to work", RECOVERY, async || {
            let answer = brokers[(number + 1) % brokers.len()].unbind(instance, &binding).await?;
            ensure!(matches!(answer.status, 200 | 410), "{} {}", answer.status, answer.description());
            anyhow::Ok(())
        })
        .await?;
        Ok(took)
    }
}

fn main() -> ExitCode {
    become_operator_if_asked();
    let args = Args::parse();
    println!("seed {}, {} minutes", args.seed, args.minutes);
    let run = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match run.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(chaos(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("VIOLATION, seed {}: {error:#}", args.seed);
            ExitCode::FAILURE
        }
    }
}

async fn chaos(args: &Args) -> Result<()> {
    let (control, first, second) = tokio::try_join!(
        Cluster::start("chaos-control"),
        Cluster::start("chaos-a"),
        Cluster::start("chaos-b")
    )?;
    install_crd(&control).await?;
    let stage = Stage::new(&control, "chaos").await?;
    let mut instances = Vec::new();
    for (i, cluster) in [&first, &second].into_iter().enumerate() {
        prepare_managed(cluster).await?;
        for j in 0..2 {
            let instance = format!("i-chaos-{i}-{j}");
            stage.register(&instance, &format!("r-chaos-{i}-{j}"), &cluster.admin_kubeconfig()).await?;
            instances.push(instance);
        }
    }
    // The last one is the probe's.
    stage.register("i-probe", "r-probe", &first.admin_kubeconfig()).await?;
    instances.push("i-probe".to_owned());
    let (namespace, instance_namespace) = (stage.namespace.clone(), stage.instance_namespace.clone());
    let mut operator_args = vec!["--namespace", &namespace, "--instance-namespace", &instance_namespace];
    operator_args.extend(ELECTION);
    operator_args.extend(["--max-bindings-per-instance", LIMIT_TEXT, "--create-timeout", "5s"]);
    let (publish, brokers) = watch::channel(Vec::new());
    let (finish, over) = watch::channel(false);
    let managed = [&first, &second];
    let mut chaos = Chaos {
        control: &control,
        managed,
        args: operator_args,
        operators: Vec::new(),
        publish,
        logs: Vec::new(),
    };
    for _ in 0..2 {
        let operator = chaos.start().await?;
        chaos.operators.push(operator);
    }
    chaos.publish.send_replace(chaos.operators.iter().map(Operator::osb).collect());
    let all = instances.clone();
    let mut load = Load::new(stage, brokers, over, instances, LIMIT);
    load.instances.truncate(all.len() - 1);
    let probe = Load::new(
        Stage::existing(&control, &namespace, &instance_namespace),
        load.brokers.clone(),
        load.over.clone(),
        all,
        LIMIT,
    );

    let faults = async {
        let mut random = StdRng::seed_from_u64(args.seed);
        let mut recoveries: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
        let end = Instant::now() + Duration::from_secs(60 * args.minutes);
        let mut met = 0;
        for number in 0.. {
            if Instant::now() >= end {
                break;
            }
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            met += usize::from(load.under_way.load(Ordering::Relaxed) > 0);
            chaos.inject(fault, &mut random).await?;
            let took = chaos.recover(&probe, number).await?;
            recoveries.entry(fault).or_default().push(took);
        }
        finish.send_replace(true);
        anyhow::Ok((recoveries, met))
    };
    let clients = try_join_all((0..CLIENTS).map(|number| load.client("chaos", number)));
    let ((recoveries, met), cycles) = tokio::try_join!(faults, clients)?;

    report(&load, &recoveries, met, cycles.iter().sum());
    let osb = chaos.operators[0].osb();
    load.witness.check_all(&load.stage, &managed, &osb, LIMIT).await?;
    println!("I1-I6 hold for {} bindings that are still held", load.witness.held());
    for (instance, binding) in load.witness.held_bindings() {
        load.unbind(&instance, &binding).await?;
    }
    check_nothing_left(&load.stage, &managed).await?;
    for operator in &chaos.operators {
        operator.terminate().await?;
        chaos.logs.push(operator.log());
    }
    for log in &chaos.logs {
        load.witness.check_secrets("the log of an operator", log)?;
    }
    println!("nothing is left, and no secret is in the logs of {} operators", chaos.logs.len());
    Ok(())
}

fn report(load: &Load<'_>, recoveries: &BTreeMap<Fault, Vec<Duration>>, met: usize, cycles: usize) {
    let faults: usize = recoveries.values().map(Vec::len).sum();
    println!("{faults} faults, {met} of them with requests under way; {cycles} bindings asked for");
    println!("{:<24} {:>6} {:>16} {:>16}", "fault", "count", "recovery p50", "recovery max");
    for (fault, times) in recoveries {
        let mut times = times.clone();
        times.sort();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{:<24} {:>6} {:>13} ms {:>13} ms",
            format!("{fault:?}"),
            times.len(),
            p50.as_millis(),
            max.as_millis()
        );
    }
    for (answer, count) in load.answers() {
        println!("{answer:<32} {count:>6}");
    }
}
