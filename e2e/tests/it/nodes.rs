//! The real cluster that the chart is installed into.

use std::fs;
use std::path::Path;

use e2e::eventually;
use e2e::node::NodeCluster;
use e2e::stage::SOON;

/// A pod of the only image that is there without the operator's.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: pause}
spec:
  nodeName: b
  containers: [{name: pause, image: 'node.local/pause:1'}]
";

#[tokio::test]
#[ignore = "nodes: needs root"]
async fn pods_run_and_nothing_is_left_of_them() {
    let nodes = NodeCluster::start("nodes").await.unwrap();
    let places = nodes.places().unwrap();
    assert!(places.len() > 2 && places.iter().all(|place| place.is_dir()), "{places:?}");
    let pod = nodes.cluster().dir().join("pod.yaml");
    fs::write(&pod, POD).unwrap();
    nodes.cluster().kubectl(&["apply", "-f", pod.to_str().unwrap()]).await.unwrap();
    let ready = ["wait", "--for=condition=Ready", "--timeout=20s", "pod/pause"];
    nodes.cluster().kubectl(&ready).await.unwrap();
    let processes = nodes.inside("cat /proc/[0-9]*/comm").await.unwrap();
    for name in ["pause", "kubelet", "containerd", "kube-proxy"] {
        assert!(processes.lines().any(|process| process == name), "{name} is not in {processes}");
    }
    // What is outside of its namespaces has no part in its mounts and its network.
    let dir = places[0].to_str().unwrap();
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(dir));
    assert!(Path::new("/sys/class/net/lo").exists() && !Path::new("/sys/class/net/node0").exists());

    drop(nodes);
    let left = || places.iter().filter(|place| place.exists()).collect::<Vec<_>>();
    eventually("nothing to be left", SOON, async || match left() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await
    .unwrap();
}
