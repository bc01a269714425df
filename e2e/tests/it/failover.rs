//! Several replicas: one reconciles, all serve, and none of it is lost with one of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::invariants::{check_limit, check_objects};
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Conduct, Operator, Osb, Relay, Stage, WorkDir, eventually};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kyma_bindings::api::conditions::Kind;
use kyma_bindings::api::names::FINALIZER;
use serde_json::json;

use crate::world::{program, stage, world};

/// An election that is over within seconds, so that a test can wait for it.
const ELECTION: [&str; 3] =
    ["--lease-duration=4s", "--lease-renew-deadline=3s", "--lease-retry-period=500ms"];

async fn replica(stage: &Stage<'_>) -> Operator {
    stage.operator(program(), &ELECTION).await.unwrap()
}

/// Which of them leads; exactly one must.
async fn leader(replicas: &[Operator]) -> usize {
    eventually("one of them to lead", SOON, async || {
        let leading = join_all(replicas.iter().map(Operator::leads)).await;
        let leading: Vec<_> = (0..replicas.len()).filter(|i| leading[*i]).collect();
        if let [one] = leading[..] { Ok(one) } else { Err(format!("{leading:?} lead")) }
    })
    .await
    .unwrap()
}

async fn holder(stage: &Stage<'_>) -> String {
    let leases: Api<Lease> = Api::namespaced(stage.control().client(), &stage.namespace);
    let lease = leases.get("kyma-bindings").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap_or_default()
}

async fn accounts(prefix: impl AsRef<str>) -> usize {
    let accounts: Api<ServiceAccount> = Api::namespaced(world().await.managed.client(), MANAGED_NAMESPACE);
    let all = accounts.list(&ListParams::default()).await.unwrap().items;
    all.iter().filter(|a| a.metadata.name.as_ref().is_some_and(|n| n.starts_with(prefix.as_ref()))).count()
}

