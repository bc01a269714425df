//! The image of the operator: what is in it runs where nothing else is.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output};

use e2e::WorkDir;
use e2e::image::{Architecture, operator};
use flate2::bufread::GzDecoder;
use serde_json::Value;

use crate::world::stage;

/// Where Debian has chroot and unshare.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Unpacks the layer of a tar in the OCI image layout, as an engine does.
fn unpack(tar: &Path, to: &Path) {
    let layout = tar.with_extension("layout");
    tar::Archive::new(File::open(tar).unwrap()).unpack(&layout).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let parsed = |path: &Path| serde_json::from_reader::<_, Value>(File::open(path).unwrap()).unwrap();
    let index = parsed(&layout.join("index.json"));
    let manifest = parsed(&blob(&index["manifests"][0]));
    let layer = BufReader::new(File::open(blob(&manifest["layers"][0])).unwrap());
    tar::Archive::new(GzDecoder::new(layer)).unpack(to).unwrap();
}

/// Runs the program with that directory as its root: as root at once, else in a user namespace.
fn run_in(root: &Path, args: &[&str]) -> Output {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if is_root { "chroot" } else { "unshare" });
    if !is_root {
        command.args(["--user", "--map-root-user", "chroot"]);
    }
    let output = command.arg(root).arg(operator::PROGRAM).args(args).env_clear().env("PATH", PATH).output();
    output.expect("this test needs chroot of coreutils and, unless it is root, unshare of util-linux")
}

fn succeeded(root: &Path, args: &[&str]) -> (String, String) {
    let output = run_in(root, args);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{args:?}: {}, {stderr}; it must be root, or user namespaces must be allowed",
        output.status
    );
    (stdout, stderr.into_owned())
}

#[tokio::test]
#[ignore = "slow: builds what is shipped"]
async fn the_program_runs_with_nothing_but_the_image() {
    let dir = WorkDir::new("e2e-image").unwrap();
    let architecture = Architecture::here().unwrap();
    let program = operator::build(architecture).unwrap();
    let image = operator::image("kyma-bindings:test", architecture, &program).unwrap();
    let (tar, root) = (dir.path().join("image.tar"), dir.path().join("root"));
    image.write(File::create(&tar).unwrap()).unwrap();
    unpack(&tar, &root);

    let (version, _) = succeeded(&root, &["version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let (crd, _) = succeeded(&root, &["crd"]);
    assert!(crd.contains("kymabindings.bindings.kyma-project.io"), "{crd}");

    // A name that only a file of its root knows, and an authority that only its kubeconfig knows.
    let (stage, _) = stage("image").await;
    let name = "kubernetes.default.svc";
    let kubeconfig =
        stage.control().admin_kubeconfig().replace("https://127.0.0.1:", &format!("https://{name}:"));
    fs::write(root.join("kubeconfig"), kubeconfig).unwrap();
    fs::write(root.join("etc/hosts"), format!("127.0.0.1 {name}\n")).unwrap();
    let cleanup = |timeout| {
        let namespace = stage.namespace.as_str();
        ["cleanup", "--namespace", namespace, "--timeout", timeout, "--kubeconfig", "/kubeconfig"]
    };
    let (_, said) = succeeded(&root, &cleanup("60s"));
    assert!(said.contains("0 were removed"), "{said}");
    fs::remove_file(root.join("etc/hosts")).unwrap();
    assert!(!run_in(&root, &cleanup("1s")).status.success(), "it must have been the name");
}
