//! Trouble of the control plane under load: etcd, watches that expire or are late, overload.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::invariants::check_nothing_left;
use e2e::load::Load;
use e2e::stage::{SOON, install_crd, prove, prove_refused};
use e2e::{Cluster, ClusterOptions, Conduct, Operator, Relay, Rights, Stage, WorkDir, eventually};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::sweep::swept;
use crate::world::{program, world};

const CLIENTS: usize = 4;
const LIMIT: usize = 3;
const USER: &str = "operator";

/// A control plane of the test's own.
async fn control(name: &str) -> Cluster {
    let control = Cluster::start_with(name, ClusterOptions { audit: true }).await.unwrap();
    install_crd(&control).await.unwrap();
    control
}

/// A stage in it with two instances, `i-{name}-0` and `i-{name}-1`.
async fn staged<'a>(control: &'a Cluster, name: &str) -> (Stage<'a>, Vec<String>) {
    let stage = Stage::new(control, name).await.unwrap();
    let mut instances = Vec::new();
    for number in 0..2 {
        let (instance, runtime) = (format!("i-{name}-{number}"), format!("r-{name}-{number}"));
        stage.register(&instance, &runtime, &world().await.managed.admin_kubeconfig()).await.unwrap();
        instances.push(instance);
    }
    (stage, instances)
}

async fn launch(stage: &Stage<'_>, kubeconfig: &Path, args: &[&str]) -> Operator {
    let dir = Arc::new(WorkDir::new("overload").unwrap());
    let args = [&stage.args()[..], &["--max-bindings-per-instance", "3"], args].concat();
    let operator = Operator::launch(&dir, program(), kubeconfig, &args).await.unwrap();
    operator.ready().await.unwrap();
    operator
}

/// Lets clients work while there is trouble, and looks at everything afterwards.
async fn under_load(
    name: &str,
    stage: Stage<'_>,
    instances: Vec<String>,
    operator: &Operator,
    trouble: impl Future<Output = anyhow::Result<()>>,
) {
    let (_publish, brokers) = watch::channel(vec![operator.osb()]);
    let (finish, over) = watch::channel(false);
    let load = Load::new(stage, brokers, over, instances, LIMIT);
    let trouble = async {
        trouble.await?;
        finish.send_replace(true);
        anyhow::Ok(())
    };
    let clients = try_join_all((0..CLIENTS).map(|number| load.client(name, number)));
    let ((), asked) = tokio::try_join!(trouble, clients).unwrap();
    println!("{} bindings asked for: {:?}", asked.iter().sum::<usize>(), load.answers());
    let managed = [&world().await.managed];
    load.witness.check_all(&load.stage, &managed, &operator.osb(), LIMIT).await.unwrap();
    assert!(load.witness.held() > 0, "nobody holds a binding at the end");
    for (instance, binding) in load.witness.held_bindings() {
        load.unbind(&instance, &binding).await.unwrap();
    }
    check_nothing_left(&load.stage, &managed).await.unwrap();
    load.witness.check_secrets("the log of the operator", &operator.log()).unwrap();
}

/// Binds until it works.
async fn binds(operator: &Operator, instance: &str, name: &str) -> String {
    operator.osb().bound(instance, name).await.unwrap().kubeconfig().unwrap().to_owned()
}

#[tokio::test]
async fn etcd_can_be_killed_under_load() {
    let control = control("etcd-killed").await;
    let (stage, instances) = staged(&control, "etcd-killed").await;
    let operator = launch(&stage, control.kubeconfig_path(), &["--create-timeout", "3s"]).await;
    let instance = instances[0].clone();
    let trouble = async {
        for number in 0..2 {
            control.stop_etcd().await?;
            let refused = operator.osb().bind(&instance, &format!("etcd-killed-{number}"), None).await?;
            assert_eq!(refused.status, 503, "{}", refused.description());
            assert!(refused.headers.contains_key("retry-after"));
            control.start_etcd().await?;
            binds(&operator, &instance, &format!("etcd-killed-{number}")).await;
            let gone = operator.osb().unbind(&instance, &format!("etcd-killed-{number}")).await?;
            assert_eq!(gone.status, 200, "{}", gone.description());
        }
        Ok(())
    };
    Box::pin(under_load("etcd", stage, vec![instances[1].clone()], &operator, trouble)).await;
}

