//! A process that is killed leaves nothing that the next one doesn't finish.

use std::collections::HashSet;
use std::time::Duration;

use e2e::relay::{Conduct, Relay};
use e2e::stage::{SOON, prove, prove_refused};
use e2e::{Stage, eventually};
use futures::future::join_all;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::world::{program, world};

#[tokio::test]
async fn in_the_middle_of_fifty_bindings() {
    let world = world().await;
    let stage = Stage::new(&world.control, "restart").await.unwrap();
    for i in 0..5 {
        let kubeconfig = world.managed.admin_kubeconfig();
        stage.register(&format!("i-restart-{i}"), &format!("r-restart-{i}"), &kubeconfig).await.unwrap();
    }
    // Those of one instance can't be ready before the kill, however late it comes.
    stage.rotate("r-restart-4", None).await.unwrap();
    let names: Vec<_> = (0..50).map(|i| format!("restart-{i}")).collect();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let apply = async |i: usize| stage.apply(&names[i], &format!("i-restart-{}", i % 5), None).await.unwrap();
    let applied = join_all((0..50).map(apply));
    let kill = async {
        eventually("some to be ready, others not", Duration::from_secs(20), async || {
            let ready = ready(&stage).await.len();
            if (1..50).contains(&ready) { Ok(()) } else { Err(format!("{ready} ready")) }
        })
        .await
        .unwrap();
        operator.kill().await.unwrap();
    };
    tokio::join!(applied, kill);
    let before = ready(&stage).await;
    assert!((1..50).contains(&before.len()), "{} were ready", before.len());
    stage.rotate("r-restart-4", Some(&world.managed.admin_kubeconfig())).await.unwrap();

    let operator = stage.operator(program(), &[]).await.unwrap();
    let kubeconfigs = join_all(names.iter().map(|name| stage.ready(name))).await;
    let kubeconfigs: Vec<_> = kubeconfigs.into_iter().map(|k| k.unwrap()).collect();
    assert_eq!(kubeconfigs.iter().collect::<HashSet<_>>().len(), 50);
    for (name, kubeconfig) in names.iter().zip(&kubeconfigs) {
        prove(kubeconfig).await.unwrap();
        assert_eq!(objects(&world.managed, name).await, 3);
    }
    // What was ready before the kill was not made a second time.
    for (name, secret) in before {
        let now = stage.secrets().get(&format!("kyma-binding-{name}")).await.unwrap();
        assert_eq!(now.metadata.uid, Some(secret), "{name}");
    }
    operator.terminate().await.unwrap();
}

/// Names of the bindings that are ready, with the UIDs of their Secrets.
async fn ready(stage: &Stage<'_>) -> Vec<(String, String)> {
    let bindings = stage.bindings().list(&ListParams::default()).await.unwrap();
    let secrets = stage.secrets().list(&ListParams::default()).await.unwrap();
    let is_ready =
        |b: &kyma_bindings::api::binding::KymaBinding| b.is(kyma_bindings::api::conditions::Kind::Ready);
    let ready = bindings.items.into_iter().filter(is_ready);
    ready
        .filter_map(|b| {
            let name = b.metadata.name?;
            let secret =
                secrets.items.iter().find(|s| s.metadata.name == Some(format!("kyma-binding-{name}")))?;
            Some((name, secret.metadata.uid.clone()?))
        })
        .collect()
}

#[tokio::test]
async fn a_failed_revoke_is_finished_by_the_next_process_wherever_the_status_leads() {
    let world = world().await;
    let stage = Stage::new(&world.control, "revoked-later").await.unwrap();
    let relay = Relay::start(world.managed.url()).await.unwrap();
    let kubeconfig = relay.through(&world.managed.admin_kubeconfig());
    stage.register("i-revoked-later", "r-revoked-later", &kubeconfig).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    stage.apply("revoked-later-1", "i-revoked-later", None).await.unwrap();
    let kubeconfig = stage.ready("revoked-later-1").await.unwrap();

    relay.set(Conduct::Refuse);
    stage.bindings().delete("revoked-later-1", &DeleteParams::default()).await.unwrap();
    stage.condition("revoked-later-1", "Ready", "False", "ClusterUnreachable").await.unwrap();
    let secret = stage.secrets().get_opt("kyma-binding-revoked-later-1").await.unwrap();
    assert!(secret.is_some(), "where its access was made stands there");
    operator.kill().await.unwrap();
    let elsewhere = Patch::Merge(json!({"status": {"runtimeId": "elsewhere", "clusterId": "elsewhere"}}));
    stage.bindings().patch_status("revoked-later-1", &PatchParams::default(), &elsewhere).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    relay.set(Conduct::Open);
    stage.gone("revoked-later-1", SOON).await.unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(&world.managed, "revoked-later-1").await, 0);
    operator.terminate().await.unwrap();
}
