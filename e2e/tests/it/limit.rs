//! The limit is exact, and one id is one binding.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use e2e::relay::{Conduct, Relay};
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove};
use e2e::{Stage, eventually};
use futures::future::join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, ListParams};
use kyma_bindings::api::conditions::Kind;
use reqwest::Method;

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

/// A stage whose one instance, `i-{name}`, has a cluster that can't be reached until the relay is open.
async fn outage(name: &str) -> (Stage<'static>, String, Relay) {
    let world = world().await;
    let stage = Stage::new(&world.control, name).await.unwrap();
    let relay = Relay::start(world.managed.url()).await.unwrap();
    relay.set(Conduct::Refuse);
    let (instance, kubeconfig) = (format!("i-{name}"), relay.through(&world.managed.admin_kubeconfig()));
    stage.register(&instance, &format!("r-{name}"), &kubeconfig).await.unwrap();
    (stage, instance, relay)
}

#[tokio::test]
async fn an_outage_refuses_nobody_for_good() {
    let (stage, instance, relay) = outage("outage").await;
    let operator = stage.operator(program(), &["--create-timeout", "3s"]).await.unwrap();
    let osb = operator.osb();
    let names: Vec<_> = (0..10).map(|i| format!("outage-{i}")).collect();
    for answer in join_all(names.iter().map(|name| osb.bind(&instance, name, None))).await {
        assert_eq!(answer.unwrap().status, 503);
    }
    // Neither by HTTP, synchronous or not, nor applied.
    let over = osb.bind(&instance, "outage-10", None).await.unwrap();
    let counted = "maximum number of non expired bindings reached: 10 (0 issued, 10 being made)";
    assert_eq!(over.status, 503, "{}", over.description());
    assert!(over.description().contains(counted), "{}", over.description());
    assert!(over.headers.contains_key("retry-after"));
    let body = r#"{"service_id": "kyma", "plan_id": "aws"}"#.to_owned();
    let path = format!("/v2/service_instances/{instance}/service_bindings/outage-11?accepts_incomplete=true");
    assert_eq!(osb.request(Method::PUT, &path, Some(body)).await.unwrap().status, 202);
    stage.apply("outage-12", &instance, None).await.unwrap();
    for name in ["outage-11", "outage-12"] {
        let waiting = stage.condition(name, "Ready", "False", "WaitingForPlace").await.unwrap();
        assert!(!waiting.is(Kind::Stalled) && !waiting.is(Kind::Accepted));
        assert!(waiting.condition(Kind::Ready).unwrap().message.contains(counted));
    }
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_limit_rejections_total 0"), "{metrics}");
    // One that waits needs nothing of the cluster to go.
    let began = std::time::Instant::now();
    assert_eq!(osb.unbind(&instance, "outage-11").await.unwrap().status, 200);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    relay.set(Conduct::Open);
    for name in &names {
        let made = osb.bound(&instance, name).await.unwrap();
        assert_eq!(made.status, 200, "{}", made.description());
        prove(made.kubeconfig().unwrap()).await.unwrap();
    }
    // All places are held by issued bindings now.
    stage.condition("outage-12", "Stalled", "True", "LimitReached").await.unwrap();
    stage.condition("outage-10", "Stalled", "True", "LimitReached").await.unwrap();
    let over = osb.bind(&instance, "outage-10", None).await.unwrap();
    let text = "maximum number of non expired bindings reached: 10";
    assert_eq!((over.status, over.description()), (400, text));
    assert!(stage.bindings().get_opt("outage-10").await.unwrap().is_none());
}

#[tokio::test]
async fn a_place_that_is_given_up_in_an_outage_is_the_next_ones() {
    let (stage, instance, relay) = outage("queue").await;
    let args = ["--max-bindings-per-instance", "1"];
    let operator = stage.operator(program(), &args).await.unwrap();
    let waits = async |name: &str| stage.condition(name, "Ready", "False", "WaitingForPlace").await.unwrap();
    let is_made = async |name: &str| {
        stage.condition(name, "Ready", "False", "ClusterUnreachable").await.unwrap();
        stage.condition(name, "Accepted", "True", "Accepted").await.unwrap();
    };
    stage.apply("queue-0", &instance, None).await.unwrap();
    is_made("queue-0").await;
    // In this order, also where all are of one second.
    for name in ["queue-1", "queue-2", "queue-3"] {
        stage.apply(name, &instance, None).await.unwrap();
        waits(name).await;
    }
    stage.bindings().delete("queue-0", &DeleteParams::default()).await.unwrap();
    stage.gone("queue-0", Duration::from_secs(5)).await.unwrap();
    is_made("queue-1").await;
    waits("queue-2").await;

    // A process after this one knows as much.
    operator.kill().await.unwrap();
    let operator = stage.operator(program(), &args).await.unwrap();
    is_made("queue-1").await;
    waits("queue-2").await;
    relay.set(Conduct::Open);
    prove(&stage.ready("queue-1").await.unwrap()).await.unwrap();
    for name in ["queue-2", "queue-3"] {
        stage.condition(name, "Stalled", "True", "LimitReached").await.unwrap();
    }
    operator.terminate().await.unwrap();
}
