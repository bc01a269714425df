//! Clusters that are dead in every way, beside one that is well.

use std::time::{Duration, Instant};

use e2e::fake::{Death, Fake};
use e2e::liar::{Asked, Liar, Reply, Truth};
use e2e::stage::{SOON, prepare_managed, prove};
use e2e::{Cluster, Osb, Stage, eventually};
use futures::future::join_all;
use kube::api::ListParams;
use kyma_bindings::api::conditions::Kind;

use crate::events::told;
use crate::world::{program, stage, world};

const DEATHS: [(Death, &str); 9] = [
    (Death::Refused, "ClusterUnreachable"),
    (Death::BlackHole, "ClusterTimedOut"),
    (Death::Garbage, "ClusterUnreachable"),
    (Death::Status(401), "ClusterUnauthorized"),
    (Death::Status(403), "ClusterForbidden"),
    (Death::Status(500), "ClusterUnavailable"),
    (Death::Status(429), "ClusterRateLimited"),
    (Death::Status(302), "ClusterMisbehaves"),
    (Death::Slow(Duration::from_secs(30)), "ClusterTimedOut"),
];

/// Median time of a bind on the healthy instance.
async fn bind_p50(osb: &Osb, instance: &str, prefix: &str) -> Duration {
    let mut times = Vec::new();
    for i in 0..30 {
        let name = format!("{prefix}-{i}");
        let began = Instant::now();
        let made = osb.bind(instance, &name, None).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(made.status, 201, "{}", made.description());
        assert_eq!(osb.unbind(instance, &name).await.unwrap().status, 200);
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_hundred_dead_clusters_cost_only_themselves_and_each_has_its_cause() {
    let (stage, instance) = stage("hundred").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let alone = bind_p50(&osb, &instance, "hundred-alone").await;

    let mut fakes = Vec::new();
    for i in 0..100 {
        let fake = Fake::start(DEATHS[i % DEATHS.len()].0).await.unwrap();
        stage
            .register(&format!("i-hundred-{i}"), &format!("r-hundred-{i}"), fake.kubeconfig())
            .await
            .unwrap();
        fakes.push(fake);
    }
    let apply = |i: usize| {
        let stage = &stage;
        async move { stage.apply(&format!("hundred-{i}"), &format!("i-hundred-{i}"), None).await.unwrap() }
    };
    join_all((0..100).map(apply)).await;
    let beside = bind_p50(&osb, &instance, "hundred-beside").await;
    println!("healthy bind p50 alone {alone:?}, beside 100 dead clusters {beside:?}");

    eventually("every dead cluster's binding to name its cause", SOON * 2, async || {
        let bindings = stage.bindings().list(&ListParams::default()).await.unwrap().items;
        let wrong: Vec<_> = (0..100)
            .filter_map(|i| {
                let name = Some(format!("hundred-{i}"));
                let binding = bindings.iter().find(|b| b.metadata.name == name)?;
                let ready = binding.condition(Kind::Ready)?;
                let fits = ready.status == "False" && ready.reason == DEATHS[i % DEATHS.len()].1;
                assert!(!ready.message.contains("stranger"), "{}", ready.message);
                (!fits)
                    .then(|| format!("{:?}: {} {}", DEATHS[i % DEATHS.len()].0, ready.reason, ready.message))
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{} are wrong: {}", wrong.len(), wrong[0])) }
    })
    .await
    .unwrap();
    for (i, (_, reason)) in DEATHS.iter().enumerate() {
        told(&stage, &format!("hundred-{i}"), "Warning", reason).await;
    }
}

#[tokio::test]
async fn a_cluster_that_was_dead_for_long_is_noticed_within_seconds() {
    let stage = Stage::new(&world().await.control, "back").await.unwrap();
    let dead = Cluster::start("back").await.unwrap();
    prepare_managed(&dead).await.unwrap();
    stage.register("i-back", "r-back", &dead.admin_kubeconfig()).await.unwrap();
    dead.stop_apiserver().await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    stage.apply("back-1", "i-back", None).await.unwrap();
    // The binding's own next try is then at least twelve seconds away.
    eventually("the waits to have grown", SOON * 2, async || {
        let waits = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["wait_s"].as_f64();
        let longest = operator.log().lines().filter_map(waits).fold(0.0, f64::max);
        if longest >= 12.0 { Ok(()) } else { Err(format!("{longest:?}")) }
    })
    .await
    .unwrap();
    dead.start_apiserver().await.unwrap();
    let up = Instant::now();
    let kubeconfig = stage.ready("back-1").await.unwrap();
    println!("recovered {:?} after the API server was up", up.elapsed());
    assert_eq!(prove(&kubeconfig).await.unwrap(), "back");
    assert!(operator.log().contains("the managed cluster answers again"));
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    for series in [
        r#"kyma_bindings_managed_cluster_requests_total{verb="get",result="unreachable"} "#,
        r#"kyma_bindings_managed_cluster_client_lookups_total{result="error"} "#,
        r#"kyma_bindings_binds_total{result="retried"} "#,
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

/// Answers that it is there, and fails all else.
fn half_well(asked: &Asked, truth: Truth) -> Reply {
    if asked.path.ends_with("/namespaces/kube-system") { truth.into() } else { Reply::new(503, "") }
}

#[tokio::test]
async fn a_cluster_that_is_half_well_delays_no_other() {
    let stage = Stage::new(&world().await.control, "half-well").await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let half = Liar::start(half_well).await.unwrap();
    stage.register("i-half", "r-half", half.kubeconfig()).await.unwrap();
    stage.apply("half-1", "i-half", None).await.unwrap();
    let count = |instance: &str, word: &str| {
        let of_it = |line: &&str| line.contains(word) && line.contains(instance);
        operator.log().lines().filter(of_it).count()
    };
    // Asked after 2, 6, 14, 30 and 62 s: the next question is a minute away.
    eventually("it to be asked seldom", SOON * 5, async || match count("i-half", "answers again") {
        n if n >= 5 => Ok(()),
        n => Err(n),
    })
    .await
    .unwrap();
    let dead = Liar::start(|_, _| Reply::new(503, "")).await.unwrap();
    stage.register("i-half-dead", "r-half-dead", dead.kubeconfig()).await.unwrap();
    stage.apply("half-dead", "i-half-dead", None).await.unwrap();
    // Then its binding's own next try is at least six seconds away.
    eventually("the waits of its binding to have grown", SOON * 2, async || {
        let n = count("half-dead", "trying again");
        if n >= 4 { Ok(()) } else { Err(n) }
    })
    .await
    .unwrap();
    dead.repent();
    let up = Instant::now();
    stage.ready("half-dead").await.unwrap();
    println!("recovered after {:?}", up.elapsed());
    assert_eq!(count("i-half-dead", "answers again"), 1, "it was asked, and not come upon");
    assert!(up.elapsed() < Duration::from_secs(6), "{:?}", up.elapsed());
}