#[tokio::test]
async fn an_expired_watch_loses_nothing_and_takes_nothing_for_gone() {
    let control = control("expired").await;
    let (stage, instances) = staged(&control, "expired").await;
    let relay = Relay::start(control.url()).await.unwrap();
    let rights = Rights::new(&stage, USER);
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("relayed.yaml", Some(&relay)).unwrap();
    let sweeping = ["--create-timeout", "3s", "--sweep-interval", "1s"];
    let operator = launch(&stage, &kubeconfig, &sweeping).await;
    let (held, ended) = (
        binds(&operator, &instances[0], "expired-1").await,
        binds(&operator, &instances[0], "expired-2").await,
    );
    let seen = stage.bindings().get("expired-2").await.unwrap().resource_version().unwrap();

    // What happens now is in no watch of the operator: one comes, one goes, and history is forgotten.
    relay.set(Conduct::Refuse);
    stage.apply("expired-3", &instances[1], None).await.unwrap();
    stage.bindings().delete("expired-2", &DeleteParams::default()).await.unwrap();
    stage.secrets().delete("kyma-binding-expired-1", &DeleteParams::default()).await.unwrap();
    control.compact_etcd().await.unwrap();
    control.stop_apiserver().await.unwrap();
    control.start_apiserver().await.unwrap();
    let stage_bindings = stage.bindings();
    let first = eventually("the API server's word about the old version", SOON, async || {
        let events = stage_bindings.watch(&WatchParams::default(), &seen).await?;
        events.boxed().try_next().await
    })
    .await
    .unwrap();
    assert!(matches!(first, Some(WatchEvent::Error(status)) if status.code == 410), "it is not expired");
    relay.set(Conduct::Open);

    let kubeconfig = stage.ready("expired-3").await.unwrap();
    prove(&kubeconfig).await.unwrap();
    stage.gone("expired-2", SOON).await.unwrap();
    prove_refused(&ended).await.unwrap();
    // The Secret that was missing is made again, and nothing that lives is swept.
    swept(&operator).await;
    prove(&held).await.unwrap();
    prove(&stage.ready("expired-1").await.unwrap()).await.unwrap();
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains("kyma_bindings_orphans_removed_total 0"), "{metrics}");
}

#[tokio::test]
async fn with_a_slow_control_plane_binds_are_late_and_right() {
    let control = control("slow").await;
    let (stage, instances) = staged(&control, "slow").await;
    let relay = Relay::start(control.url()).await.unwrap();
    let path = control.dir().join("slow.yaml");
    std::fs::write(&path, relay.through(&control.admin_kubeconfig())).unwrap();
    let operator = launch(&stage, &path, &[]).await;
    let instance = instances[0].clone();
    relay.set(Conduct::Slow(Duration::from_millis(150)));
    let trouble = async {
        for number in 0..3 {
            let name = format!("slow-{number}");
            let began = Instant::now();
            prove(&binds(&operator, &instance, &name).await).await?;
            println!("a bind with a slow control plane took {:?}", began.elapsed());
            assert_eq!(operator.osb().unbind(&instance, &name).await?.status, 200);
        }
        Ok(())
    };
    Box::pin(under_load("slow-load", stage, vec![instances[1].clone()], &operator, trouble)).await;
}

#[tokio::test]
async fn an_overloaded_control_plane_is_not_flooded() {
    let control = control("overloaded").await;
    let (stage, instances) = staged(&control, "overloaded").await;
    let relay = Relay::start(control.url()).await.unwrap();
    let rights = Rights::new(&stage, USER);
    rights.grant().await.unwrap();
    let kubeconfig = rights.kubeconfig("relayed.yaml", Some(&relay)).unwrap();
    let operator = launch(&stage, &kubeconfig, &["--create-timeout", "2s"]).await;
    let (instance, osb) = (&instances[0], operator.osb());
    let kubeconfig = binds(&operator, instance, "overloaded-1").await;

    let overload = rights.overload().await.unwrap();
    let began = Instant::now();
    eventually("a fetch to be refused", SOON, async || {
        let answer = osb.fetch(instance, "overloaded-1").await.unwrap();
        if answer.status == 503 { Ok(()) } else { Err(answer.status) }
    })
    .await
    .unwrap();
    // Watches have to begin anew, too; and there is something to be done for which none can.
    relay.cut();
    stage.apply("overloaded-3", &instances[1], None).await.unwrap();
    for number in 0..3 {
        let answer = osb.bind(instance, &format!("overloaded-more-{number}"), None).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.description());
        assert!(answer.headers.contains_key("retry-after"));
        let answer = osb.unbind(instance, "overloaded-1").await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.description());
    }
    // All begin anew at once, so a rate is that of some seconds.
    let measured = Duration::from_secs(5);
    eventually("tries to go on in spite of the refusals", Duration::from_mins(2), async || {
        let refused = refused(&control);
        if refused >= 20 && began.elapsed() >= measured { Ok(()) } else { Err(format!("{refused} refusals")) }
    })
    .await
    .unwrap();
    let seconds = began.elapsed().as_secs() + 1;
    let refused = refused(&control);
    println!("{refused} requests were refused in {seconds} s");
    assert!(refused <= seconds * 10, "{refused} requests in {seconds} s");
    prove(&kubeconfig).await.unwrap();

    rights.relieve(overload).await.unwrap();
    prove(&binds(&operator, instance, "overloaded-2").await).await.unwrap();
    prove(&stage.ready("overloaded-3").await.unwrap()).await.unwrap();
    eventually("the unbind to succeed", SOON, async || {
        let answer = osb.unbind(instance, "overloaded-1").await.unwrap();
        if matches!(answer.status, 200 | 410) { Ok(()) } else { Err(answer.status) }
    })
    .await
    .unwrap();
    prove_refused(&kubeconfig).await.unwrap();
}

/// How many requests of the operator were answered with 429; those that make the overload are not its own.
fn refused(control: &Cluster) -> u64 {
    let log = std::fs::read_to_string(control.audit_log_path().unwrap()).unwrap();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused = events
        .filter(|e| e["user"]["username"] == USER && e["responseStatus"]["code"] == 429)
        .filter(|e| (&e["verb"], &e["objectRef"]["resource"]) != (&json!("create"), &json!("secrets")));
    u64::try_from(refused.count()).unwrap()
}
