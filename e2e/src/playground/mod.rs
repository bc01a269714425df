//! The playground: two real clusters, the operator, and proof that its kubeconfigs work.

mod access;
mod hints;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep, sleep_until};

use crate::apiserver::write_private;
use crate::osb::{Answer, Osb};
use crate::stage::{install_crd, prepare_managed, prove, prove_refused};
use crate::{Binaries, Cluster, Operator, Stage, WorkDir, operator};

pub use access::{Access, Auth};
pub use steps::{Steps, say, seconds};

/// What is offered: the ids that the playground's requests name.
const CATALOG: &str = "\
services:
- id: kyma
  name: kymaruntime
  description: Managed Kyma clusters
  plans:
  - {id: aws, name: aws, description: Kyma on Amazon Web Services}
";
/// The instance, the binding and the namespaces of the examples, which are applied as they are.
const BINDING_EXAMPLE: &str = include_str!("../../../examples/kymabinding.yaml");
const INSTANCE_EXAMPLE: &str = include_str!("../../../examples/instance-secret.yaml");
const INSTANCE: &str = "my-instance";
const APPLIED: &str = "my-binding";
const NAMESPACE: &str = "kyma-bindings";
const INSTANCE_NAMESPACE: &str = "kcp-system";

/// The binding that is made by HTTP, and stays.
const BY_HTTP: &str = "by-http";
/// How often a PUT and a DELETE are measured.
const MEASURED: usize = 50;
/// For so long after it has a new kind, an API server holds back every create of it, in case
/// that other API servers don't know the kind yet. Measured times must not have that in them.
const KIND_IS_NEW: Duration = Duration::from_secs(2);
/// Lifetime of what stays: longer than a look around takes.
const LIFETIME: i64 = 3600;

/// The control plane and a managed cluster.
pub struct Clusters {
    control: Cluster,
    managed: Cluster,
}

impl Clusters {
    /// Starts both at once.
    ///
    /// # Errors
    /// When a program is neither there nor can be built, or a cluster doesn't get ready.
    pub async fn start(steps: &Steps) -> Result<Self> {
        // Before the clusters, so that their time is not that of a build.
        let binaries = async { Ok(Binaries::find_or_build().await?) };
        steps
            .step("finding or building the programs of Kubernetes", binaries, |_| {
                "etcd, kube-apiserver and kubectl are there".to_owned()
            })
            .await?;
        let start = async {
            let (control, managed) =
                tokio::try_join!(Cluster::start("control-plane"), Cluster::start("managed"))?;
            Ok(Self { control, managed })
        };
        let done = |clusters: &Self| {
            let (control, managed) = (clusters.control.url(), clusters.managed.url());
            format!("two clusters are up: control plane {control}, managed {managed}")
        };
        steps.step("starting two clusters", Box::pin(start), done).await
    }

    /// Ends and removes both.
    ///
    /// # Errors
    /// When a process doesn't disappear.
    pub async fn stop(self) -> Result<()> {
        tokio::try_join!(self.control.stop(), self.managed.stop())?;
        Ok(())
    }
}

/// An operator with one instance.
pub struct Playground<'a> {
    clusters: &'a Clusters,
    stage: Stage<'a>,
    operator: Operator,
    access: Access,
    kubectl: PathBuf,
    dir: Arc<WorkDir>,
}

impl<'a> Playground<'a> {
    /// Installs the CRD, registers the instance and runs the operator, with its log in `dir`.
    ///
    /// # Errors
    /// When one of these fails.
    pub async fn start(
        steps: &Steps,
        clusters: &'a Clusters,
        dir: &Arc<WorkDir>,
        access: Access,
    ) -> Result<Self> {
        let kubectl = Binaries::find_or_build().await?.kubectl;
        let control = &clusters.control;
        steps
            .step("installing the CRD", install_crd(control), |()| {
                "the CRD kymabindings.bindings.kyma-project.io is installed".to_owned()
            })
            .await?;
        let old_enough = Instant::now() + KIND_IS_NEW;
        let register = async {
            prepare_managed(&clusters.managed).await?;
            let stage = Stage::with_namespaces(control, NAMESPACE, INSTANCE_NAMESPACE).await?;
            let manifest = dir.path().join("instance-secret.yaml");
            write_private(&manifest, &instance_manifest(&clusters.managed.admin_kubeconfig())?)?;
            // Server-side: else kubectl copies the kubeconfig into an annotation.
            control.kubectl(&["apply", "--server-side", "-f", &manifest.display().to_string()]).await?;
            std::fs::remove_file(&manifest)?;
            Ok(stage)
        };
        let stage = steps
            .step("registering an instance", register, |_| {
                format!(
                    "instance {INSTANCE} is registered: a labelled Secret with its kubeconfig in {INSTANCE_NAMESPACE}"
                )
            })
            .await?;
        let program = operator::this_program()?;
        let catalog = dir.path().join("catalog.yaml");
        std::fs::write(&catalog, CATALOG)?;
        let catalog = catalog.display().to_string();
        let mut args = vec!["--namespace", NAMESPACE, "--instance-namespace", INSTANCE_NAMESPACE];
        args.extend(["--catalog", &catalog]);
        args.extend(access.args.iter().map(String::as_str));
        let start = async {
            let operator = Operator::launch(dir, &program, control.kubeconfig_path(), &args).await?;
            operator.ready().await?;
            Ok(operator)
        };
        let done = |operator: &Operator| format!("the operator is ready: OSB API at {}/v2", operator.url());
        let operator = steps.step("starting the operator", start, done).await?;
        let wait = async {
            sleep_until(old_enough).await;
            Ok(())
        };
        let done = |(): &()| "the API server takes bindings without delay: their CRD is 2 s old".to_owned();
        steps.step("waiting for the API server", wait, done).await?;
        Ok(Self { clusters, stage, operator, access, kubectl, dir: Arc::clone(dir) })
    }

