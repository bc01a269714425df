//! When a sweep draws no conclusion, and that it reads to the end.

use std::time::Duration;

use e2e::eventually;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, uid_of};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::sweep::{marks, plant, sweeping, swept};
use crate::world::{program, stage, world};

/// Until what was made a moment ago is old enough to be an orphan's, and a sweep has seen it.
const SETTLED: Duration = Duration::from_secs(40);

#[tokio::test]
async fn more_orphans_than_accidents_leave_stop_the_sweep() {
    let (stage, instance) = stage("breaker").await;
    let managed = &world().await.managed;
    let id = uid_of(stage.control(), &stage.namespace).await.unwrap();
    let names: Vec<_> = (0..11).map(|i| format!("breaker-{i:02}")).collect();
    for name in &names {
        plant(managed, &format!("kyma-binding-{name}"), &id, &stage.namespace).await;
    }
    // Only now, so that no sweep finds some of them old and some young.
    let operator = sweeping(&stage).await;
    stage.apply("breaker-alive", &instance, None).await.unwrap();
    let alive = stage.ready("breaker-alive").await.unwrap();
    let trips = async || {
        let (_, metrics) = operator.admin("/metrics").await.unwrap();
        let trips = metrics.lines().find_map(|l| l.strip_prefix("kyma_bindings_sweep_breaker_trips_total "));
        trips.unwrap_or_default().parse::<u64>().unwrap()
    };
    eventually("the breaker to trip", SETTLED, async || match trips().await {
        0 => Err("not yet"),
        _ => Ok(()),
    })
    .await
    .unwrap();
    // And again, for as long as nobody has looked.
    let before = trips().await;
    eventually("another trip", SOON, async || if trips().await > before { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();
    for name in &names {
        assert_eq!(objects(managed, name).await, 3, "{name}");
    }
    assert!(operator.log().contains("would be taken for orphans"));

    // A person has looked, and removed one: ten are no flood.
    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    let selector = format!("metadata.name=kyma-binding-{}", names[0]);
    managed
        .kubectl(&["delete", "clusterroles,clusterrolebindings", "--field-selector", &selector])
        .await
        .unwrap();
    accounts.delete(&format!("kyma-binding-{}", names[0]), &DeleteParams::default()).await.unwrap();
    eventually("the rest to be removed", SETTLED, async || {
        let mut left = 0;
        for name in &names {
            left += objects(managed, name).await;
        }
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })
    .await
    .unwrap();
    prove(&alive).await.unwrap();
}

#[tokio::test]
async fn a_control_plane_without_bindings_sweeps_nothing() {
    let (stage, instance) = stage("empty").await;
    let managed = &world().await.managed;
    plant(
        managed,
        "kyma-binding-empty-1",
        &uid_of(stage.control(), &stage.namespace).await.unwrap(),
        &stage.namespace,
    )
    .await;
    // A whole interval is longer than any test.
    let args = ["--create-timeout", "1s", "--sweep-interval", "24h"];
    let operator = stage.operator(program(), &args).await.unwrap();
    let appears = async |name: &str| {
        stage
            .register(&format!("i-{name}"), &format!("r-{name}"), &managed.admin_kubeconfig())
            .await
            .unwrap();
    };
    // An instance that appears is swept at once; the list was received a moment ago, so later again.
    appears("empty-second").await;
    eventually("the sweep to be refused", SETTLED, async || {
        let log = operator.log();
        let told = |what: &str| log.contains(what);
        match (told("was received a moment ago"), told("there is no binding at all")) {
            (true, true) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(objects(managed, "empty-1").await, 3, "nothing is concluded from nothing");

    // With a binding, the same control plane is believed.
    stage.apply("empty-2", &instance, None).await.unwrap();
    let alive = stage.ready("empty-2").await.unwrap();
    appears("empty-third").await;
    eventually("the orphan to be removed", SETTLED, async || match objects(managed, "empty-1").await {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await
    .unwrap();
    prove(&alive).await.unwrap();
    assert_eq!(objects(managed, "empty-2").await, 3);
}

#[tokio::test]
async fn a_sweep_reads_more_than_one_page() {
    let (stage, instance) = stage("paged").await;
    let managed = &world().await.managed;
    let id = uid_of(stage.control(), &stage.namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    let make = async |name: String| {
        let account = json!({"metadata": {"name": name, "labels": marks(&id, &stage.namespace)}});
        accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
        anyhow::Ok(())
    };
    // More than a page of what has our marks and no name of ours, all before the orphan in the list.
    for hundred in 0..3 {
        try_join_all((0..100).map(|i| make(format!("copy-{hundred}-{i:02}")))).await.unwrap();
    }
    // It is nothing but an account, so only that list can tell of it.
    make("kyma-binding-paged-1".to_owned()).await.unwrap();
    let operator = sweeping(&stage).await;
    stage.apply("paged-alive", &instance, None).await.unwrap();
    let alive = stage.ready("paged-alive").await.unwrap();
    eventually("the orphan to be removed", SETTLED, async || {
        accounts.get_opt("kyma-binding-paged-1").await.unwrap().map_or(Ok(()), |_| Err("it is there"))
    })
    .await
    .unwrap();
    swept(&operator).await;
    assert!(accounts.get_opt("copy-2-99").await.unwrap().is_some(), "a copy of our marks is left alone");
    prove(&alive).await.unwrap();
}
