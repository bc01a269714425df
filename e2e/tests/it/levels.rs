//! I7: what a process holds for its work, it gives back.

use std::time::Duration;

use e2e::level::Level;
use e2e::{Operator, Osb, eventually};
use futures::future::try_join_all;

use crate::world::{program, stage, world};

const AT_ONCE: usize = 6;
/// Connections of one client for a managed cluster and their tasks, and some.
const SPARE: u64 = 40;
/// How long idle connections may stay open: 90 s, and what it takes to notice.
const IDLE: Duration = Duration::from_mins(2);

/// Binds, fetches and unbinds, some at once, and once renews the kubeconfig.
async fn work(osb: &Osb, instance: &str, name: &str) {
    let cycle = async |number: usize| {
        let binding = format!("{name}-{number}");
        assert_eq!(osb.bound(instance, &binding).await?.status, 201);
        assert_eq!(osb.fetch(instance, &binding).await?.status, 200);
        assert_eq!(osb.unbind(instance, &binding).await?.status, 200);
        anyhow::Ok(())
    };
    try_join_all((0..AT_ONCE).map(cycle)).await.unwrap();
}

/// The level of an operator when it holds no more than it may.
async fn settled(operator: &Operator, check: impl Fn(Level) -> anyhow::Result<()>) -> Level {
    eventually("the operator's level", IDLE, async || {
        let level = operator.level().await?;
        check(level).map(|()| level)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn memory_tasks_and_files_return_to_their_level() {
    let (stage, instance) = stage("levels").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    work(&osb, &instance, "levels-first").await;
    let before = settled(&operator, |_| Ok(())).await;
    for round in 0..20 {
        // Each renewal makes a client for the managed cluster; the one before must go.
        let kubeconfig = managed.kubeconfig_for(&format!("admin-{round}"), &["system:masters"]).unwrap();
        stage.rotate("r-levels", Some(&kubeconfig)).await.unwrap();
        work(&osb, &instance, &format!("levels-{round}")).await;
    }
    let after = settled(&operator, |level| level.check(before, SPARE)).await;
    println!("before {before:?}, after {after:?}");
}
