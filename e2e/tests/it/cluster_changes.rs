//! Instances that change: rotated, emptied, claimed twice, terminating, replaced, unreachable.

use std::time::{Duration, Instant};

use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Cluster, Stage, eventually};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::events::told;
use crate::lifecycle::objects;
use crate::world::{control_with_runtimes, program, stage, world};

#[tokio::test]
async fn a_rotated_kubeconfig_is_taken_up() {
    let (stage, instance) = stage("rotated").await;
    let managed = &world().await.managed;
    // A token that dies with its account: the operator's next call is answered with 401.
    let token = admin_token(managed, "rotated-admin").await;
    stage.rotate("r-rotated", Some(&managed.token_kubeconfig(&token))).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let first = osb.bind(&instance, "rotated-1", None).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.description());

    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    accounts.delete("rotated-admin", &DeleteParams::default()).await.unwrap();
    let old = e2e::cluster::client_from(&managed.token_kubeconfig(&token)).await.unwrap();
    eventually("the old credentials to be refused", SOON, async || match old.apiserver_version().await {
        Err(kube::Error::Api(status)) if status.code == 401 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    stage.rotate("r-rotated", Some(&managed.admin_kubeconfig())).await.unwrap();
    assert_eq!(osb.bind(&instance, "rotated-2", None).await.unwrap().status, 201);
    assert_eq!(osb.unbind(&instance, "rotated-1").await.unwrap().status, 200);
    prove_refused(first.kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn two_secrets_that_claim_an_instance_are_refused_by_name() {
    let (stage, instance) = stage("claimed").await;
    stage.register(&instance, "r-rival", &world().await.managed.admin_kubeconfig()).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let refused = operator.osb().bind(&instance, "claimed-1", None).await.unwrap();
    assert_eq!(refused.status, 503);
    for name in ["Secret kubeconfig-r-claimed", "Secret kubeconfig-r-rival"] {
        assert!(refused.description().contains(name), "{}", refused.description());
    }
    stage.instance_secrets().delete("kubeconfig-r-rival", &DeleteParams::default()).await.unwrap();
    eventually("the instance to be clear again", SOON, async || {
        let answer = operator.osb().bind(&instance, "claimed-2", None).await.unwrap();
        if answer.status == 201 { Ok(()) } else { Err(answer.description().to_owned()) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_kubeconfig_that_would_run_a_program_is_refused_without_being_quoted() {
    let (stage, instance) = stage("exec").await;
    let exec =
        world().await.managed.token_kubeconfig("x").replace("token: \"x\"", "exec: {command: evil-program}");
    stage.rotate("r-exec", Some(&exec)).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let refused = operator.osb().bind(&instance, "exec-1", None).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(
        refused.description().contains("it uses exec, which is not supported"),
        "{}",
        refused.description()
    );
    assert!(!refused.description().contains("evil-program"));
    // Nothing was made in the cluster, so nothing has to be removed there first.
    stage.gone("exec-1", Duration::from_secs(2)).await.unwrap();
}

#[tokio::test]
async fn a_dead_cluster_costs_only_itself_and_comes_back() {
    let (stage, instance) = stage("dead").await;
    let dead = Cluster::start("dead").await.unwrap();
    e2e::stage::prepare_managed(&dead).await.unwrap();
    stage.register("i-dead-2", "r-dead-2", &dead.admin_kubeconfig()).await.unwrap();
    let operator = stage.operator(program(), &["--create-timeout", "1s"]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bound("i-dead-2", "dead-made").await.unwrap();
    assert!(matches!(made.status, 200 | 201));

    dead.stop_apiserver().await.unwrap();
    let refused = osb.bind("i-dead-2", "dead-1", None).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(
        refused.description().contains("the managed cluster is unreachable"),
        "{}",
        refused.description()
    );
    let kept = osb.unbind("i-dead-2", "dead-made").await.unwrap();
    assert_eq!(kept.status, 503, "not gone while its access can't be removed");
    let other = osb.bound(&instance, "dead-other").await.unwrap();
    assert!(matches!(other.status, 200 | 201), "others are not touched");
    stage.condition("dead-1", "Ready", "False", "ClusterUnreachable").await.unwrap();

    dead.start_apiserver().await.unwrap();
    prove(&stage.ready("dead-1").await.unwrap()).await.unwrap();
    stage.gone("dead-made", SOON).await.unwrap();
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(objects(&dead, "dead-made").await, 0);
}

#[tokio::test]
async fn a_person_can_say_to_forget_a_cluster() {
    let (stage, instance) = stage("forget").await;
    let operator = stage.operator(program(), &["--create-timeout", "1s"]).await.unwrap();
    let osb = operator.osb();
    osb.bound(&instance, "forget-1").await.unwrap().kubeconfig().unwrap();
    let unreachable = "apiVersion: v1\nkind: Config\n";
    stage.rotate("r-forget", Some(unreachable)).await.unwrap();
    assert_eq!(osb.unbind(&instance, "forget-1").await.unwrap().status, 503);
    stage.condition("forget-1", "Ready", "False", "KubeconfigRefused").await.unwrap();
    let forget = json!({"metadata": {"annotations": {"bindings.kyma-project.io/forget": "true"}}});
    stage.bindings().patch("forget-1", &PatchParams::default(), &Patch::Merge(&forget)).await.unwrap();
    stage.gone("forget-1", SOON).await.unwrap();
    told(&stage, "forget-1", "Warning", "Abandoned").await;
}

/// A stage in the control plane that has Runtimes.
async fn kcp(name: &str) -> Stage<'static> {
    Stage::new(control_with_runtimes().await, name).await.unwrap()
}

#[tokio::test]
async fn a_runtime_says_in_what_state_the_instance_is() {
    let stage = kcp("states").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let bind = async |binding: &str| osb.bind("i-states", binding, None).await.unwrap();

    let unknown = bind("states-1").await;
    assert_eq!((unknown.status, unknown.description()), (404, "instance does not exist"));
    stage.gone("states-1", Duration::from_secs(2)).await.unwrap();

    let expect = async |status: u16, word: &str| {
        eventually(&format!("{status} {word}"), SOON, async || {
            let answer = bind("states-2").await;
            let fits = answer.status == status && answer.description().contains(word);
            if fits { Ok(()) } else { Err(format!("{} {}", answer.status, answer.description())) }
        })
        .await
        .unwrap();
    };
    stage.runtime("i-states", "r-states", json!({"state": "Pending"})).await.unwrap();
    expect(400, "creation is in progress").await;
    stage.runtime("i-states", "r-states", json!({"state": "Failed"})).await.unwrap();
    expect(400, "creation failed").await;
    stage.register("i-states", "r-states", &managed.admin_kubeconfig()).await.unwrap();
    stage
        .runtime("i-states", "r-states", json!({"state": "Ready", "provisioningCompleted": true}))
        .await
        .unwrap();
    expect(201, "").await;
    // A failed update is no failed instance.
    stage
        .runtime("i-states", "r-states", json!({"state": "Failed", "provisioningCompleted": true}))
        .await
        .unwrap();
    assert_eq!(bind("states-3").await.status, 201);

    stage
        .runtime("i-states", "r-states", json!({"state": "Terminating", "provisioningCompleted": true}))
        .await
        .unwrap();
    expect_suspended(&stage, "states-3").await;
    assert_eq!(bind("states-4").await.status, 404);
    assert_eq!(osb.fetch("i-states", "states-3").await.unwrap().status, 404);
    assert_eq!(osb.unbind("i-states", "states-3").await.unwrap().status, 200);
    assert_eq!(objects(managed, "states-3").await, 0, "revoked while the kubeconfig is still there");
    // At deletion the Secret goes first; then nobody can revoke.
    stage.instance_secrets().delete("kubeconfig-r-states", &DeleteParams::default()).await.unwrap();
    eventually("the unbind to succeed", SOON, async || {
        let answer = osb.unbind("i-states", "states-2").await.unwrap();
        if answer.status == 200 { Ok(()) } else { Err(answer.description().to_owned()) }
    })
    .await
    .unwrap();
}

async fn expect_suspended(stage: &Stage<'_>, binding: &str) {
    stage.condition(binding, "Ready", "False", "InstanceSuspended").await.unwrap();
}

#[tokio::test]
async fn a_returned_instance_does_not_inherit_its_old_bindings() {
    let stage = kcp("returned").await;
    let (old, new) = (&world().await.managed, control_with_runtimes().await);
    let ready = json!({"state": "Ready", "provisioningCompleted": true});
    stage.runtime("i-returned", "r-old", ready.clone()).await.unwrap();
    stage.register("i-returned", "r-old", &old.admin_kubeconfig()).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bind("i-returned", "returned-1", None).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    assert_eq!(prove(made.kubeconfig().unwrap()).await.unwrap(), "managed");

    // Suspension is deletion; the return is another runtime under the same instance id.
    let going = json!({"state": "Terminating", "provisioningCompleted": true});
    stage.runtime("i-returned", "r-old", going).await.unwrap();
    expect_suspended(&stage, "returned-1").await;
    stage.instance_secrets().delete("kubeconfig-r-old", &DeleteParams::default()).await.unwrap();
    stage.register("i-returned", "r-new", &new.admin_kubeconfig()).await.unwrap();
    stage.runtime("i-returned", "r-new", ready).await.unwrap();
    stage.gone("returned-1", SOON).await.unwrap();
    assert_eq!(objects(new, "returned-1").await, 0, "the new cluster never heard of it");

    let again = osb.bind("i-returned", "returned-1", None).await.unwrap();
    assert_eq!(again.status, 201, "{}", again.description());
    assert_eq!(prove(again.kubeconfig().unwrap()).await.unwrap(), "kcp");
    assert_eq!(osb.unbind("i-returned", "returned-1").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_suspended_instance_keeps_its_bindings_hidden_until_it_is_back() {
    let (stage, instance) = stage("suspended").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bind(&instance, "suspended-1", None).await.unwrap();
    let annotate = async |value: serde_json::Value| {
        let patch = json!({"metadata": {"annotations": {"bindings.kyma-project.io/suspended": value}}});
        let secrets = stage.instance_secrets();
        secrets
            .patch("kubeconfig-r-suspended", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    };
    annotate(json!("true")).await;
    expect_suspended(&stage, "suspended-1").await;
    assert_eq!(osb.fetch(&instance, "suspended-1").await.unwrap().status, 404);
    assert_eq!(osb.bind(&instance, "suspended-1", None).await.unwrap().status, 404);
    annotate(json!(null)).await;
    stage.condition("suspended-1", "Ready", "True", "Issued").await.unwrap();
    let back = osb.fetch(&instance, "suspended-1").await.unwrap();
    assert_eq!(back.kubeconfig().unwrap(), made.kubeconfig().unwrap());
    // What suspension hid can still be removed, and is revoked.
    annotate(json!("true")).await;
    assert_eq!(osb.unbind(&instance, "suspended-1").await.unwrap().status, 200);
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_vanished_instance_takes_its_bindings_along() {
    let (stage, instance) = stage("vanished").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    assert_eq!(operator.osb().bind(&instance, "vanished-1", None).await.unwrap().status, 201);
    stage.instance_secrets().delete("kubeconfig-r-vanished", &DeleteParams::default()).await.unwrap();
    stage.gone("vanished-1", SOON).await.unwrap();
    assert_eq!(operator.osb().unbind(&instance, "vanished-1").await.unwrap().status, 410);
    assert_eq!(operator.osb().bind(&instance, "vanished-2", None).await.unwrap().status, 404);
}

#[tokio::test]
async fn an_instance_that_comes_back_at_once_was_never_away() {
    let (stage, instance) = stage("blink").await;
    let managed = &world().await.managed;
    let operator = stage.operator(program(), &["--sweep-interval", "24h"]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bind(&instance, "blink-1", None).await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    let delete = async || {
        stage.instance_secrets().delete("kubeconfig-r-blink", &DeleteParams::default()).await.unwrap();
    };
    for round in 0..3 {
        delete().await;
        let deleted = Instant::now();
        let name = format!("blink-new-{round}");
        let refused = eventually("a bind to be put off", SOON, async || {
            let answer = osb.bind(&instance, &name, None).await.unwrap();
            assert_ne!(answer.status, 404, "{}", answer.description());
            if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
        })
        .await
        .unwrap();
        assert!(refused.headers.contains_key("retry-after"));
        assert!(refused.description().contains("it may come back"), "{}", refused.description());
        assert_eq!(osb.fetch(&instance, "blink-1").await.unwrap().kubeconfig().unwrap(), kubeconfig);
        assert_eq!(osb.bind(&instance, "blink-1", None).await.unwrap().status, 200);
        assert!(deleted.elapsed() < Duration::from_secs(9), "within its grace");
        stage.register(&instance, "r-blink", &managed.admin_kubeconfig()).await.unwrap();
        prove(osb.bound(&instance, &name).await.unwrap().kubeconfig().unwrap()).await.unwrap();
        assert_eq!(osb.fetch(&instance, "blink-1").await.unwrap().status, 200);
    }
    prove(kubeconfig).await.unwrap();

    // For longer, nobody can revoke there, and that is said.
    delete().await;
    stage.gone("blink-1", SOON).await.unwrap();
    assert_eq!(osb.bind(&instance, "blink-late", None).await.unwrap().status, 404);
    prove(kubeconfig).await.unwrap();
    let note = told(&stage, "blink-1", "Warning", "Abandoned").await.note.unwrap();
    assert!(note.contains("no Secret and no Runtime describe the instance"), "{note}");
    let ends: Timestamp = made.body["metadata"]["expires_at"].as_str().unwrap().parse().unwrap();
    let said = note.split_once("alive until ").unwrap().1.split(',').next().unwrap();
    let late = said.parse::<Timestamp>().unwrap().duration_since(ends).as_secs();
    assert!((0..=2).contains(&late), "{note}, and not {ends}");
    // When it is back, what was given up there is removed, without waiting for its turn to be swept.
    stage.register(&instance, "r-blink", &managed.admin_kubeconfig()).await.unwrap();
    eventually("the kubeconfig to be refused", Duration::from_secs(5), async || {
        prove_refused(kubeconfig).await
    })
    .await
    .unwrap();
    for name in ["blink-1", "blink-new-0", "blink-new-2"] {
        eventually("its objects to be gone", SOON, async || match objects(managed, name).await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_suspended_instance_without_its_kubeconfig_is_no_deleted_one() {
    let stage = kcp("dormant").await;
    let managed = &world().await.managed;
    let ready = json!({"state": "Ready", "provisioningCompleted": true});
    stage.runtime("i-dormant", "r-dormant", ready).await.unwrap();
    stage.register("i-dormant", "r-dormant", &managed.admin_kubeconfig()).await.unwrap();
    let operator = stage.operator(program(), &["--create-timeout", "1s"]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bound("i-dormant", "dormant-1").await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    let suspend = json!({"metadata": {"annotations": {"bindings.kyma-project.io/suspended": "true"}}});
    stage.runtimes().patch("r-dormant", &PatchParams::default(), &Patch::Merge(&suspend)).await.unwrap();
    expect_suspended(&stage, "dormant-1").await;
    stage.instance_secrets().delete("kubeconfig-r-dormant", &DeleteParams::default()).await.unwrap();
    let kept = eventually("the unbind to be put off", SOON, async || {
        let answer = osb.unbind("i-dormant", "dormant-1").await.unwrap();
        if answer.description().contains("has no Secret with a kubeconfig") {
            Ok(answer.status)
        } else {
            Err(answer.description().to_owned())
        }
    })
    .await
    .unwrap();
    assert_eq!(kept, 503, "its token is alive");
    stage.register("i-dormant", "r-dormant", &managed.admin_kubeconfig()).await.unwrap();
    stage.gone("dormant-1", SOON).await.unwrap();
    prove_refused(kubeconfig).await.unwrap();
    assert_eq!(objects(managed, "dormant-1").await, 0);
}

#[tokio::test]
async fn only_bindable_plans_are_bound() {
    let (stage, instance) = stage("plan").await;
    let operator = stage.operator(program(), &["--bindable-plans", "azure,gcp"]).await.unwrap();
    let refused = operator.osb().bind(&instance, "plan-1", None).await.unwrap();
    assert_eq!((refused.status, refused.body["error"].as_str()), (422, Some("BindingNotSupported")));
    assert_eq!(refused.description(), "binding is not supported for plan 'aws'; bindable plans: azure, gcp");
    stage.gone("plan-1", Duration::from_secs(2)).await.unwrap();
    operator.terminate().await.unwrap();
    let operator = stage.operator(program(), &["--bindable-plans", "GCP,AWS"]).await.unwrap();
    assert_eq!(operator.osb().bind(&instance, "plan-2", None).await.unwrap().status, 201);
}

/// A token with an admin's rights, for an account that can be deleted.
async fn admin_token(cluster: &Cluster, account: &str) -> String {
    let client = cluster.client();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), MANAGED_NAMESPACE);
    let object = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
    accounts.create(&PostParams::default(), &object).await.unwrap();
    let binding = json!({
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": MANAGED_NAMESPACE}],
    });
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let request = serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}})).unwrap();
    let token = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    serde_json::to_value(token).unwrap()["status"]["token"].as_str().unwrap().to_owned()
}
