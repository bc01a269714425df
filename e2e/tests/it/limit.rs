//! The limit is exact, and one id is one binding.

use std::collections::{BTreeMap, HashSet};

use e2e::eventually;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove};
use futures::future::join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ListParams};

use crate::lifecycle::objects;
use crate::world::{program, stage, world};

fn tally(statuses: impl IntoIterator<Item = u16>) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    for status in statuses {
        *tally.entry(status).or_default() += 1;
    }
    tally
}

#[tokio::test]
async fn sixty_at_once_make_ten() {
    let (stage, instance) = stage("limit").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let names: Vec<_> = (0..60).map(|i| format!("limit-{i}")).collect();
    let answers: Vec<_> = join_all(names.iter().map(|name| osb.bind(&instance, name, None)))
        .await
        .into_iter()
        .map(|a| a.unwrap())
        .collect();
    assert_eq!(tally(answers.iter().map(|a| a.status)), BTreeMap::from([(201, 10), (400, 50)]));
    for refused in answers.iter().filter(|a| a.status == 400) {
        assert_eq!(refused.description(), "maximum number of non expired bindings reached: 10");
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(world().await.managed.client(), MANAGED_NAMESPACE);
    let ours = accounts.list(&ListParams::default()).await.unwrap();
    let ours = ours
        .items
        .iter()
        .filter(|a| a.metadata.name.as_ref().is_some_and(|n| n.starts_with("kyma-binding-limit-")));
    assert_eq!(ours.count(), 10);
    // Nothing of those that were rejected stays behind.
    assert_eq!(stage.bindings().list(&ListParams::default()).await.unwrap().items.len(), 10);

    // A place that is given up can be taken again.
    let made: Vec<_> = names.iter().zip(&answers).filter(|(_, a)| a.status == 201).map(|(n, _)| n).collect();
    assert_eq!(osb.unbind(&instance, made[0]).await.unwrap().status, 200);
    assert_eq!(osb.bind(&instance, "limit-next", None).await.unwrap().status, 201);
    assert_eq!(osb.bind(&instance, "limit-over", None).await.unwrap().status, 400);
}

#[tokio::test]
async fn twenty_of_one_id_are_one_binding() {
    let (stage, instance) = stage("same").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let answers: Vec<_> = join_all((0..20).map(|_| osb.bind(&instance, "same-1", None)))
        .await
        .into_iter()
        .map(|a| a.unwrap())
        .collect();
    assert_eq!(tally(answers.iter().map(|a| a.status)), BTreeMap::from([(200, 19), (201, 1)]));
    let kubeconfigs: HashSet<_> = answers.iter().map(|a| a.kubeconfig().unwrap()).collect();
    assert_eq!(kubeconfigs.len(), 1, "one and the same token");
    prove(kubeconfigs.into_iter().next().unwrap()).await.unwrap();

    let other = osb.bind(&instance, "same-1", Some(700)).await.unwrap();
    assert_eq!(
        (other.status, other.description()),
        (409, "binding already exists but with different parameters")
    );
    assert_eq!(osb.bind("i-other", "same-1", None).await.unwrap().status, 409);
    assert_eq!(osb.fetch("i-other", "same-1").await.unwrap().status, 404);
    assert_eq!(osb.unbind("i-other", "same-1").await.unwrap().status, 410);
    assert_eq!(objects(&world().await.managed, "same-1").await, 3);
}

#[tokio::test]
async fn an_applied_binding_over_the_limit_is_rejected_for_good_and_says_so() {
    let (stage, instance) = stage("apply-limit").await;
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "1"]).await.unwrap();
    stage.apply("apply-limit-1", &instance, None).await.unwrap();
    stage.ready("apply-limit-1").await.unwrap();
    stage.apply("apply-limit-2", &instance, None).await.unwrap();
    let rejected = stage.condition("apply-limit-2", "Stalled", "True", "LimitReached").await.unwrap();
    assert_eq!(rejected.status.unwrap().phase.unwrap().as_str(), "Rejected");
    let describe = ["-n", &stage.namespace, "describe", "kb", "apply-limit-2"];
    let described = stage.control().kubectl(&describe).await.unwrap();
    assert!(described.contains("maximum number of non expired bindings reached: 1"), "{described}");
    assert_eq!(objects(&world().await.managed, "apply-limit-2").await, 0);
    // It was applied, not asked for by HTTP, so a refusal by HTTP leaves it alone.
    assert_eq!(operator.osb().bind(&instance, "apply-limit-2", None).await.unwrap().status, 400);
    assert!(stage.bindings().get_opt("apply-limit-2").await.unwrap().is_some());
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_limit_rejections_total 1"), "{metrics}");
    eventually("the gauges to follow", SOON, async || {
        let (_, metrics) = operator.admin("/metrics").await.unwrap();
        let phase = |phase: &str| metrics.contains(&format!("kyma_bindings_bindings{{phase=\"{phase}\"}} 1"));
        if phase("Rejected") && phase("Ready") { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();
}
