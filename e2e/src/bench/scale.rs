//! Many live bindings: a start, memory, binds, rest, and another leader.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::arena::{Arena, Site, Way, register};
use super::floor::Floor;
use super::proc::memory_kib;
use super::report::{Line, Target};
use super::stats::{Series, count, ms};
use crate::stage::uid_of;
use crate::{Stage, eventually};

const PART: &str = "scale";
/// Who writes the objects.
const LOADERS: usize = 32;
/// Bindings of an instance.
const EACH: usize = 100;
/// How long it may take to start, or another to lead.
const PATIENCE: Duration = Duration::from_mins(10);

/// Sizes, and how much is done at each.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Numbers of live bindings.
    pub sizes: Vec<usize>,
    /// Rounds of binds.
    pub rounds: usize,
    /// Binds a round.
    pub times: usize,
    /// How long it is left alone.
    pub rest: Duration,
    /// What is said of the lease; saying anything switches the election on.
    pub lease: &'static [&'static str],
}

/// Each size on a stage of its own.
///
/// # Errors
/// When something is not answered as it should be.
pub async fn run(arena: &Arena, plan: &Plan) -> Result<Vec<Line>> {
    let Plan { sizes, rounds, times, rest, lease } = plan;
    let mut lines = Vec::new();
    let (mut empty, mut fewest) = (None, None);
    for &size in std::iter::once(&0).chain(sizes) {
        let name = format!("live-{size}");
        let stage = Stage::new(&arena.control, &name).await?;
        let beside = Stage::new(&arena.control, &format!("{name}-floor")).await?;
        let number = size.div_ceil(EACH).max(10);
        let instances = register(&stage, &name, number, &arena.kubeconfig(Way::Short)).await?;
        let sizes = load(arena, &stage, &name, &instances, size).await?;
        let (began, operator) = arena.begin(&stage, lease).await?;
        eventually("the operator to be ready", PATIENCE, async || {
            ensure!(operator.admin("/readyz").await?.0 == 200 && operator.leads().await, "not yet");
            Ok(())
        })
        .await?;
        let ready = began.elapsed();
        tokio::time::sleep(*rest / 2).await;
        let asked = at_rest(arena, *rest).await?;
        // By now what its start took alone is given back.
        let memory = memory_kib(operator.pid())?;
        let floor = Floor::new(&beside, &arena.managed.client());
        let site = Site::new(stage, operator, floor, instances);
        if size == 0 {
            empty = Some(memory);
            site.operator.terminate().await?;
            continue;
        }
        let said = |what: &str| format!("{what}, {size} bindings");
        lines.push(
            Line::single(PART, said("start until ready"), "s", ready.as_secs_f64())
                .shall(Target::AtMost(10.0)),
        );
        let each = (memory - empty.unwrap_or_default()) / count(size);
        lines.push(Line::single(PART, said("memory a binding"), "KiB", each).shall(Target::AtMost(1.0)));
        if fewest.is_none() {
            for (what, bytes) in ["a binding's object", "its Secret"].iter().zip(sizes) {
                lines.push(Line::single(PART, format!("{what}, as JSON"), "bytes", count(bytes)));
            }
        }
        lines.push(Line::single(PART, said("requests at rest, a minute"), "", asked));
        let (ours, floor) = binds(&site, &name, *rounds, *times).await?;
        lines.push(Line::paired(PART, said("bind"), "ms", &ours, &floor));
        if let Some(fewest) = &fewest {
            let against = Line::paired(PART, said("bind, against the fewest"), "ms", &ours, fewest);
            lines.push(against.shall(Target::RatioAtMost(1.1)));
        }
        fewest.get_or_insert(ours);
        lines.push(Line::single(
            PART,
            said("leader killed until 201"),
            "s",
            failover(arena, site, lease).await?,
        ));
    }
    Ok(lines)
}

/// Writes the objects with their Secrets, as a controller before would have left them. Returns how
/// large both are.
async fn load(
    arena: &Arena,
    stage: &Stage<'_>,
    name: &str,
    instances: &[String],
    size: usize,
) -> Result<[usize; 2]> {
    let control_plane = uid_of(&arena.control, &stage.namespace).await?;
    let cluster = uid_of(&arena.managed, "kube-system").await?;
    let loader = Floor::new(stage, &arena.managed.client());
    let write = |i: usize| {
        let (number, loader) = (i % instances.len(), &loader);
        let (instance, runtime) = (&instances[number], format!("r-{name}-{number}"));
        let (control_plane, cluster) = (&control_plane, &cluster);
        async move { loader.load(&drawn(size, i), instance, &runtime, control_plane, cluster).await }
    };
    stream::iter(0..size).map(write).buffer_unordered(LOADERS).try_collect::<()>().await?;
    if size == 0 { Ok([0, 0]) } else { loader.sizes(&drawn(size, 0)).await }
}

/// The id of one of so many bindings: a UUID, as platforms draw them.
fn drawn(size: usize, number: usize) -> String {
    let seed = ((size as u64) << 32) + number as u64;
    Uuid::from_u128(StdRng::seed_from_u64(seed).random()).to_string()
}

/// What is asked about bindings and Secrets while nothing happens, by the API server's own count.
async fn at_rest(arena: &Arena, rest: Duration) -> Result<f64> {
    let asked = async || {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = arena.control.client().request_text(request).await?;
        let ours = ["resource=\"kymabindings\"", "resource=\"secrets\""];
        let counts = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let counts = counts.filter(|line| ours.iter().any(|resource| line.contains(resource)));
        anyhow::Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>())
    };
    let before = asked().await?;
    tokio::time::sleep(rest).await;
    Ok((asked().await? - before) * 60.0 / rest.as_secs_f64())
}

async fn binds(site: &Site<'_>, name: &str, rounds: usize, times: usize) -> Result<(Series, Series)> {
    let (mut ours, mut floor) = (Series::default(), Series::default());
    for i in 0..site.instances.len().min(16) {
        // Their clients are made.
        site.bind(i, &format!("{name}-warm-{i}")).await?;
        site.unbind(i, &format!("{name}-warm-{i}")).await?;
    }
    for round in 0..rounds {
        for i in 0..times {
            let (name, bare) = (format!("{name}-{round}-{i}"), format!("floor-{name}-{round}-{i}"));
            let instance = i % site.instances.len().min(16);
            let began = Instant::now();
            site.bind(instance, &name).await?;
            ours.push(round, ms(began.elapsed()));
            site.unbind(instance, &name).await?;
            let began = Instant::now();
            site.floor.bind(&bare).await?;
            floor.push(round, ms(began.elapsed()));
            site.floor.unbind(&bare).await?;
        }
    }
    Ok((ours, floor))
}

/// Another process stands by; the leader is killed; seconds until the other answers 201.
async fn failover(arena: &Arena, site: Site<'_>, lease: &[&str]) -> Result<f64> {
    let other = arena.operator(&site.stage, lease).await?;
    ensure!(!other.leads().await, "two lead");
    site.operator.kill().await?;
    let (began, osb, instance) = (Instant::now(), other.osb(), &site.instances[0]);
    // All sizes have the same managed cluster.
    let binding = format!("{instance}-after-the-leader");
    eventually("a bind by the other", PATIENCE, async || {
        let answer = osb.bind(instance, &binding, None).await?;
        ensure!(answer.status < 300, "{} {}", answer.status, answer.description());
        Ok(())
    })
    .await?;
    let took = began.elapsed().as_secs_f64();
    other.terminate().await.context("the other")?;
    Ok(took)
}
