//! What the programs of a node are told.

use std::path::Path;

use serde_json::{Value, json};

/// Of all pods.
const POD_NETWORK: &str = "10.88.0.0/24";
/// The reference that [`super::NodeCluster`] imports the image of pauses under.
pub(crate) const PAUSE_IMAGE: &str = "node.local/pause:1";

/// What one node has to itself.
pub(crate) struct Worker<'a> {
    /// Its directory.
    pub dir: &'a Path,
    pub address: &'a str,
    pub cgroup: &'a str,
    /// The socket of its containerd.
    pub socket: &'a Path,
    /// With the keys of the cluster.
    pub keys: &'a Path,
    pub packages: &'a Path,
}

/// Of the bridge that pods are connected to.
pub(crate) fn network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "node",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": true,
            // A pod may reach itself through its Service.
            "hairpinMode": true,
            "ipMasq": false,
            // Both nodes are on the bridge: one directory, so that no address is given twice.
            "ipam": {"type": "host-local", "dataDir": "/run/pod-addresses", "ranges": [[{"subnet": POD_NETWORK}]]},
        }],
    })
}

/// For Debian's containerd, with control groups v1.
pub(crate) fn containerd(worker: &Worker<'_>, network: &Path) -> String {
    let (dir, packages) = (worker.dir.display(), worker.packages.display());
    let (socket, network) = (worker.socket.display(), network.display());
    format!(
        r#"version = 2
root = "{dir}/containerd"
state = "{socket}.state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{packages}/usr/lib/cni"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{packages}/usr/sbin/runc"
"#
    )
}

pub(crate) fn kubelet(worker: &Worker<'_>) -> Value {
    let Worker { dir, address, cgroup, socket, keys, .. } = worker;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "tlsCertFile": keys.join("server.crt"),
        "tlsPrivateKeyFile": keys.join("server.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": keys.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "failSwapOn": false,
        // It then only looks whether they are right, and changes nothing of the machine.
        "protectKernelDefaults": true,
        "oomScoreAdj": 0,
        "resolvConf": "/run/resolv.conf",
        "podLogsDir": dir.join("logs"),
        "volumePluginDir": dir.join("plugins"),
        // The machine's disk may be nearly full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%",
            "imagefs.available": "1%", "imagefs.inodesFree": "1%",
        },
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
    })
}

/// One for all nodes: they share a network.
pub(crate) fn proxy(address: &str, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": address,
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": "a",
        "clusterCIDR": POD_NETWORK,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        // Else it writes settings of the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}
