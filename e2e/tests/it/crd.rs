//! What the API server refuses, and in which words.

use anyhow::anyhow;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::crd::custom_resource_definition;
use kyma_bindings::api::text;
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

const INFORMING: [&str; 3] = ["createdBy", "planId", "serviceId"];

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

#[tokio::test]
async fn text_that_a_terminal_would_obey_is_refused_by_its_field() {
    let stage = Stage::new(&world().await.control, "crd-text").await.unwrap();
    let bindings = stage.bindings();
    let with = |field: &str, text: &str| binding("text", &json!({"instanceId": "i", field: text}));
    for field in INFORMING {
        let odd =
            ['\0', '\t', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{ad}', '\u{61c}', '\u{feff}', '\u{e0041}'];
        let directions =
            ('\u{200b}'..='\u{200f}').chain('\u{2028}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        for c in odd.into_iter().chain(directions) {
            let refused =
                refusal(&bindings, "text", json!({"instanceId": "i", field: format!("a{c}b")})).await;
            assert!(
                refused.contains(&format!("{field} must have no control characters")),
                "{c:?}: {refused}"
            );
        }
        let null = binding("text", &json!({"instanceId": "i", field: null}));
        bindings.create(&dry_run(), &null).await.unwrap();
    }
    // What requests by HTTP leave in is taken: nothing that the server refuses is passed on to it.
    let blocks = [0..0x3400_u32, 0xa000..0xb000, 0xf000..0x1_1100, 0x1_3400..0x1_3500, 0x1_bc00..0x1_bd00];
    let more = [0x1_d100..0x1_d200, 0x1_f000..0x1_f100, 0xe_0000..0xe_0200];
    let all = blocks.into_iter().chain(more).flatten().filter_map(char::from_u32);
    let plain: Vec<char> = all.filter(|c| !text::is_unseen(*c)).collect();
    assert!(plain.len() > 20_000);
    for part in plain.chunks(256) {
        let taken = bindings.create(&dry_run(), &with("createdBy", &part.iter().collect::<String>())).await;
        assert!(taken.is_ok(), "{:?} to {:?}: {taken:?}", part.first(), part.last());
    }
    for odd in ["A", "a b", "a\n", "-a", "a..b", "\u{202e}a"] {
        let spec = json!({"instanceId": "i", "predecessorBindingId": odd});
        let refused = refusal(&bindings, "text", spec).await;
        assert!(
            refused.contains("predecessorBindingId must be the name of a KymaBinding"),
            "{odd:?}: {refused}"
        );
    }
    for name in ["", "a", "a-1.b"] {
        bindings.create(&dry_run(), &with("predecessorBindingId", name)).await.unwrap();
    }
}

/// Bindings that are there when the rules come must still be brought to their end.
#[tokio::test]
async fn what_was_stored_before_a_rule_can_still_be_changed_around_it() {
    let stage = Stage::new(&world().await.control, "crd-before").await.unwrap();
    let client = stage.control().client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    // The same kind in a group of its own: other tests have bindings meanwhile.
    let mut with_rules = custom_resource_definition();
    let group = "before.example.com";
    with_rules.metadata.name = Some(format!("kymabindings.{group}"));
    with_rules.spec.group = group.to_owned();
    (with_rules.spec.names.short_names, with_rules.spec.names.categories) = (None, None);
    let mut without = serde_json::to_value(&with_rules).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for field in INFORMING {
        let rules = without.pointer_mut(&format!("{spec}/{field}")).unwrap().as_object_mut().unwrap();
        assert!(rules.remove("x-kubernetes-validations").is_some(), "{field} has a rule");
    }
    let apply = PatchParams::apply("test").force();
    let name = with_rules.metadata.name.clone().unwrap();
    crds.patch(&name, &apply, &Patch::Apply(&without)).await.unwrap();
    let kind = ApiResource::erase::<KymaBinding>(&());
    let kind = ApiResource { group: group.to_owned(), api_version: format!("{group}/v1alpha1"), ..kind };
    let bindings: Api<DynamicObject> = Api::namespaced_with(client, &stage.namespace, &kind);
    let odd = |name: &str| {
        let spec =
            json!({"instanceId": "i", "createdBy": "a\u{202e}b", "planId": "\u{1b}[31m", "serviceId": "\n"});
        DynamicObject::new(name, &kind).data(json!({"spec": spec}))
    };
    let mut old = odd("old");
    old.metadata.finalizers = Some(vec!["example.com/held".to_owned()]);
    eventually("the kind to be served", SOON, async || bindings.create(&PostParams::default(), &old).await)
        .await
        .unwrap();
    crds.patch(&name, &apply, &Patch::Apply(&with_rules)).await.unwrap();
    eventually("the rules to hold", SOON, async || match bindings.create(&dry_run(), &odd("new")).await {
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
        other => Err(anyhow!("{other:?}")),
    })
    .await
    .unwrap();
    let params = PatchParams::default();
    let status = json!({"status": {"phase": "Ready", "clusterId": "c"}});
    bindings.patch_status("old", &params, &Patch::Merge(status)).await.unwrap();
    bindings.delete("old", &DeleteParams::default()).await.unwrap();
    let let_go = json!({"metadata": {"finalizers": null}});
    bindings.patch("old", &params, &Patch::Merge(let_go)).await.unwrap();
    assert!(bindings.get_opt("old").await.unwrap().is_none(), "it came to its end");
    crds.delete(&name, &DeleteParams::default()).await.unwrap();
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
