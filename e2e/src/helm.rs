//! Helm, with which the tests render the chart: found in `KUBEBUILDER_ASSETS`, or built once and kept.

use std::ffi::{OsStr, OsString};
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

/// The version in `helm3/go.mod`, without the leading `v`.
const HELM3_VERSION: &str = "3.22.0";

const HELM3_MODULE: Module =
    Module { directory: "helm3", kept: "helm-v3.22.0", ldflags: String::new, tags: "" };
const HELM3: Program = Program {
    name: "helm",
    package: "helm.sh/helm/v3/cmd/helm",
    module: &HELM3_MODULE,
    version: HELM3_VERSION,
    duration: "about three minutes",
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
    let helm = program().await?;
    run(&helm, None, &rendering(namespace, args)).await
}

/// The same as [`template`] by Helm 3.
///
/// # Errors
/// As [`template`].
pub async fn template_by_helm_3(args: &[&str]) -> Result<Output> {
    // Not from `KUBEBUILDER_ASSETS`: a program of that name there is Helm 4.
    let helm = HELM3.build_unless_kept().await?;
    run(&helm, None, &rendering("kyma-bindings", args)).await
}

/// Runs Helm 4, and Helm 3, without a cluster. A failure of theirs is not an error here.
///
/// # Errors
/// When one can't be had or run.
pub async fn both(args: &[&str]) -> Result<[Output; 2]> {
    let args: Vec<_> = args.iter().map(OsString::from).collect();
    let (fourth, third) = (program().await?, HELM3.build_unless_kept().await?);
    Ok([run(&fourth, None, &args).await?, run(&third, None, &args).await?])
}

fn rendering(namespace: &str, args: &[&str]) -> Vec<OsString> {
    let template = [OsStr::new("template"), OsStr::new("kb"), chart().as_os_str()].map(OsStr::to_owned);
    let options = ["--namespace", namespace, "--kube-version", KUBERNETES_VERSION];
    template.into_iter().chain(options.iter().chain(args).map(OsString::from)).collect()
}

/// Runs Helm on a cluster. A failure of its is not an error here.
///
/// # Errors
/// When Helm can't be had or run.
pub async fn helm(kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    let helm = program().await?;
    run(&helm, Some(kubeconfig), &args.iter().map(OsString::from).collect::<Vec<_>>()).await
}

async fn run(helm: &Path, kubeconfig: Option<&Path>, args: &[OsString]) -> Result<Output> {
    let mut command = Command::new(helm);
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
    fn versions_are_those_of_the_go_modules() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/go.mod");
        let module = std::fs::read_to_string(module).unwrap();
        assert_eq!(HELM_MODULE.kept, format!("helm-v{HELM_VERSION}"));
        assert!(module.contains(&format!("helm.sh/helm/v4 v{HELM_VERSION}\n")));
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm3/go.mod");
        let module = std::fs::read_to_string(module).unwrap();
        assert_eq!(HELM3_MODULE.kept, format!("helm-v{HELM3_VERSION}"));
        assert!(module.contains(&format!("helm.sh/helm/v3 v{HELM3_VERSION}\n")));
    }
}
