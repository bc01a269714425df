//! Helm, with which the tests render the chart: found in `KUBEBUILDER_ASSETS`, or built once and kept.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::binaries::KUBERNETES_VERSION;
use crate::programs::{BinariesError, Module, Program};

/// The version in `helm/go.mod`, without the leading `v`.
const HELM_VERSION: &str = "4.3.1";

const HELM_MODULE: Module = Module { directory: "helm", kept: "helm-v4.3.1", ldflags: String::new, tags: "" };
const HELM: Program = Program {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    module: &HELM_MODULE,
    version: HELM_VERSION,
    duration: "about three minutes",
    // Another version may render or refuse otherwise.
    from_path: false,
};

/// The directory of the chart.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kyma-bindings")
}

/// The pinned Helm.
///
/// # Errors
/// When it can't be had.
pub async fn program() -> Result<PathBuf, BinariesError> {
    static FOUND: OnceCell<Result<PathBuf, BinariesError>> = OnceCell::const_new();
    FOUND.get_or_init(|| HELM.find_or_build()).await.clone()
}

/// Renders the chart as release `kb` in the namespace `kyma-bindings`. A refusal is not an error here:
/// see the status and output.
///
/// # Errors
/// When Helm can't be had or run.
pub async fn template(args: &[&str]) -> Result<Output> {
    template_in("kyma-bindings", args).await
}

/// The same in another namespace.
///
/// # Errors
/// As [`template`].
pub async fn template_in(namespace: &str, args: &[&str]) -> Result<Output> {
    let chart = chart();
    let chart = chart.to_str().context("the path of the chart")?;
    let template = ["template", "kb", chart, "--namespace", namespace];
    helm(None, &[&template[..], &["--kube-version", KUBERNETES_VERSION], args].concat()).await
}

/// Runs Helm on a cluster, or on none. A failure of its is not an error here.
///
/// # Errors
/// When Helm can't be had or run.
pub async fn helm(kubeconfig: Option<&Path>, args: &[&str]) -> Result<Output> {
    let helm = program().await?;
    let mut command = Command::new(&helm);
    // What a person has set up for themselves must not matter.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELM_") || name == "KUBECONFIG" {
            command.env_remove(name);
        }
    }
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    output.with_context(|| helm.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_go_module() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/go.mod");
        let module = std::fs::read_to_string(module).unwrap();
        assert_eq!(HELM_MODULE.kept, format!("helm-v{HELM_VERSION}"));
        assert!(module.contains(&format!("helm.sh/helm/v4 v{HELM_VERSION}\n")));
    }
}
