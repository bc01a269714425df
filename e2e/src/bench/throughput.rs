//! Many clients at once, and what that costs.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::arena::{Arena, Site, Way};
use super::proc::{cpu_ms, cpu_of, memory_kib};
use super::report::{Line, Target};
use super::stats::{Series, count};

const PART: &str = "throughput";
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
    /// Binds of which CPU is counted.
    pub binds: usize,
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
    let pid = site.operator.pid();
    let mut lines = vec![
        Line::single(PART, "operator's memory, idle", "MB", memory_kib(pid)? / 1024.0)
            .shall(Target::AtMost(25.0)),
    ];
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
    lines.extend(costs(arena, &site, plan).await?);
    lines.push(Line::single(PART, "operator's memory, after it", "MB", memory_kib(pid)? / 1024.0));
    Ok(lines)
}

/// CPU of each process for a bind, and for an unbind.
async fn costs(arena: &Arena, site: &Site<'_>, plan: &Plan) -> Result<Vec<Line>> {
    let (control, managed) = (arena.control.pids().await, arena.managed.pids().await);
    // Each says its etcd first.
    let [etcds, servers] = [0, 1].map(|which| [control[which], managed[which]]);
    let used = || anyhow::Ok([cpu_ms(site.operator.pid())?, cpu_of(&servers)?, cpu_of(&etcds)?]);
    let names = ["operator", "API servers", "etcds"];
    let [mut bind, mut unbind] = [(); 2].map(|()| names.map(|_| Series::default()));
    for round in 0..plan.rounds {
        let name = |i: usize| format!("cost-{round}-{i}");
        let each = |series: &mut [Series; 3], before: [f64; 3], after: [f64; 3]| {
            for (series, (before, after)) in series.iter_mut().zip(before.into_iter().zip(after)) {
                series.push(round, (after - before) / count(plan.binds));
            }
        };
        let before = used()?;
        let all = |i| async move { site.bind(i, &name(i)).await };
        stream::iter(0..plan.binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        let between = used()?;
        let all = |i| async move { site.unbind(i, &name(i)).await };
        stream::iter(0..plan.binds).map(all).buffer_unordered(STEADY).try_collect::<()>().await?;
        each(&mut bind, before, between);
        each(&mut unbind, between, used()?);
    }
    let mut lines = Vec::new();
    for (what, all) in [("a bind", bind), ("an unbind", unbind)] {
        for (who, series) in names.iter().zip(all) {
            let line = Line::alone(PART, format!("CPU of the {who}, {what}"), "ms", series.figure());
            let counts = *who == "operator" && what == "a bind";
            lines.push(if counts { line.shall(Target::AtMost(1.2)) } else { line });
        }
    }
    Ok(lines)
}
