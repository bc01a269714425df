//! What the holder of a kubeconfig keeps when its binding has ended: Kubernetes judges a request once, when it begins.

use std::time::Duration;

use e2e::cluster::client_from;
use e2e::eventually;
use e2e::stage::{SOON, prove};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::world::{program, stage, world};

#[tokio::test]
async fn what_was_opened_before_an_unbind_goes_on_and_nothing_new_is_let_in() {
    let (stage, instance) = stage("watches").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bound(&instance, "watches-1").await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    eventually("the kubeconfig to work", SOON, async || prove(kubeconfig).await).await.unwrap();
    let holder = client_from(kubeconfig).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(holder.clone(), "default");
    let seen = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().fields("metadata.name=watches-1").timeout(120);
    let mut watch = maps.watch(&params, &seen).await.unwrap().boxed();

    assert_eq!(osb.unbind(&instance, "watches-1").await.unwrap().status, 200);
    let secrets: Api<Secret> = Api::namespaced(holder, "default");
    let status = async || match secrets.get("proof").await {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(status().await, 403, "while the API server remembers that the token was good");

    let owner: Api<ConfigMap> = Api::namespaced(world().await.managed.client(), "default");
    let later = serde_json::from_value(json!({"metadata": {"name": "watches-1"}, "data": {"made": "later"}}));
    owner.create(&PostParams::default(), &later.unwrap()).await.unwrap();
    match tokio::time::timeout(SOON, watch.try_next()).await.expect("the watch goes on").unwrap() {
        Some(WatchEvent::Added(map)) => assert_eq!(map.name_any(), "watches-1"),
        other => panic!("{other:?}"),
    }
    eventually("the token to be unknown", Duration::from_secs(20), async || match status().await {
        401 => Ok(()),
        status => Err(status.to_string()),
    })
    .await
    .unwrap();
    owner.delete("watches-1", &DeleteParams::default()).await.unwrap();
}