    /// Makes bindings in both ways, proves their kubeconfigs, and measures.
    ///
    /// # Errors
    /// When something isn't as promised.
    pub async fn prove(&self, steps: &Steps) -> Result<()> {
        let osb = self.access.osb(&self.operator);
        let put = async {
            let answer = expect(201, osb.bind(INSTANCE, BY_HTTP, Some(LIFETIME)).await?)?;
            let kubeconfig = answer.kubeconfig()?.to_owned();
            let expires_at = answer.body["metadata"]["expires_at"].as_str().unwrap_or_default().to_owned();
            Ok((kubeconfig, expires_at))
        };
        let (by_http, _) = steps
            .step("making a binding by HTTP", put, |(_, expires)| {
                format!("binding {BY_HTTP}: made by HTTP, PUT → 201, expires at {expires}")
            })
            .await?;
        self.keep(steps, BY_HTTP, &by_http).await?;

        let manifest = self.dir.path().join("kymabinding.yaml");
        write_private(&manifest, BINDING_EXAMPLE)?;
        let apply = async {
            self.clusters.control.kubectl(&["apply", "-f", &manifest.display().to_string()]).await?;
            let kubeconfig = self.stage.ready(APPLIED).await?;
            let expires_at = self.stage.bindings().get(APPLIED).await?.expires_at();
            Ok((kubeconfig, expires_at.context("the status has no expiresAt")?))
        };
        let (applied, _) = steps
            .step("making a binding with kubectl apply", apply, |(_, expires)| {
                format!("binding {APPLIED}: made with kubectl apply, Ready, expires at {expires}")
            })
            .await?;
        self.keep(steps, APPLIED, &applied).await?;

        self.revoke(steps, &osb).await?;
        self.measure(steps, &osb).await
    }

    /// Proves a kubeconfig and writes it to a file.
    async fn keep(&self, steps: &Steps, binding: &str, kubeconfig: &str) -> Result<()> {
        let path = self.file_of(binding);
        let proof = async {
            self.prove_reads(kubeconfig).await?;
            write_private(&path, kubeconfig)
        };
        let done =
            |(): &()| format!("binding {binding}: its kubeconfig reads a Secret in the managed cluster");
        steps.step("proving a kubeconfig", proof, done).await?;
        Steps::detail(&format!("kept in {}", path.display()));
        Ok(())
    }

    async fn prove_reads(&self, kubeconfig: &str) -> Result<()> {
        let (seen, managed) = (prove(kubeconfig).await?, self.clusters.managed.name());
        ensure!(seen == managed, "the kubeconfig leads to the cluster {seen}, not to {managed}");
        Ok(())
    }

    /// Shows that a DELETE ends the access.
    async fn revoke(&self, steps: &Steps, osb: &Osb) -> Result<()> {
        let binding = "to-delete";
        let revoke = async {
            let answer = expect(201, osb.bind(INSTANCE, binding, None).await?)?;
            let kubeconfig = answer.kubeconfig()?;
            self.prove_reads(kubeconfig).await?;
            expect(200, osb.unbind(INSTANCE, binding).await?)?;
            prove_refused(kubeconfig).await
        };
        steps
            .step("proving that a DELETE ends the access", revoke, |()| {
                format!("binding {binding}: PUT → 201, works; DELETE → 200, the same kubeconfig is refused")
            })
            .await
    }

