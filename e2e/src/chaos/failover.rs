//! How long a bind has to wait for another leader when the one there is dies.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::operator::this_program;
use crate::stage::{install_crd, prepare_managed, prove};
use crate::{Cluster, Operator, Stage, eventually};

const PATIENCE: Duration = Duration::from_mins(2);
/// The leases that are compared: what `--help` says, and the one of the chaos run.
const LEASES: [(&str, [&str; 3]); 2] = [
    ("default", ["--lease-duration=15s", "--lease-renew-deadline=10s", "--lease-retry-period=2s"]),
    ("short", ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=300ms"]),
];

/// Kills the leader `times` times for each lease, and prints how long it took until a PUT at the other
/// replica, sent at once and repeated while the answer is 503, was answered with a kubeconfig that works.
///
/// # Errors
/// When one of them never is.
pub async fn run(times: usize) -> Result<()> {
    let (control, managed) = tokio::try_join!(Cluster::start("failover"), Cluster::start("failover-a"))?;
    install_crd(&control).await?;
    prepare_managed(&managed).await?;
    println!("{:<9} {:>8} {:>6} {:>10} {:>10}", "lease", "lasts", "kills", "p50", "max");
    for (name, flags) in LEASES {
        let stage = Stage::new(&control, name).await?;
        stage.register("i-failover", &format!("r-{name}"), &managed.admin_kubeconfig()).await?;
        let start = async || stage.operator(&this_program()?, &flags).await;
        let mut replicas = [start().await?, start().await?];
        let mut waits = Vec::new();
        for number in 0..times {
            let leader = leader(&replicas).await?;
            let other = replicas[1 - leader].osb();
            replicas[leader].kill().await?;
            let (began, binding) = (Instant::now(), format!("failover-{name}-{number}"));
            let answer = eventually("a bind after the leader's death", PATIENCE, async || {
                let answer = other.bind("i-failover", &binding, None).await?;
                ensure!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.description());
                Ok(answer)
            })
            .await?;
            waits.push(began.elapsed());
            prove(answer.kubeconfig()?).await?;
            let answer = other.unbind("i-failover", &binding).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.description());
            replicas[leader] = start().await?;
        }
        waits.sort();
        let (p50, max) = (waits.get(waits.len().saturating_sub(1) / 2), waits.last());
        let seconds = |wait: Option<&Duration>| wait.map_or(0.0, Duration::as_secs_f64);
        let lasts = flags[0].split('=').next_back().unwrap_or_default();
        println!("{name:<9} {lasts:>8} {times:>6} {:>8.2} s {:>8.2} s", seconds(p50), seconds(max));
    }
    Ok(())
}

/// Which of the two leads.
async fn leader(replicas: &[Operator; 2]) -> Result<usize> {
    eventually("one of them to lead", PATIENCE, async || {
        let [first, second] = replicas;
        match (first.leads().await, second.leads().await) {
            (true, false) => Ok(0),
            (false, true) => Ok(1),
            both => Err(format!("{both:?}")),
        }
    })
    .await
    .context("the election")
}
