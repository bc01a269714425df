//! Shows what `helm install` gives: a cluster with nodes, the chart with the shipped image in it, a binding
//! through its Service, an upgrade under load, and what is left after it is uninstalled.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use e2e::installed::{INSTANCE, Installed, NAMESPACE, NEXT_TAG, RELEASE, under_load};
use e2e::playground::{Steps, say, seconds};
use e2e::stage::{prove, prove_refused};

/// Brings up a Kubernetes with two nodes on this machine, installs the operator by its Helm chart, uses it,
/// upgrades it under load and uninstalls it. Needs Rust, Go, Debian and root; nothing is left.
#[derive(Parser)]
#[command(name = "installed")]
struct Args {}

#[tokio::main]
async fn main() -> ExitCode {
    Args::parse();
    let ended = tokio::select! {
        ended = run() => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; what was started is removed")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let steps = Steps::default();
    let started = Instant::now();
    let up = |installed: &Installed| {
        let size = installed.image_size();
        format!("two nodes are up; the image has {:.1} MB, {:.1} MB unpacked", mb(size.0), mb(size.1))
    };
    let preparing = "building what is missing and starting two nodes";
    let installed = steps.step(preparing, Box::pin(Installed::prepare()), up).await?;
    let before = kinds_and_names(&installed).await?;
    let installing = installed.upgrade(&[]);
    steps
        .step("installing the chart", installing, |_| "the chart is installed, its pods are ready".to_owned())
        .await?;
    let tested = |_: &String| "helm test has passed".to_owned();
    steps.step("testing the release", installed.helm(&["test", RELEASE]), tested).await?;

    let broker = installed.broker().await?;
    let bind = async {
        let bound = broker.osb().bind(INSTANCE, "through-the-service", None).await?;
        ensure!(bound.status == 201, "{} {}", bound.status, bound.description());
        Ok(bound.kubeconfig()?.replace("https://10.77.0.1:", "https://127.0.0.1:"))
    };
    let bound = |_: &String| "PUT through the Service → 201".to_owned();
    let kubeconfig = steps.step("binding through the Service", bind, bound).await?;
    let proved = |cluster: &String| format!("its kubeconfig reads a Secret of the cluster {cluster}");
    steps.step("using the kubeconfig", prove(&kubeconfig), proved).await?;
    show(&installed).await?;

    let next = format!("image.tag={NEXT_TAG}");
    let sets = [next.as_str()];
    let upgrading = under_load(&installed, installed.upgrade(&sets));
    let upgraded = |(_, traffic): &(String, e2e::installed::Traffic)| {
        let lost = traffic.lost().len();
        format!("upgraded to another image under load: {} requests answered, {lost} lost", traffic.answered())
    };
    let (_, traffic) = steps.step("upgrading under load", Box::pin(upgrading), upgraded).await?;
    for lost in traffic.lost() {
        Steps::detail(&lost);
    }
    show(&installed).await?;

    let uninstalling = installed.helm(&["uninstall", RELEASE]);
    let said = steps.step("uninstalling", uninstalling, |_| "uninstalled".to_owned()).await?;
    for line in said.lines().filter(|line| !line.is_empty()) {
        Steps::detail(line);
    }
    let refused = |(): &()| "the kubeconfig is refused".to_owned();
    steps.step("using the kubeconfig again", prove_refused(&kubeconfig), refused).await?;
    say("\nWhat is left:");
    let left = kinds_and_names(&installed).await?;
    for object in left.difference(&before) {
        say(object);
    }
    drop(installed);
    say(&format!("All shown in {}; the nodes are removed.", seconds(started.elapsed())));
    Ok(())
}

async fn show(installed: &Installed) -> Result<()> {
    let pods = installed.kubectl(&["get", "pods,kb", "-n", NAMESPACE, "-o", "wide"]).await?;
    say(&format!("\n$ kubectl get pods,kb -n {NAMESPACE} -o wide\n{pods}"));
    Ok(())
}

/// All that a release may be made of.
async fn kinds_and_names(installed: &Installed) -> Result<BTreeSet<String>> {
    let kinds = "crd,deployments,services,configmaps,roles,rolebindings,serviceaccounts,secrets,leases,jobs,\
                 poddisruptionbudgets,networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let all = installed.kubectl(&["get", kinds, "-A", "-o", "name"]).await?;
    Ok(all.lines().map(str::to_owned).collect())
}

fn mb(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6
}