    /// Measures PUT and DELETE, one binding after the other.
    async fn measure(&self, steps: &Steps, osb: &Osb) -> Result<()> {
        let measure = async {
            let mut times = (Vec::new(), Vec::new());
            for number in 1..=MEASURED {
                let binding = format!("measured-{number}");
                let started = Instant::now();
                expect(201, osb.bind(INSTANCE, &binding, None).await?)?;
                times.0.push(started.elapsed());
                let started = Instant::now();
                expect(200, osb.unbind(INSTANCE, &binding).await?)?;
                times.1.push(started.elapsed());
                steps.count(number, MEASURED);
            }
            Ok((Spread::of(times.0)?, Spread::of(times.1)?))
        };
        let (put, delete) = steps
            .step("measuring", measure, |_| {
                format!("{MEASURED} bindings made and deleted by HTTP, one after the other")
            })
            .await?;
        Steps::detail(&format!("PUT    → 201  {put}"));
        Steps::detail(&format!("DELETE → 200  {delete}"));
        if cfg!(debug_assertions) {
            Steps::detail("(an unoptimized build that logs everything; try cargo run --release)");
        }
        Ok(())
    }

    /// Ends only when the operator does, which it never should.
    ///
    /// # Errors
    /// Always: the operator doesn't answer any more.
    pub async fn watch(&self) -> Result<()> {
        loop {
            sleep(Duration::from_secs(2)).await;
            self.operator.admin("/livez").await.context("the operator doesn't answer any more")?;
        }
    }

    /// Ends the operator as Kubernetes would.
    ///
    /// # Errors
    /// When it takes longer than it promises, or doesn't end with success.
    pub async fn stop(self) -> Result<()> {
        self.operator.terminate().await
    }

    fn file_of(&self, binding: &str) -> PathBuf {
        self.dir.path().join(format!("{binding}.kubeconfig"))
    }
}

/// The example with the kubeconfig of a cluster that exists.
fn instance_manifest(kubeconfig: &str) -> Result<String> {
    let key = "  config: |\n";
    let (head, _) = INSTANCE_EXAMPLE.split_once(key).context("the example has no kubeconfig")?;
    let indented = kubeconfig.lines().map(|line| format!("    {line}\n"));
    Ok([head, key].into_iter().map(str::to_owned).chain(indented).collect())
}

fn expect(status: u16, answer: Answer) -> Result<Answer> {
    if answer.status != status {
        // Never the body: that of another success has a kubeconfig.
        bail!("expected {status}, got {}: {}", answer.status, answer.description());
    }
    Ok(answer)
}

/// How far measured times are apart.
struct Spread {
    median: Duration,
    least: Duration,
    most: Duration,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Result<Self> {
        times.sort_unstable();
        let (least, most) = times.first().zip(times.last()).context("nothing was measured")?;
        let middle = (times.len() - 1) / 2;
        let median = (times[middle] + times[times.len() / 2]) / 2;
        Ok(Self { median, least: *least, most: *most })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, least, most) = (ms(self.median), ms(self.least), ms(self.most));
        write!(f, "p50 {median:.1} ms (fastest {least:.1} ms, slowest {most:.1} ms)")
    }
}

/// The end of the operator's log in `dir`, for the reader of an error; `None` without one.
#[must_use]
pub fn log_tail(dir: &WorkDir) -> Option<String> {
    let log = std::fs::read_to_string(dir.path().join("operator.log")).ok()?;
    // What it logs at each step of normal work would push out the lines that matter.
    let matters = |line: &&str| !line.contains(r#""level":"TRACE""#) && !line.contains(r#""level":"DEBUG""#);
    let mut tail: Vec<_> = log.lines().rev().filter(matters).take(15).collect();
    tail.reverse();
    (!tail.is_empty()).then(|| tail.join("\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_what_the_playground_applies() {
        assert!(BINDING_EXAMPLE.contains(&format!("\n  name: {APPLIED}\n")));
        assert!(BINDING_EXAMPLE.contains(&format!("\n  namespace: {NAMESPACE}\n")));
        assert!(BINDING_EXAMPLE.contains(&format!("\n  instanceId: {INSTANCE}\n")));
        assert!(INSTANCE_EXAMPLE.contains(&format!("\n  namespace: {INSTANCE_NAMESPACE}\n")));
        assert!(INSTANCE_EXAMPLE.contains(&format!("\n    kyma-project.io/instance-id: {INSTANCE}\n")));
    }

    #[test]
    fn a_kubeconfig_takes_the_place_of_the_example() {
        let manifest = instance_manifest("a: b\nc: d\n").unwrap();
        assert!(manifest.ends_with("\n  config: |\n    a: b\n    c: d\n"), "{manifest}");
    }

    #[test]
    fn the_median_is_that_of_the_sorted_times() {
        let times = [40, 10, 30, 20].map(Duration::from_millis).to_vec();
        assert_eq!(Spread::of(times).unwrap().to_string(), "p50 25.0 ms (fastest 10.0 ms, slowest 40.0 ms)");
    }
}
