//! The chart as a dependency of another one.

use std::fs;
use std::process::Output;

use e2e::WorkDir;
use e2e::helm::{both, chart};
use serde_json::Value;

use crate::chart::{LEAST, objects, rendered};

fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Objects of some kinds, which say how each was rendered.
fn of(rendered: &str) -> Vec<Value> {
    ["Deployment", "Service", "Role", "Job"].iter().flat_map(|kind| objects(rendered, kind)).collect()
}

#[tokio::test]
async fn a_parent_switches_it_by_a_condition_and_hands_its_values_down() {
    let dir = WorkDir::new("chart-parent").unwrap();
    let parent = dir.path().join("parent");
    fs::create_dir(&parent).unwrap();
    let (version, repository) = (env!("CARGO_PKG_VERSION"), chart().canonicalize().unwrap());
    let description = format!(
        "apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n  - name: kyma-bindings\n    version: {version}\n    \
         repository: file://{}\n    condition: kyma-bindings.enabled\n",
        repository.display()
    );
    fs::write(parent.join("Chart.yaml"), description).unwrap();
    fs::write(
        parent.join("values.yaml"),
        "global: {images: {container_registry: {path: mirror.example}}}\nkyma-bindings:\n  enabled: true\n  auth: {methods: [none], \
         allowAnonymous: true}\n  broker: {replicas: \"\"}\n",
    )
    .unwrap();
    let parent = parent.to_str().unwrap();
    for output in both(&["dependency", "update", parent]).await.unwrap() {
        said(output);
    }
    let set = [
        "--set",
        "image.repository=,global.images.container_registry.path=mirror.example,broker.replicas=null",
    ];
    let alone = of(&rendered(&[&LEAST[..], &set].concat()).await);
    assert!(alone.len() > 5);
    assert!(
        alone.iter().any(|object| object["kind"] == "Deployment" && object["spec"].get("replicas").is_none())
    );

    let template = ["template", "kb", parent, "--namespace", "kyma-bindings", "--kube-version", "1.36.0"];
    for output in both(&template).await.unwrap() {
        assert_eq!(of(&said(output)), alone);
    }
    for output in both(&[&template[..], &["--set", "kyma-bindings.enabled=false"]].concat()).await.unwrap() {
        assert!(of(&said(output)).is_empty());
    }
    let wrong = [&template[..], &["--set", "kyma-bindings.enbled=false"]].concat();
    for output in both(&wrong).await.unwrap() {
        let refused = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && refused.contains("enbled"), "{refused}");
    }
}
