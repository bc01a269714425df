//! A healthy instance alone, and beside a hundred whose clusters are dead.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::arena::{Arena, Site, Way};
use super::report::{Line, Target};
use super::stats::{Series, ms};
use crate::fake::{Death, Fake};

const DEAD: usize = 100;
const DEATHS: [Death; 6] = [
    Death::Refused,
    Death::BlackHole,
    Death::Garbage,
    Death::Status(500),
    Death::Status(429),
    Death::Slow(Duration::from_secs(30)),
];

/// The same binds with and without them. They can't be taken away again, so one comes after the other;
/// the floor beside each shows what the machine did meanwhile.
///
/// # Errors
/// When a healthy bind fails.
pub async fn run(arena: &Arena, rounds: usize, times: usize) -> Result<Vec<Line>> {
    let site = arena.site("healthy", Way::Short).await?;
    let [alone, floor_alone] = binds(&site, "alone", rounds, times).await?;
    let mut fakes = Vec::new();
    for i in 0..DEAD {
        let fake = Fake::start(DEATHS[i % DEATHS.len()]).await?;
        let instance = format!("i-dead-{i}");
        site.stage.register(&instance, &format!("r-dead-{i}"), fake.kubeconfig()).await?;
        site.stage.apply(&format!("dead-{i}"), &instance, None).await?;
        fakes.push(fake);
    }
    let [beside, floor_beside] = binds(&site, "beside", rounds, times).await?;
    let what = format!("bind beside {DEAD} dead clusters / alone");
    let line = Line::paired("isolation", what, "ms", &beside, &alone).shall(Target::RatioAtMost(1.05));
    let floor =
        Line::paired("isolation", "the floor's bind, then and before", "ms", &floor_beside, &floor_alone);
    let forget = |i: usize| {
        let bindings = site.stage.bindings();
        async move {
            let patch =
                serde_json::json!({"metadata": {"annotations": {"bindings.kyma-project.io/forget": "true"}}});
            let (name, params) = (format!("dead-{i}"), kube::api::PatchParams::default());
            bindings.patch(&name, &params, &kube::api::Patch::Merge(patch)).await?;
            bindings.delete(&name, &kube::api::DeleteParams::default()).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..DEAD).map(forget).buffer_unordered(8).try_collect::<()>().await?;
    Ok(vec![line, floor])
}

async fn binds(site: &Site<'_>, name: &str, rounds: usize, times: usize) -> Result<[Series; 2]> {
    let (mut ours, mut floor) = (Series::default(), Series::default());
    for round in 0..rounds {
        for i in 0..times {
            let name = format!("{name}-{round}-{i}");
            let began = Instant::now();
            site.bind(i, &name).await?;
            ours.push(round, ms(began.elapsed()));
            site.unbind(i, &name).await?;
            let name = format!("floor-{name}");
            let began = Instant::now();
            site.floor.bind(&name).await?;
            floor.push(round, ms(began.elapsed()));
            site.floor.unbind(&name).await?;
        }
    }
    Ok([ours, floor])
}
