//! The process is killed at random times under load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use e2e::invariants::check_nothing_left;
use e2e::load::Load;
use e2e::{Operator, Stage, WorkDir};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crate::world::{program, world};

const KILLS: usize = 6;
const CLIENTS: usize = 8;
const INSTANCES: usize = 3;
/// Fewer than there are clients for an instance, so that some are refused.
const LIMIT: usize = 2;
/// How long an operator runs at most before it is killed.
const LONGEST_RUN: Duration = Duration::from_millis(3_500);
#[tokio::test]
async fn at_random_times_under_load() {
    let seed = match std::env::var("E2E_SEED") {
        Ok(seed) => seed.parse().expect("E2E_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("E2E_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = world().await;
    let stage = Stage::new(&world.control, "kills").await.unwrap();
    for i in 0..INSTANCES {
        let kubeconfig = world.managed.admin_kubeconfig();
        stage.register(&instance(i), &format!("r-kills-{i}"), &kubeconfig).await.unwrap();
    }
    let mut operator = start(&stage).await.unwrap();
    let (publish, brokers) = watch::channel(vec![operator.osb()]);
    let (finish, over) = watch::channel(false);
    let load = Load::new(stage, brokers, over, (0..INSTANCES).map(instance).collect(), LIMIT);

    let kills = async {
        let mut interrupted = 0;
        for _ in 0..KILLS {
            // The drawn time is the test itself, not a wait for anything.
            tokio::time::sleep(random.random_range(Duration::ZERO..LONGEST_RUN)).await;
            interrupted += load.under_way.load(Ordering::Relaxed);
            operator.kill().await?;
            load.witness.check_secrets("the log of an operator that was killed", &operator.log())?;
            operator = start(&load.stage).await?;
            publish.send_replace(vec![operator.osb()]);
        }
        finish.send_replace(true);
        anyhow::Ok(interrupted)
    };
    let clients = try_join_all((0..CLIENTS).map(|number| load.client("kills", number)));
    let (interrupted, cycles) = tokio::try_join!(kills, clients).unwrap();
    let cycles: usize = cycles.iter().sum();
    println!("{cycles} bindings asked for; {interrupted} requests under way at {KILLS} kills");
    assert!(interrupted > 0, "no kill met a request: this proves nothing");
    assert!(load.witness.held() > 0, "nobody holds a binding at the end");

    let managed = [&world.managed];
    load.witness.check_all(&load.stage, &managed, &operator.osb(), LIMIT).await.unwrap();
    let held = load.witness.held_bindings();
    try_join_all(held.iter().map(|(instance, id)| load.unbind(instance, id))).await.unwrap();
    check_nothing_left(&load.stage, &managed).await.unwrap();
    operator.terminate().await.unwrap();
    load.witness.check_secrets("the log of the last operator", &operator.log()).unwrap();
}

fn instance(number: usize) -> String {
    format!("i-kills-{number}")
}

async fn start(stage: &Stage<'_>) -> Result<Operator> {
    let dir = Arc::new(WorkDir::new("operator")?);
    let limit = LIMIT.to_string();
    let args = [&stage.args()[..], &["--max-bindings-per-instance", &limit]].concat();
    let operator = Operator::launch(&dir, program(), stage.control().kubeconfig_path(), &args).await?;
    operator.ready().await?;
    Ok(operator)
}
