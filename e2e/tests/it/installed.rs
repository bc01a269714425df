//! The chart, installed by Helm where pods really run. Each test has a cluster with nodes of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::helm::chart;
use e2e::installed::{
    FULL_NAME, INSTANCE, INSTANCE_NAMESPACE, Installed, NAMESPACE, NEXT_TAG, RELEASE, under_load,
};
use e2e::stage::{prove, prove_refused};
use e2e::{WorkDir, eventually};

use crate::chart_golden::expect;

/// How long pods may take to end, or a replica to lead.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a kubeconfig that is made for pods is outside of their network.
fn outside(kubeconfig: &str) -> String {
    kubeconfig.replace("https://10.77.0.1:", "https://127.0.0.1:")
}

#[tokio::test]
#[ignore = "nodes: needs root"]
async fn it_works_by_its_defaults_and_leaves_nothing() {
    let installed = Installed::prepare().await.unwrap();
    let before = all_objects(&installed).await.unwrap();
    installed.upgrade(&[]).await.unwrap();
    for component in ["broker", "controller"] {
        let mut nodes = nodes_of(&installed, component).await.unwrap();
        nodes.sort();
        assert_eq!(nodes, ["a", "b"], "{component}");
    }
    println!("{}", installed.helm(&["test", RELEASE]).await.unwrap());
    let bound = installed.broker().await.unwrap().osb().bind(INSTANCE, "through", None).await.unwrap();
    assert_eq!(bound.status, 201, "{}", bound.description());
    let kubeconfig = outside(bound.kubeconfig().unwrap());
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");

    let confined = processes(&installed).await.unwrap();
    assert_eq!(confined.len(), 4, "{confined:?}");
    for process in confined {
        assert_eq!(process, "65532 caps=0000000000000000 no_new_privs=1 seccomp=2 root=ro");
    }
    for account in ["broker", "controller"] {
        for namespace in [NAMESPACE, INSTANCE_NAMESPACE, "kube-system", "default"] {
            let rights = rights(&installed, account, namespace).await.unwrap();
            expect(&format!("rights/{account}-in-{namespace}.txt"), &rights);
        }
    }

    let said = installed.helm(&["uninstall", RELEASE]).await.unwrap();
    println!("{said}");
    assert!(said.contains("[CustomResourceDefinition] kymabindings.bindings.kyma-project.io"), "{said}");
    assert!(said.contains("1 were removed"), "{said}");
    prove_refused(&kubeconfig).await.unwrap();
    eventually("nothing but the CRD to be left", PATIENCE, async || {
        let left = all_objects(&installed).await?;
        let left: Vec<_> = left.into_iter().filter(|object| !before.contains(object)).collect();
        ensure!(
            left == ["customresourcedefinition.apiextensions.k8s.io/kymabindings.bindings.kyma-project.io"],
            "{left:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "nodes: needs root"]
async fn no_request_is_lost_by_an_upgrade_or_a_drain() {
    let installed = Installed::prepare().await.unwrap();
    installed.upgrade(&[]).await.unwrap();
    let next = format!("image.tag={NEXT_TAG}");
    let (_, traffic) = under_load(&installed, installed.upgrade(&[&next])).await.unwrap();
    println!("upgrade: {} requests answered, {} lost", traffic.answered(), traffic.lost().len());
    assert!(traffic.lost().is_empty() && traffic.answered() > 100, "{traffic:?}");
    // Two connections that are kept, two pods that end.
    assert!(traffic.repeated() <= 4, "{traffic:?}");

    // A budget of one pod at a time: each must be replaced on the other node before the next may go.
    let drain = ["drain", "b", "--delete-emptydir-data", "--timeout=120s"];
    let (_, traffic) = under_load(&installed, installed.kubectl(&drain)).await.unwrap();
    println!("drain: {} requests answered, {} lost", traffic.answered(), traffic.lost().len());
    assert!(traffic.lost().is_empty() && traffic.answered() > 100, "{traffic:?}");
    // Two connections that are kept, two pods that end.
    assert!(traffic.repeated() <= 4, "{traffic:?}");
    let on_b = ["get", "pods", "-n", NAMESPACE, "--field-selector=spec.nodeName=b", "-o", "name"];
    assert_eq!(installed.kubectl(&on_b).await.unwrap(), "");

    let broker = installed.broker().await.unwrap();
    installed.kill(&installed.leader().await.unwrap()).await.unwrap();
    let killed = Instant::now();
    let bound = broker.osb().bound(INSTANCE, "after-the-leader").await.unwrap();
    println!("leader killed: bound {:.1} s later", killed.elapsed().as_secs_f64());
    assert_eq!(prove(&outside(bound.kubeconfig().unwrap())).await.unwrap(), "managed");
}

#[tokio::test]
#[ignore = "nodes: needs root"]
async fn what_a_former_chart_has_made_stays() {
    let installed = Installed::prepare().await.unwrap();
    let dir = WorkDir::new("e2e-chart").unwrap();
    let former = former_chart(dir.path());
    installed.upgrade_to(&former, &[]).await.unwrap();
    let stage = installed.stage();
    stage.apply("of-old", INSTANCE, None).await.unwrap();
    let kubeconfig = outside(&stage.ready("of-old").await.unwrap());
    let uid = stage.bindings().get("of-old").await.unwrap().metadata.uid;
    let columns = ["get", "kb", "-n", NAMESPACE];
    assert!(!installed.kubectl(&columns).await.unwrap().contains("EXPIRES"));

    installed.upgrade(&[]).await.unwrap();
    assert!(installed.kubectl(&columns).await.unwrap().contains("EXPIRES"));
    assert_eq!(stage.bindings().get("of-old").await.unwrap().metadata.uid, uid);
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");

    // Their cluster is away, and the finalizers still don't hold up anybody.
    installed.managed().stop_apiserver().await.unwrap();
    installed.upgrade(&["cleanup.timeoutSeconds=5"]).await.unwrap();
    let said = installed.helm(&["uninstall", RELEASE]).await.unwrap();
    println!("{said}");
    assert!(said.contains("of-old"), "{said}");
    stage.gone("of-old", PATIENCE).await.unwrap();
}

#[tokio::test]
#[ignore = "nodes: needs root"]
async fn deleted_as_argo_cd_does_it_leaves_no_access() {
    let installed = Installed::prepare().await.unwrap();
    let rendered = installed.rendered().await.unwrap();
    let of = |hooks: bool| {
        let documents = rendered.split("\n---\n").filter(|text| text.contains("\nkind: "));
        let which = documents.filter(|text| {
            let hook = text.contains("helm.sh/hook: ");
            if hooks { text.contains("argocd.argoproj.io/hook: PreDelete") } else { !hook }
        });
        let file = installed.nodes().cluster().dir().join(format!("argocd-{hooks}.yaml"));
        fs::write(&file, which.collect::<Vec<_>>().join("\n---\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (objects, hooks) = (of(false), of(true));
    installed.kubectl(&["apply", "--server-side", "-f", &objects]).await.unwrap();
    for component in ["broker", "controller"] {
        let deployment = format!("deployment/{FULL_NAME}-{component}");
        installed
            .kubectl(&["rollout", "status", "-n", NAMESPACE, &deployment, "--timeout=120s"])
            .await
            .unwrap();
    }
    let bound = installed.broker().await.unwrap().osb().bound(INSTANCE, "in-git").await.unwrap();
    let kubeconfig = outside(bound.kubeconfig().unwrap());
    assert_eq!(prove(&kubeconfig).await.unwrap(), "managed");

    installed.kubectl(&["create", "-f", &hooks]).await.unwrap();
    let job = format!("job/{FULL_NAME}-cleanup");
    let wait = ["wait", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=120s", &job];
    installed.kubectl(&wait).await.unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    // Nothing holds up any of them, not even the CRD.
    installed.kubectl(&["delete", "-f", &objects, "--timeout=60s"]).await.unwrap();
    installed.kubectl(&["delete", "-f", &hooks, "--timeout=60s"]).await.unwrap();
}

/// The chart as if an earlier version of it had had a CRD without columns.
fn former_chart(dir: &Path) -> std::path::PathBuf {
    let former = dir.join("kyma-bindings");
    copy(&chart(), &former);
    let edit = |file: &str, edit: &dyn Fn(&str) -> String| {
        let path = former.join(file);
        let edited = edit(&fs::read_to_string(&path).unwrap());
        fs::write(path, edited).unwrap();
    };
    edit("files/crd.yaml", &|crd| {
        let (head, columns) = crd.split_once("  - additionalPrinterColumns:\n").unwrap();
        let (_, tail) = columns.split_once("\n    name: v1alpha1\n").unwrap();
        format!("{head}  - name: v1alpha1\n{tail}")
    });
    fs::remove_file(former.join("templates/lease.yaml")).unwrap();
    edit("Chart.yaml", &|chart| {
        chart.replace(&format!("\nversion: {}", env!("CARGO_PKG_VERSION")), "\nversion: 0.0.1")
    });
    former
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where the pods of a component are.
async fn nodes_of(installed: &Installed, component: &str) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/component={component}");
    let path = "jsonpath={.items[*].spec.nodeName}";
    let nodes = installed.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", &selector, "-o", path]).await?;
    Ok(nodes.split(' ').map(str::to_owned).collect())
}

/// How the operator's processes run, as the kernel has it.
async fn processes(installed: &Installed) -> Result<Vec<String>> {
    let script = r#"
        for process in /proc/[0-9]*; do
            [ "$(cat $process/comm)" = kyma-bindings ] || continue
            of() { sed -n "s/^$1:\t*\([^\t]*\).*/\1/p" $process/status; }
            root=$(awk '$2 == "/" { print substr($4, 1, 2) }' $process/mounts)
            echo "$(of Uid) caps=$(of CapBnd) no_new_privs=$(of NoNewPrivs) seccomp=$(of Seccomp) root=$root"
        done"#;
    Ok(installed.nodes().inside(script).await?.lines().map(str::to_owned).collect())
}

/// All that an account may do in a namespace.
async fn rights(installed: &Installed, account: &str, namespace: &str) -> Result<String> {
    let user = format!("--as=system:serviceaccount:{NAMESPACE}:{FULL_NAME}-{account}");
    let listed = installed.kubectl(&["auth", "can-i", "--list", "-n", namespace, &user]).await?;
    let mut lines: Vec<_> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines[1..].sort();
    Ok(lines.join("\n") + "\n")
}

/// All objects of all kinds, but for what the cluster makes by itself all the time, or of a CRD.
async fn all_objects(installed: &Installed) -> Result<Vec<String>> {
    let mut objects = Vec::new();
    for scope in ["true", "false"] {
        let namespaced = format!("--namespaced={scope}");
        let kinds = installed.kubectl(&["api-resources", "--verbs=list", "-o", "name", &namespaced]).await?;
        let transient = |kind: &&str| !kind.starts_with("events") && !kind.starts_with("apiservices");
        let kinds = kinds.lines().filter(transient).collect::<Vec<_>>().join(",");
        let listed = installed.kubectl(&["get", &kinds, "-A", "-o", "name"]).await?;
        // Each node renews one of its own.
        let ours =
            listed.lines().filter(|object| !object.starts_with("lease.coordination.k8s.io/apiserver-"));
        objects.extend(ours.map(str::to_owned));
    }
    Ok(objects)
}
