//! The real `etcd`, `kube-apiserver` and `kubectl`: found, or built once and kept.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use crate::programs::{BinariesError, Module, Program};

/// The Kubernetes version in `kubernetes/go.mod`, without the leading `v`.
pub const KUBERNETES_VERSION: &str = "1.36.3";
/// The etcd version in `kubernetes/go.mod`, without the leading `v`.
pub const ETCD_VERSION: &str = "3.6.8";

/// Where the programs of a test cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// `kube-apiserver`.
    pub kube_apiserver: PathBuf,
    /// `etcd`.
    pub etcd: PathBuf,
    /// `kubectl` of the same version as the API server.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Looks for each binary in the directory `KUBEBUILDER_ASSETS`, on the `PATH` (not for
    /// `kubectl`, which there may be a wrapper or years old) and in the cache; builds it into
    /// the cache when it is nowhere. Done once per process, failures are remembered, too.
    ///
    /// # Errors
    /// Any [`BinariesError`], all for the reader to fix.
    pub async fn find_or_build() -> Result<Self, BinariesError> {
        static FOUND: OnceCell<Result<Binaries, BinariesError>> = OnceCell::const_new();
        let find = async {
            Ok(Self {
                etcd: ETCD.find_or_build().await?,
                kube_apiserver: KUBE_APISERVER.find_or_build().await?,
                kubectl: KUBECTL.find_or_build().await?,
            })
        };
        FOUND.get_or_init(|| find).await.clone()
    }
}

const KUBERNETES: Module = Module {
    directory: "kubernetes",
    kept: "kubernetes-v1.36.3-etcd-v3.6.8",
    tags: "",
    ldflags: || {
        // Kubernetes takes its version from the linker; kubectl and the API server compare them.
        let mut parts = KUBERNETES_VERSION.split('.');
        let mut part = || parts.next().unwrap_or_default();
        let (major, minor) = (part(), part());
        let version = "k8s.io/component-base/version";
        format!(
            "-X {version}.gitVersion=v{KUBERNETES_VERSION} \
             -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        )
    },
};
pub(crate) const ETCD: Program = Program {
    package: "./etcd",
    version: ETCD_VERSION,
    from_path: true,
    ..of_kubernetes("etcd", "", "about a minute")
};
const KUBE_APISERVER: Program = Program {
    from_path: true,
    ..of_kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "about four minutes")
};
pub(crate) const KUBECTL: Program =
    of_kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", "about a minute");
/// The controllers of Kubernetes itself.
pub const KUBE_CONTROLLER_MANAGER: Program = of_kubernetes(
    "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "a minute or two",
);
pub(crate) const KUBE_SCHEDULER: Program =
    of_kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "some seconds");
pub(crate) const KUBELET: Program =
    of_kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", "about a minute");
pub(crate) const KUBE_PROXY: Program =
    of_kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "some seconds");

const fn of_kubernetes(name: &'static str, package: &'static str, duration: &'static str) -> Program {
    Program { name, package, module: &KUBERNETES, version: KUBERNETES_VERSION, duration, from_path: false }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn versions_are_those_of_the_go_module() {
        let module =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/go.mod")).unwrap();
        let kept = format!("kubernetes-v{KUBERNETES_VERSION}-etcd-v{ETCD_VERSION}");
        assert_eq!(KUBERNETES.kept, kept);
        assert!(module.contains(&format!("k8s.io/kubernetes v{KUBERNETES_VERSION}\n")));
        assert!(module.contains(&format!("go.etcd.io/etcd/server/v3 v{ETCD_VERSION}\n")));
    }
}
