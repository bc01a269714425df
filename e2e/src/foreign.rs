//! `CustomResourceDefinition`s of others, of which the chart has objects: read from their Go modules, which
//! `crds/go.mod` pins. Nothing is built.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// Module, file in it, and the names of the definitions that are taken.
const TAKEN: [(&str, &str, &[&str]); 6] = [
    (
        "github.com/cert-manager/cert-manager",
        "deploy/crds/cert-manager.io_certificates.yaml",
        &["certificates.cert-manager.io"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        &["prometheusrules.monitoring.coreos.com"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        &["servicemonitors.monitoring.coreos.com"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        &["podmonitors.monitoring.coreos.com"],
    ),
    (
        "istio.io/api",
        "kubernetes/customresourcedefinitions.gen.yaml",
        &[
            "authorizationpolicies.security.istio.io",
            "requestauthentications.security.istio.io",
            "virtualservices.networking.istio.io",
        ],
    ),
    (
        "sigs.k8s.io/gateway-api",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        &["httproutes.gateway.networking.k8s.io"],
    ),
];

/// What `go mod download -json` says of a module.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    path: String,
    dir: PathBuf,
}

/// Names of all that [`definitions`] has.
pub fn names() -> impl Iterator<Item = &'static str> {
    TAKEN.iter().flat_map(|(_, _, names)| names.iter().copied())
}

/// The definitions as YAML documents. They come from the module proxy the first time.
///
/// # Errors
/// When there is no Go, the proxy doesn't answer, or a module has them no longer where they were.
pub async fn definitions() -> Result<String> {
    let modules = TAKEN.iter().map(|(module, ..)| *module);
    let go = Command::new("go")
        .args(["mod", "download", "-json"])
        .args(modules)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds"))
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run go")?;
    let said = [&go.stdout[..], &go.stderr].concat();
    ensure!(go.status.success(), "go mod download: {}", String::from_utf8_lossy(&said));
    let downloaded = serde_json::Deserializer::from_slice(&go.stdout).into_iter::<Downloaded>();
    let directories: HashMap<_, _> =
        downloaded.map(|module| module.map(|m| (m.path, m.dir))).collect::<Result<_, _>>()?;
    let mut definitions = String::new();
    for (module, file, names) in TAKEN {
        let path = directories.get(module).with_context(|| format!("{module} is not there"))?.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for name in names {
            let line = format!("\n  name: {name}\n");
            let document = text.split("\n---\n").find(|document| document.contains(&line));
            let document = document.with_context(|| format!("{name} is not in {}", path.display()))?;
            definitions.extend(["---\n", document, "\n"]);
        }
    }
    Ok(definitions)
}
