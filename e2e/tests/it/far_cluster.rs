//! A cluster that is far away, and well.

use std::time::Duration;

use e2e::bench::delay::DelayLine;
use e2e::stage::SOON;
use e2e::{Stage, eventually};
use futures::future::join_all;
use kube::api::{DeleteParams, ListParams};
use kyma_bindings::api::conditions::Phase;

use crate::world::{program, world};

/// So many that the calls of all take longer than one may: three each, 16 at once, 0.4 s a call.
const MANY: usize = 180;

#[tokio::test]
async fn many_that_wait_for_their_turn_at_a_far_cluster_do_not_take_it_for_a_silent_one() {
    let world = world().await;
    let stage = Stage::new(&world.control, "far").await.unwrap();
    let far = DelayLine::start(world.managed.url(), Duration::from_millis(200)).await.unwrap();
    let kubeconfig = far.through(&world.managed.admin_kubeconfig());
    stage.register("i-far", "r-far", &kubeconfig).await.unwrap();
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "1000"]).await.unwrap();

    let name = |i: usize| format!("far-{i}");
    for some in (0..MANY).collect::<Vec<_>>().chunks(50) {
        join_all(some.iter().map(async |i| stage.apply(&name(*i), "i-far", None).await.unwrap())).await;
    }
    eventually("all to be ready", SOON * 6, async || {
        let bindings = stage.bindings().list(&ListParams::default()).await.unwrap().items;
        let ready =
            bindings.iter().filter(|b| b.status.as_ref().is_some_and(|s| s.phase == Some(Phase::Ready)));
        match ready.count() {
            MANY => Ok(()),
            n => Err(n),
        }
    })
    .await
    .unwrap();
    stage.bindings().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    eventually("all to be gone", SOON * 6, async || {
        match stage.bindings().list(&ListParams::default()).await.unwrap().items.len() {
            0 => Ok(()),
            n => Err(n),
        }
    })
    .await
    .unwrap();

    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(metrics.contains(r#"kyma_bindings_managed_cluster_requests_total{verb="delete",result="2xx"}"#));
    let silent: Vec<_> = metrics.lines().filter(|line| line.contains(r#"result="timeout""#)).collect();
    assert!(silent.iter().all(|line| line.ends_with(" 0")), "{silent:?}");
}
