//! What the API server refuses, and in which words.

use kube::api::{Api, Patch, PatchParams, PostParams};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::crd::custom_resource_definition;
use serde_json::{Value, json};

use e2e::stage::SOON;
use e2e::{Stage, eventually};

use crate::world::{program, stage, world};

fn binding(name: &str, spec: &Value) -> KymaBinding {
    serde_json::from_value(json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

async fn refusal(bindings: &Api<KymaBinding>, name: &str, spec: Value) -> String {
    match bindings.create(&PostParams::default(), &binding(name, &spec)).await {
        Err(kube::Error::Api(status)) if status.code == 422 => status.message,
        other => panic!("{name} {spec}: {other:?}"),
    }
}

#[tokio::test]
async fn what_must_be_refused_is_refused_with_its_message() {
    let stage = Stage::new(&world().await.control, "crd").await.unwrap();
    let bindings = stage.bindings();
    for (spec, message) in [
        (
            json!({"instanceId": "i", "expirationSeconds": 599}),
            "expirationSeconds must be between 600 and 7200",
        ),
        (
            json!({"instanceId": "i", "expirationSeconds": 7201}),
            "expirationSeconds must be between 600 and 7200",
        ),
        (json!({"instanceId": ""}), "instanceId must be a label value"),
        (json!({"instanceId": "a b"}), "instanceId must be a label value"),
        (json!({"instanceId": "-a"}), "instanceId must be a label value"),
        (json!({"instanceId": "x".repeat(64)}), "63"),
        (json!({"instanceId": "i", "createdBy": "x".repeat(257)}), "256"),
    ] {
        let refused = refusal(&bindings, "refused", spec).await;
        assert!(refused.contains(message), "{message} is not in: {refused}");
    }
    let long = refusal(&bindings, &"x".repeat(241), json!({"instanceId": "i"})).await;
    assert!(long.contains("the name must be at most 240 characters long"), "{long}");
    bindings
        .create(&PostParams::default(), &binding(&"x".repeat(240), &json!({"instanceId": "i"})))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_spec_is_immutable_and_has_its_default() {
    let stage = Stage::new(&world().await.control, "crd-immutable").await.unwrap();
    let bindings = stage.bindings();
    let made = stage.apply("immutable", "i", None).await.unwrap();
    assert_eq!(made.spec.expiration_seconds, 600);
    let change = Patch::Merge(json!({"spec": {"expirationSeconds": 700}}));
    match bindings.patch("immutable", &PatchParams::default(), &change).await {
        Err(kube::Error::Api(status)) => assert!(
            status.message.contains("spec is immutable: delete the KymaBinding and create another"),
            "{}",
            status.message
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bindings_can_be_selected_by_instance_and_explain_themselves() {
    let world = world().await;
    let stage = Stage::new(&world.control, "crd-select").await.unwrap();
    stage.apply("one", "i-1", None).await.unwrap();
    stage.apply("two", "i-2", None).await.unwrap();
    let select =
        ["-n", &stage.namespace, "get", "kb", "--field-selector", "spec.instanceId=i-2", "-o", "name"];
    let selected = world.control.kubectl(&select).await.unwrap();
    assert_eq!(selected.trim(), "kymabinding.bindings.kyma-project.io/two");
    // What is published of a kind follows it a moment later.
    let explained = eventually("the kind to be explained", SOON, async || {
        world.control.kubectl(&["explain", "kb", "--recursive"]).await
    });
    assert!(explained.await.unwrap().contains("expirationSeconds"));
    let crd = serde_json::to_value(custom_resource_definition()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut fields = vec!["kb".to_owned()];
    paths("kb", schema, &mut fields);
    assert!(fields.len() > 15 && fields.contains(&"kb.status.conditions.reason".to_owned()), "{fields:?}");
    for field in fields {
        let explained = world.control.kubectl(&["explain", &field]).await.unwrap();
        let empty = explained.contains("<none>") || explained.contains("<empty>");
        assert!(!empty && explained.contains("DESCRIPTION"), "{field}: {explained}");
    }
}

/// The paths of all fields of ours, as `kubectl explain` takes them.
fn paths(path: &str, schema: &Value, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if path == "kb" && !["spec", "status"].contains(&name.as_str()) {
            continue;
        }
        let path = format!("{path}.{name}");
        paths(&path, field, found);
        paths(&path, &field["items"], found);
        found.push(path);
    }
}

#[tokio::test]
async fn at_a_glance_a_binding_shows_state_instance_and_end() {
    let (stage, instance) = stage("glance").await;
    let _operator = stage.operator(program(), &[]).await.unwrap();
    stage.apply("glance-1", &instance, None).await.unwrap();
    stage.ready("glance-1").await.unwrap();
    let get = async |args: &[&str]| {
        let args = [&["-n", &stage.namespace, "get"][..], args].concat();
        let table = stage.control().kubectl(&args).await.unwrap();
        table
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect::<Vec<Vec<_>>>()
    };
    let table = get(&["kb"]).await;
    assert_eq!(table[0], ["NAME", "READY", "INSTANCE", "PHASE", "EXPIRES", "AGE"]);
    assert_eq!(table[1][..4], ["glance-1", "True", "i-glance", "Ready"]);
    let expires = &table[1][4];
    assert!(expires.starts_with("20") && expires.ends_with('Z') && expires.contains('T'), "{expires}");
    let wide = get(&["kymabindings", "-o", "wide"]).await;
    assert_eq!(wide[0][6..], ["MESSAGE", "SECRET", "CREATED", "BY"]);
    // By the category, among other things of Kyma.
    assert_eq!(get(&["kyma"]).await[1][0], "glance-1");
}
