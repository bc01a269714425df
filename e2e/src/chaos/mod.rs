//! Faults of every kind under load, and what held.
//!
//! A run is made of storms: clients bind, fetch and unbind while faults strike in several lanes at
//! once, so that they overlap, and strike what has not recovered yet. After each storm it is quiet,
//! and every invariant is looked at. The same seed draws the same faults in the same order.

mod arena;
mod calm;
pub mod failover;
pub mod fault;
mod lanes;
mod report;
mod victims;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crate::invariants::check_nothing_left;
use crate::load::Load;
use crate::stage::{install_crd, prepare_managed};
use crate::{Cluster, Relay, Rights, Stage};
use arena::{Arena, Site, lock};
use calm::Aging;
use fault::LANES;
use lanes::Storm;

const CLIENTS: usize = 8;
const LIMIT: usize = 3;
const PLACES: usize = 2;
/// An election that takes seconds, so that many fit into a run; what is younger than 18 s is left to
/// whoever makes it, and the rest is swept.
const SETTINGS: [&str; 6] = [
    "--lease-duration=3s",
    "--lease-renew-deadline=2s",
    "--lease-retry-period=300ms",
    "--max-bindings-per-instance=3",
    "--create-timeout=3s",
    "--sweep-interval=4s",
];
/// How long faults are made until it is quiet for a while.
const STORM: Duration = Duration::from_mins(1);
/// No storm is shorter: one that hardly begins shows nothing.
const SHORTEST: Duration = Duration::from_secs(20);
/// One storm in so many is gentle.
const GENTLE: usize = 3;
/// A binding is left to its expiry once in a while, seconds.
const AGING: i64 = 300;
/// The user that the operator is in the control plane.
const USER: &str = "operator";

/// Runs for about `length` and prints the report.
///
/// # Errors
/// The first invariant that doesn't hold.
pub async fn run(seed: u64, length: Duration) -> Result<()> {
    let (control, first, second) = tokio::try_join!(
        Cluster::start("chaos-control"),
        Cluster::start("chaos-a"),
        Cluster::start("chaos-b")
    )?;
    install_crd(&control).await?;
    let stage = Stage::new(&control, "chaos").await?;
    let sites = [site(&stage, &first, 0).await?, site(&stage, &second, 1).await?];
    let (publish, brokers) = watch::channel(Vec::new());
    let (finish, over) = watch::channel(false);
    let instances = (0..4).map(|i| instance("i", i % 2, &format!("load-{}", i / 2))).collect();
    let mut args: Vec<_> = stage.args().map(str::to_owned).to_vec();
    args.extend(SETTINGS.map(str::to_owned));
    let load = Load::new(stage, brokers, over, instances, LIMIT);
    let rights = Rights::new(&load.stage, USER);
    rights.grant().await?;
    let arena = Arena::open(&load, &rights, sites, publish, args, PLACES).await?;

    let mut seeds = StdRng::seed_from_u64(seed);
    let mut aging: Vec<Aging> = Vec::new();
    let end = Instant::now() + length;
    for number in 0.. {
        let left = end.saturating_duration_since(Instant::now());
        if number > 0 && left < SHORTEST {
            break;
        }
        let storm = Storm {
            number,
            seed: seeds.random(),
            gentle: number % GENTLE == 1,
            end: Instant::now() + left.clamp(SHORTEST, STORM),
        };
        finish.send_replace(false);
        let faults = async {
            let lanes = try_join_all(LANES.map(|lane| lanes::run(&arena, lane, storm)));
            tokio::select! {
                done = lanes => done?,
                ended = arena.keep() => ended.map(|()| Vec::new())?,
            };
            // Clients end by themselves, with one operator at least.
            finish.send_replace(true);
            anyhow::Ok(())
        };
        let name = format!("load-{number}");
        let clients = try_join_all((0..CLIENTS).map(|client| load.client(&name, client)));
        let serving = async { tokio::try_join!(faults, clients) };
        serving.await.with_context(|| format!("storm {number}"))?;
        age(&arena, &mut aging, number).await?;
        let quiet = Instant::now();
        arena.calm(&mut aging).await.with_context(|| format!("the calm after storm {number}"))?;
        let faults: usize = lock(&arena.tally).faults.values().sum();
        println!(
            "storm {number} is over: {faults} faults so far; {:.0?} until all was looked at",
            quiet.elapsed()
        );
    }

    for Aging { binding, .. } in &aging {
        load.unbind(&instance("i", 0, "aging"), binding).await?;
    }
    check_nothing_left(&load.stage, &arena.managed()).await?;
    load.holds("I2");
    for place in &arena.places {
        let operator = place.operator.lock().await;
        operator.terminate().await?;
        load.witness.check_secrets("the log of an operator", &operator.log())?;
        load.holds("I6");
    }
    report::print(&load, &lock(&arena.tally));
    Ok(())
}

fn instance(kind: &str, site: usize, name: &str) -> String {
    format!("{kind}-chaos-{site}-{name}")
}

/// Prepares a managed cluster and registers its instances, all through one relay.
async fn site<'a>(stage: &Stage<'_>, cluster: &'a Cluster, number: usize) -> Result<Site<'a>> {
    prepare_managed(cluster).await?;
    let relay = Relay::start(cluster.url()).await?;
    let victims: Vec<_> = (0..4).map(|i| format!("victims-{i}")).collect();
    let probes = LANES.iter().filter(|lane| lane.probes(number)).map(|lane| format!("probe-{}", lane.name()));
    let probes: Vec<_> = probes.collect();
    let others = ["load-0", "load-1", "aging"].map(str::to_owned);
    let mut runtimes = Vec::new();
    for name in others.iter().chain(&victims).chain(&probes) {
        let runtime = instance("r", number, name);
        let kubeconfig = relay.through(&cluster.admin_kubeconfig());
        stage.register(&instance("i", number, name), &runtime, &kubeconfig).await?;
        runtimes.push(runtime);
    }
    let victims = victims.iter().map(|name| instance("i", number, name)).collect();
    Ok(Site { cluster, relay, runtimes, probe: instance("i", number, "probe"), victims })
}

/// Leaves a binding to its expiry, unless there is a young one already.
async fn age(arena: &Arena<'_>, aging: &mut Vec<Aging>, number: usize) -> Result<()> {
    let now = Timestamp::now();
    if aging.iter().any(|a| a.ends.duration_since(now).as_secs() > AGING) {
        return Ok(());
    }
    let (instance, binding) = (instance("i", 0, "aging"), format!("aging-{number}"));
    ensure!(arena.load.bind(&instance, &binding).await?, "{instance} is full");
    let ends = arena.load.stage.bindings().get(&binding).await?.expires_at().context("it has no end")?;
    aging.push(Aging { binding, ends });
    Ok(())
}
