//! Many clients at once, and what that costs.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::arena::{Arena, Way};
use super::proc::{cpu_ms, cpu_of, memory_kib};
use super::report::{Line, Target};
use super::stats::{Series, count};

const PART: &str = "throughput";
const COSTS: &str = "costs";
/// Who asks while CPU is counted.
const STEADY: usize = 8;

/// Numbers of clients, and how long each number of them works in a round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// How long.
    pub lasts: Duration,
}

/// Binds and unbinds by so many clients until the time is over; a second of it.
async fn rate(
    clients: usize,
    lasts: Duration,
    cycle: impl AsyncFn(usize, usize) -> Result<()>,
) -> Result<f64> {
    let began = Instant::now();
    let client = async |client: usize| -> Result<usize> {
        let mut done = 0;
        while began.elapsed() < lasts {
            cycle(client, done).await?;
            done += 1;
        }
        Ok(done)
    };
    let done: usize = try_join_all((0..clients).map(client)).await?.into_iter().sum();
    Ok(count(done) / began.elapsed().as_secs_f64())
}

/// All of it.
///
/// # Errors
/// When something is not answered as it should be.
pub async fn run(arena: &Arena, plan: &Plan) -> Result<Vec<Line>> {
    let site = arena.site("many", Way::Short).await?;
    let mut lines = Vec::new();
    for &clients in &plan.clients {
        let (mut ours, mut floor) = (Series::default(), Series::default());
        for round in 0..plan.rounds {
            let name = |client: usize, i: usize| format!("many-{clients}-{round}-{client}-{i}");
            let cycle = async |client: usize, i: usize| {
                let name = name(client, i);
                site.bind(client, &name).await?;
                site.unbind(client, &name).await
            };
            let bare = async |client: usize, i: usize| {
                let name = format!("floor-{}", name(client, i));
                site.floor.bind(&name).await?;
                site.floor.unbind(&name).await
            };
            if round % 2 == 0 {
                floor.push(round, rate(clients, plan.lasts, bare).await?);
                ours.push(round, rate(clients, plan.lasts, cycle).await?);
            } else {
                ours.push(round, rate(clients, plan.lasts, cycle).await?);
                floor.push(round, rate(clients, plan.lasts, bare).await?);
            }
        }
        let line = Line::paired(PART, format!("bind + unbind, {clients} clients"), "/s", &ours, &floor);
        let line = if [8, 32].contains(&clients) { line.shall(Target::RatioAtLeast(0.95)) } else { line };
        lines.push(line);
    }
    let memory = memory_kib(site.operator.pid())? / 1024.0;
    lines.push(Line::single(PART, "operator's memory, after it", "MB", memory));
    Ok(lines)
}

/// CPU of each process for a bind, and for an unbind.
///
/// # Errors
/// When something is not answered as it should be.
pub async fn costs(arena: &Arena, rounds: usize, binds: usize) -> Result<Vec<Line>> {
    let site = &arena.site("costs", Way::Short).await?;
    let idle = memory_kib(site.operator.pid())? / 1024.0;
    let (control, managed) = (arena.control.pids().await, arena.managed.pids().await);
    // Each says its etcd first.
    let [etcds, servers] = [0, 1].map(|which| [control[which], managed[which]]);
    let used = || anyhow::Ok([cpu_ms(site.operator.pid())?, cpu_of(&servers)?, cpu_of(&etcds)?]);
    let names = ["operator", "API servers", "etcds"];
    let [mut bind, mut unbind, mut bare_bind, mut bare_unbind] =
        [(); 4].map(|()| names.map(|_| Series::default()));
    for round in 0..rounds {
        let name = |i: usize| format!("cost-{round}-{i}");
        let each = |series: &mut [Series; 3], before: [f64; 3], after: [f64; 3]| {
            for (series, (before, after)) in series.iter_mut().zip(before.into_iter().zip(after)) {
                series.push(round, (after - before) / count(binds));
            }
        };
        let before = used()?;
        let all = |i| async move { site.bind(i, &name(i)).await };
        stream::iter(0..binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        let between = used()?;
        let all = |i| async move { site.unbind(i, &name(i)).await };
        stream::iter(0..binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        each(&mut bind, before, between);
        each(&mut unbind, between, used()?);
        let name = |i: usize| format!("floor-{}", name(i));
        let before = used()?;
        let all = |i| async move { site.floor.bind(&name(i)).await };
        stream::iter(0..binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        let between = used()?;
        let all = |i| async move { site.floor.unbind(&name(i)).await };
        stream::iter(0..binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        each(&mut bare_bind, before, between);
        each(&mut bare_unbind, between, used()?);
    }
    let mut lines =
        vec![Line::single(COSTS, "operator's memory, idle", "MB", idle).shall(Target::AtMost(25.0))];
    for (what, all, bare) in [("a bind", bind, bare_bind), ("an unbind", unbind, bare_unbind)] {
        for (who, (series, bare)) in names.iter().zip(all.iter().zip(&bare)) {
            let said = format!("CPU of the {who}, {what}");
            // The bare client is a part of the benchmark.
            let line = match *who {
                "operator" => Line::alone(COSTS, said, "ms", series.figure()),
                _ => Line::paired(COSTS, said, "ms", series, bare),
            };
            let counts = *who == "operator" && what == "a bind";
            lines.push(if counts { line.shall(Target::AtMost(1.2)) } else { line });
        }
    }
    Ok(lines)
}