#[tokio::test]
async fn a_killed_leader_is_followed_and_the_limit_holds_across() {
    let (stage, instance) = stage("failover").await;
    let mut replicas = vec![replica(&stage).await, replica(&stage).await, replica(&stage).await];
    let first = leader(&replicas).await;
    let osb: Vec<Osb> = replicas.iter().map(Operator::osb).collect();

    // Whoever is asked, the road is the same.
    for (i, osb) in osb.iter().enumerate() {
        let made = osb.bind(&instance, &format!("failover-{i}"), None).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.description());
        assert_eq!(osb.unbind(&instance, &format!("failover-{i}")).await.unwrap().status, 200);
    }

    // Thirty requests at those who stay, and the leader killed while it decides on them.
    let killed = replicas.remove(first);
    let others: Vec<_> = replicas.iter().map(Operator::osb).collect();
    let asked = Instant::now();
    let requests = join_all((0..30).map(|i| {
        let osb = others[i % 2].clone();
        let (instance, name) = (instance.clone(), format!("failover-many-{i}"));
        async move {
            // What a platform does about a 503: the same again.
            loop {
                let answer = osb.bind(&instance, &name, None).await.unwrap();
                if answer.status != 503 {
                    return answer;
                }
            }
        }
    }));
    let kill = async {
        eventually("some of them to be decided", SOON, async || {
            let made = accounts("kyma-binding-failover-many-").await;
            if made > 0 { Ok(()) } else { Err("none") }
        })
        .await
        .unwrap();
        killed.kill().await.unwrap();
    };
    let (answers, ()) = tokio::join!(requests, kill);
    println!("30 requests across a failover were answered after {:?}", asked.elapsed());
    let made: Vec<_> = answers.iter().filter(|a| matches!(a.status, 200 | 201)).collect();
    let refused = answers.iter().filter(|a| a.status == 400).count();
    assert_eq!((made.len(), refused), (10, 20));
    for answer in made {
        prove(answer.kubeconfig().unwrap()).await.unwrap();
    }
    eventually("exactly ten accounts", SOON, async || {
        let left = accounts("kyma-binding-failover-many-").await;
        if left == 10 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await
    .unwrap();
    leader(&replicas).await;
}

#[tokio::test]
async fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let (stage, instance) = stage("handover").await;
    // A lease that nobody could wait for within this test.
    let long = ["--lease-duration=5m", "--lease-renew-deadline=10s", "--lease-retry-period=500ms"];
    let first = stage.operator(program(), &long).await.unwrap();
    eventually("the first to lead", SOON, async || if first.leads().await { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();
    let second = stage.operator(program(), &long).await.unwrap();
    assert!(!second.leads().await);
    let made = first.osb().bind(&instance, "handover-1", None).await.unwrap();
    first.terminate().await.unwrap();
    eventually(
        "the second to lead",
        SOON,
        async || if second.leads().await { Ok(()) } else { Err("not yet") },
    )
    .await
    .unwrap();
    assert_eq!(second.osb().unbind(&instance, "handover-1").await.unwrap().status, 200);
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_was_frozen_ends_when_it_wakes_and_writes_nothing() {
    let (stage, instance) = stage("frozen").await;
    let replicas = [replica(&stage).await, replica(&stage).await];
    let first = leader(&replicas).await;
    let (frozen, other) = (&replicas[first], &replicas[1 - first]);
    let before = holder(&stage).await;
    assert!(frozen.pause().await.unwrap());
    let osb = other.osb();
    let made = osb.bind(&instance, "frozen-1", None).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    assert_ne!(holder(&stage).await, before);
    frozen.resume();
    let exit = frozen.ended().await.unwrap();
    assert!(!exit.success(), "a process that has lost its lease ends");
    let log = frozen.log();
    assert!(log.contains("the lease"), "{log}");
    prove(made.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(osb.fetch(&instance, "frozen-1").await.unwrap().status, 200);
}

/// An operator behind a relay, for one binding an instance.
async fn relayed(stage: &Stage<'_>, name: &str, conduct: Conduct) -> (Operator, Relay) {
    let control = stage.control();
    let relay = Relay::start(control.url()).await.unwrap();
    relay.set(conduct);
    let path = control.dir().join(format!("{name}.yaml"));
    std::fs::write(&path, relay.through(&control.admin_kubeconfig())).unwrap();
    let args = [&stage.args()[..], &["--max-bindings-per-instance", "1"]].concat();
    let dir = Arc::new(WorkDir::new("failover").unwrap());
    let operator = Operator::launch(&dir, program(), &path, &args).await.unwrap();
    operator.ready().await.unwrap();
    (operator, relay)
}

#[tokio::test]
async fn an_acceptance_that_arrives_after_its_leader_is_gone_breaks_no_limit() {
    let (stage, instance) = stage("belated").await;
    // Slow enough that the write of the status can be kept between the Secret and itself.
    let slow = Conduct::Slow(Duration::from_millis(300));
    let (first, its_way) = relayed(&stage, "belated-first", slow).await;
    stage.apply("belated-0", &instance, None).await.unwrap();
    let secrets = stage.secrets();
    eventually("the Secret", SOON, async || secrets.get("kyma-binding-belated-0").await).await.unwrap();
    its_way.set(Conduct::Keep);
    let kept = async || if its_way.kept() > 0 { Ok(()) } else { Err("nothing is kept") };
    eventually("the status to be under way", SOON, kept).await.unwrap();
    assert!(first.pause().await.unwrap());

    // Many more that are as far, so that the next one hardly begins with the same.
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": [FINALIZER]}}));
    for name in (1..8).map(|number| format!("belated-{number}")) {
        stage.apply(&name, &instance, None).await.unwrap();
        stage.bindings().patch(&name, &PatchParams::default(), &finalizer).await.unwrap();
    }
    let (second, way) = relayed(&stage, "belated-second", slow).await;
    eventually("the second to make one of them", SOON, async || {
        let same = stage.bindings().get("belated-0").await?.is(Kind::Ready);
        let others = (1..8).map(|number| accounts(format!("kyma-binding-belated-{number}")));
        ensure!(same || join_all(others).await.contains(&1), "none");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    its_way.set(Conduct::Open);
    way.set(Conduct::Open);
    eventually("all of them to be decided", SOON, async || {
        check_limit(&stage, 1).await?;
        let bindings = stage.bindings().list(&ListParams::default()).await?.items;
        let open = bindings.iter().filter(|b| !b.is(Kind::Ready) && !b.is(Kind::Stalled)).count();
        ensure!(open == 0, "{open} are open");
        Ok(bindings)
    })
    .await
    .unwrap();
    check_objects(&stage, &[&world().await.managed]).await.unwrap();
    let bindings = stage.bindings().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(bindings.iter().filter(|b| b.is(Kind::Ready)).count(), 1);
    // None of the others was accepted for a moment, and lost then what it had.
    for rejected in bindings.iter().filter(|b| b.is(Kind::Stalled)) {
        assert_eq!(
            rejected.condition(Kind::Accepted).unwrap().reason,
            "LimitReached",
            "{:?}",
            rejected.status
        );
    }
    first.kill().await.unwrap();
    second.terminate().await.unwrap();
}
