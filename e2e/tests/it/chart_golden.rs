//! What the chart renders for each file of values in `ci`, word by word, and that an API server takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use e2e::helm::{chart, template, template_by_helm_3};
use e2e::stage::SOON;
use e2e::{Cluster, eventually, foreign};

use serde_json::Value;

use crate::world::world;

/// Set it to have the expected files written anew.
pub const UPDATE: &str = "KYMA_BINDINGS_UPDATE_GOLDEN";

/// What nothing serves here: its operator is no module of the Go proxy.
const FOREIGN: &str = "\napiVersion: operator.victoriametrics.com/v1beta1\n";

fn cases() -> Vec<PathBuf> {
    let files = fs::read_dir(chart().join("ci")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

async fn rendered(values: &Path) -> String {
    let output = template(&["--values", values.to_str().unwrap()]).await.unwrap();
    assert!(output.status.success(), "{}: {}", values.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with a file of `tests/golden`, or writes it anew where that is asked for.
pub fn expect(file: &str, is: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if env::var_os(UPDATE).is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, is).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    let differs = is.lines().zip(expected.lines()).find(|(is, was)| is != was);
    assert!(is == expected, "{}: {differs:?}; {UPDATE}=1 writes it anew", golden.display());
}

#[tokio::test]
async fn what_is_rendered_is_what_is_expected() {
    for values in cases() {
        let name = values.file_name().unwrap().to_str().unwrap().replace("-values", "");
        expect(&name, &rendered(&values).await);
    }
}

/// Of Istio, cert-manager and others: their own definitions, but nobody who acts on them.
async fn serve_foreign_kinds(control: &Cluster) {
    let file = control.dir().join("foreign.yaml");
    fs::write(&file, foreign::definitions().await.unwrap()).unwrap();
    control.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]).await.unwrap();
    for name in foreign::names() {
        eventually(name, SOON, async || control.kubectl(&["get", name, "-A"]).await).await.unwrap();
    }
}

#[tokio::test]
async fn an_api_server_takes_it_and_holds_the_pods_for_restricted() {
    let control = &world().await.control;
    let namespaces = control.dir().join("chart-namespaces.yaml");
    let namespace = |name| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             pod-security.kubernetes.io/warn: restricted\n"
        )
    };
    let mut there = vec![namespace("kyma-bindings"), namespace("kcp-system")];
    // A pod is refused without its account, which a dry run doesn't make, and without its runtime class.
    there.push(
        "---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: gvisor}\nhandler: runsc\n"
            .to_owned(),
    );
    for values in cases() {
        let accounts = rendered(&values).await;
        let accounts = accounts.lines().filter_map(|line| line.strip_prefix("  serviceAccountName: "));
        there.extend(accounts.flat_map(|name| {
            ["kyma-bindings", "kcp-system"].map(|namespace| {
                let metadata = format!("{{name: {name}, namespace: {namespace}}}");
                format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {metadata}\n")
            })
        }));
    }
    fs::write(&namespaces, there.concat()).unwrap();
    control.kubectl(&["apply", "-f", namespaces.to_str().unwrap()]).await.unwrap();
    serve_foreign_kinds(control).await;
    for values in cases() {
        let file = control.dir().join(format!("chart-{}", values.file_name().unwrap().to_str().unwrap()));
        let rendered = rendered(&values).await;
        let known: Vec<_> = rendered.split("\n---\n").filter(|object| !object.contains(FOREIGN)).collect();
        fs::write(&file, known.join("\n---\n")).unwrap();
        let apply =
            ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors"];
        let apply = [&apply[..], &["-f", file.to_str().unwrap()]].concat();
        let applied = control.kubectl(&apply).await.unwrap();
        assert!(applied.contains("deployment.apps/"), "{applied}");
    }
}

/// The objects, each parsed, in the order of kind and name: that of Helm is its own matter.
fn objects(rendered: &str) -> BTreeMap<String, Value> {
    let documents = rendered.split("\n---\n").filter(|text| text.contains("\nkind: "));
    let objects = documents.map(|text| {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        let name =
            format!("{} {} {}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]);
        (name, object)
    });
    objects.collect()
}

#[tokio::test]
async fn helm_3_renders_the_same_objects() {
    for values in cases() {
        let args = ["--values", values.to_str().unwrap()];
        let output = template_by_helm_3(&args).await.unwrap();
        assert!(output.status.success(), "{}: {}", values.display(), String::from_utf8_lossy(&output.stderr));
        let by_helm_3 = objects(std::str::from_utf8(&output.stdout).unwrap());
        let expected = objects(&rendered(&values).await);
        assert!(expected.len() > 5, "{}", values.display());
        assert_eq!(by_helm_3, expected, "{}", values.display());
    }
    let refused = template_by_helm_3(&["--set", "replicacount=2"]).await.unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("replicacount"));
}

/// Keys of `values.yaml`, as paths, down to what the templates take as a whole.
fn keys() -> Vec<String> {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let mut path: Vec<&str> = Vec::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        let key = line.trim_start();
        let depth = (line.len() - key.len()) / 2;
        let Some((key, _)) = key.split_once(':').filter(|_| !key.starts_with('#')) else { continue };
        path.truncate(depth);
        path.push(key);
        keys.push(path.join("."));
    }
    keys
}

#[test]
fn no_value_is_without_use() {
    let files =
        ["templates", "templates/tests"].map(|directory| fs::read_dir(chart().join(directory)).unwrap());
    let files = files.into_iter().flatten().map(|file| file.unwrap().path()).filter(|path| path.is_file());
    let templates: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    // Taken as a whole: each flag of `config` has a test of its own.
    let whole = ["config", "livenessProbe", "readinessProbe", "podSecurityContext", "securityContext"];
    let resources = ["broker.resources", "controller.resources", "check.resources", "cleanup.resources"];
    let whole = [&whole[..], &resources].concat();
    for key in keys() {
        if whole.iter().any(|whole| key.starts_with(&format!("{whole}."))) {
            continue;
        }
        let leaf = key.rsplit('.').next().unwrap();
        assert!(templates.contains(&format!(".{leaf}")), "{key} is used nowhere");
    }
}
