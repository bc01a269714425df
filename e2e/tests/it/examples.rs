//! Each way in, as `examples/` has it. Their names are fixed, so they have a control plane of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::helm::template;
use e2e::stage::{SOON, install_crd, prove, prove_refused};
use e2e::{Cluster, Stage};
use serde_json::Value;
use tokio::process::Command;

use crate::world::{program, world};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

async fn bind_sh(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.arg(example("bind.sh")).args(args).env("BROKER", url).env("NO_PROXY", "*").kill_on_drop(true);
    command.output().await.unwrap()
}

#[tokio::test]
async fn each_way_in_works_as_its_example_says() {
    let control = Cluster::start("examples").await.unwrap();
    install_crd(&control).await.unwrap();
    let stage = Stage::with_namespaces(&control, "kyma-bindings", "kcp-system").await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();

    // The instance, with a cluster that exists.
    let text = fs::read_to_string(example("instance-secret.yaml")).unwrap();
    let (head, _) = text.split_once("  config: |\n").unwrap();
    let kubeconfig = world().await.managed.admin_kubeconfig();
    let kubeconfig: Vec<_> = kubeconfig.lines().map(|line| format!("    {line}")).collect();
    let instance = control.dir().join("instance-secret.yaml");
    fs::write(&instance, format!("{head}  config: |\n{}\n", kubeconfig.join("\n"))).unwrap();
    control.kubectl(&["apply", "--server-side", "-f", instance.to_str().unwrap()]).await.unwrap();

    // By kubectl.
    let manifest = example("kymabinding.yaml");
    control.kubectl(&["apply", "-f", manifest.to_str().unwrap()]).await.unwrap();
    let wait =
        ["-n", "kyma-bindings", "wait", "--for=condition=Ready", "kymabinding/my-binding", "--timeout=20s"];
    control.kubectl(&wait).await.unwrap();
    let applied = stage.ready("my-binding").await.unwrap();
    assert_eq!(prove(&applied).await.unwrap(), "managed");
    control.kubectl(&["delete", "-f", manifest.to_str().unwrap()]).await.unwrap();
    stage.gone("my-binding", SOON).await.unwrap();
    prove_refused(&applied).await.unwrap();

    // By HTTP.
    let made = bind_sh(operator.url(), &["bind"]).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let answer: Value = serde_json::from_slice(&made.stdout).unwrap();
    let kubeconfig = answer["credentials"]["kubeconfig"].as_str().unwrap();
    assert_eq!(prove(kubeconfig).await.unwrap(), "managed");
    let fetched = bind_sh(operator.url(), &["fetch"]).await;
    let fetched: Value = serde_json::from_slice(&fetched.stdout).unwrap();
    assert_eq!(fetched["credentials"], answer["credentials"]);
    assert!(bind_sh(operator.url(), &["unbind"]).await.status.success());
    prove_refused(kubeconfig).await.unwrap();
    let again = bind_sh(operator.url(), &["unbind"]).await;
    assert!(!again.status.success(), "410: it is gone");
    assert_eq!(bind_sh(operator.url(), &["bnid"]).await.status.code(), Some(2));

    // By Helm: what it installs is taken, all of it.
    let values = example("helm-values.yaml");
    let rendered = template(&["--values", values.to_str().unwrap()]).await.unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let file = control.dir().join("installed.yaml");
    fs::write(&file, rendered.stdout).unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()];
    let applied = control.kubectl(&apply).await.unwrap();
    for object in ["deployment.apps/kb-kyma-bindings-broker", "deployment.apps/kb-kyma-bindings-controller"] {
        assert!(applied.contains(object), "{applied}");
    }
}
