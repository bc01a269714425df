//! The operator as its users have it: the chart, installed by Helm into a cluster with nodes, from the
//! image that is shipped.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::Api;
use kube::api::PostParams;
use reqwest::Method;
use serde_json::json;

use crate::eventually;
use crate::helm::{chart, helm};
use crate::image::{Architecture, Written, operator};
use crate::machine::Door;
use crate::node::NodeCluster;
use crate::stage::prepare_managed;
use crate::{Cluster, Osb, Stage};

/// The release, and the namespaces that it is given.
pub const RELEASE: &str = "kb";
/// Of bindings and operator.
pub const NAMESPACE: &str = "kyma-bindings";
/// Of instances.
pub const INSTANCE_NAMESPACE: &str = "kcp-system";
/// The instance that there is.
pub const INSTANCE: &str = "my-instance";
/// What objects of the release are called.
pub const FULL_NAME: &str = "kb-kyma-bindings";

const REPOSITORY: &str = "node.local/kyma-bindings";
/// A second name of the same image: what an upgrade goes to.
pub const NEXT_TAG: &str = "next";
const USERS: &str = "kyma-bindings-users";
const USER: &str = "platform";
const COST: u32 = 6;
/// How long Helm waits for pods.
const PATIENCE: &str = "--timeout=120s";

/// A cluster with nodes that have the image, an instance on another cluster, and maybe the release.
pub struct Installed {
    nodes: NodeCluster,
    managed: Cluster,
    password: String,
    image: Written,
}

impl Installed {
    /// Brings all up but the release. The program may have to be built first, which takes minutes.
    ///
    /// # Errors
    /// When the machine isn't made for nodes, or something doesn't get ready.
    pub async fn prepare() -> Result<Self> {
        let architecture = Architecture::here().context("there is no image for this processor")?;
        let program = tokio::task::spawn_blocking(move || operator::build(architecture)).await??;
        let nodes = NodeCluster::start("installed").await?;
        let managed = nodes.neighbour("managed").await?;
        prepare_managed(&managed).await?;
        let give = async |tag: &str| {
            let image = operator::image(&format!("{REPOSITORY}:{tag}"), architecture, &program)?;
            let tar = nodes.cluster().dir().join("operator.tar");
            let written = image.write(File::create(&tar)?)?;
            nodes.import(&tar).await?;
            anyhow::Ok(written)
        };
        let image = give(env!("CARGO_PKG_VERSION")).await?;
        give(NEXT_TAG).await?;
        let stage = Stage::with_namespaces(nodes.cluster(), NAMESPACE, INSTANCE_NAMESPACE).await?;
        stage.register(INSTANCE, "my-runtime", &managed.admin_kubeconfig_for_pods()).await?;
        let password = format!("{:032x}", rand::random::<u128>());
        let secrets: Api<Secret> = stage.secrets();
        let users: Secret = serde_json::from_value(json!({
            "metadata": {"name": USERS},
            "stringData": {"htpasswd": format!("{USER}:{}\n", bcrypt::hash(&password, COST)?)},
        }))?;
        secrets.create(&PostParams::default(), &users).await?;
        drop(stage);
        Ok(Self { nodes, managed, password, image })
    }

    /// The cluster with nodes.
    #[must_use]
    pub fn nodes(&self) -> &NodeCluster {
        &self.nodes
    }

    /// Bytes of the image: as it is pulled, and unpacked.
    #[must_use]
    pub fn image_size(&self) -> (usize, usize) {
        (self.image.compressed, self.image.unpacked)
    }

    /// The instance's cluster.
    #[must_use]
    pub fn managed(&self) -> &Cluster {
        &self.managed
    }

    /// Bindings and instances.
    #[must_use]
    pub fn stage(&self) -> Stage<'_> {
        Stage::existing(self.nodes.cluster(), NAMESPACE, INSTANCE_NAMESPACE)
    }

    /// kubectl, with all rights.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.nodes.cluster().kubectl(args).await
    }

    /// Helm in the namespace of the release; returns all that it says.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let kubeconfig = self.nodes.cluster().kubeconfig_path();
        let output = helm(kubeconfig, &[args, &["--namespace", NAMESPACE]].concat()).await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "helm {args:?}: {said}");
        Ok(said)
    }

    /// Installs or upgrades the release from the chart, and waits until its pods are ready.
    ///
    /// # Errors
    /// When Helm fails.
    pub async fn upgrade(&self, sets: &[&str]) -> Result<String> {
        self.upgrade_to(&chart(), sets).await
    }

    /// The same from another chart.
    ///
    /// # Errors
    /// When Helm fails.
    pub async fn upgrade_to(&self, chart: &Path, sets: &[&str]) -> Result<String> {
        self.on_chart(&["upgrade", "--install", "--wait", PATIENCE, RELEASE], chart, sets).await
    }

    /// What Helm would install, without a release.
    ///
    /// # Errors
    /// When Helm fails.
    pub async fn rendered(&self) -> Result<String> {
        self.on_chart(&["template", RELEASE], &chart(), &[]).await
    }

    async fn on_chart(&self, what: &[&str], chart: &Path, sets: &[&str]) -> Result<String> {
        let chart = chart.to_str().context("the path of the chart")?;
        let repository = format!("image.repository={REPOSITORY}");
        let users = format!("auth.basic.existingSecret={USERS}");
        let access = ["auth.methods={basic}", "auth.basic.allowWithoutTls=true", &users, &repository];
        let sets = access.iter().chain(sets).flat_map(|set| ["--set", set]);
        self.helm(&what.iter().copied().chain([chart]).chain(sets).collect::<Vec<_>>()).await
    }

    /// A way to the release's Service, and a client of it who is let in.
    ///
    /// # Errors
    /// When there is no such Service.
    pub async fn broker(&self) -> Result<Broker> {
        let services: Api<Service> = Api::namespaced(self.nodes.cluster().client(), NAMESPACE);
        let spec = services.get(FULL_NAME).await?.spec.context("the Service has no spec")?;
        let address: IpAddr = spec.cluster_ip.context("the Service has no address")?.parse()?;
        let door = self.nodes.door(SocketAddr::new(address, 80))?;
        let url = format!("http://{}", door.address());
        Ok(Broker { url, password: self.password.clone(), _door: door })
    }

    /// The pod that leads.
    ///
    /// # Errors
    /// When none does.
    pub async fn leader(&self) -> Result<String> {
        let holder = ["get", "lease", "-n", NAMESPACE, "-o", "jsonpath={.items[0].spec.holderIdentity}"];
        let holder = self.kubectl(&holder).await?;
        let pods = self.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).await?;
        let names = pods.lines().filter_map(|pod| pod.strip_prefix("pod/"));
        let leader = names.filter(|name| holder.contains(name)).max_by_key(|name| name.len());
        leader.map(str::to_owned).with_context(|| format!("{holder} is none of {pods}"))
    }

    /// Kills the container of a pod as a crash would.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        let path = "jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}";
        let found = self.kubectl(&["get", "pod", "-n", NAMESPACE, pod, "-o", path]).await?;
        let Some((node, container)) = found.split_once(" containerd://") else {
            bail!("pod {pod} has no container yet: {found}")
        };
        self.nodes.kill_container(node, container).await
    }
}

/// The API behind the Service.
pub struct Broker {
    url: String,
    password: String,
    _door: Door,
}

impl Broker {
    /// A client that keeps its connections.
    #[must_use]
    pub fn osb(&self) -> Osb {
        Osb::new(&self.url).with_basic(USER, &self.password)
    }

    /// A client that makes a connection for each request, and so meets any pod.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn hasty(&self) -> Result<Osb> {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(Osb::over(&self.url, client).with_basic(USER, &self.password))
    }
}

/// What a steady load has met.
#[derive(Debug, Default)]
pub struct Traffic {
    over: AtomicBool,
    answered: AtomicUsize,
    repeated: AtomicUsize,
    lost: std::sync::Mutex<Vec<String>>,
}

impl Traffic {
    /// Binds, fetches and unbinds one binding after the other until [`Self::end`]. A request is repeated only
    /// where HTTP lets a client do so by itself: all of these are idempotent, and a server may end a connection that
    /// is kept at the moment at which it is used again (RFC 9110, 9.2.2; RFC 9112, 9.5).
    pub async fn flow(&self, osb: &Osb, lane: usize) {
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            turn += 1;
            let binding = format!("traffic-{lane}-{turn}");
            let path = format!("/v2/service_instances/{INSTANCE}/service_bindings/{binding}");
            let ids = "service_id=kyma&plan_id=aws";
            let body = json!({"service_id": "kyma", "plan_id": "aws"}).to_string();
            for (method, query, body, all) in [
                (Method::PUT, "", Some(body), [201, 200]),
                (Method::GET, "", None, [200, 200]),
                (Method::DELETE, ids, None, [200, 410]),
            ] {
                let what = format!("{method} {binding}");
                let ask =
                    async || osb.request(method.clone(), &format!("{path}?{query}"), body.clone()).await;
                let (mut answer, mut expected) = (ask().await, &all[..1]);
                if answer
                    .as_ref()
                    .is_err_and(|error| format!("{error:#}").contains("connection closed before"))
                {
                    self.repeated.fetch_add(1, Ordering::Relaxed);
                    (answer, expected) = (ask().await, &all[..]);
                }
                match answer {
                    Ok(answer) if expected.contains(&answer.status) => {
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) => self.lose(format!("{what}: {} {}", answer.status, answer.description())),
                    Err(error) => self.lose(format!("{what}: {error:#}")),
                }
            }
        }
    }

    /// Lets all lanes come to their end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// How many requests got the answer that they should get.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were asked twice.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated.load(Ordering::Relaxed)
    }

    /// What became of the others.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.lost.lock().map(|lost| lost.clone()).unwrap_or_default()
    }

    fn lose(&self, what: String) {
        if let Ok(mut lost) = self.lost.lock() {
            lost.push(what);
        }
    }
}

/// Does something under a load of two lanes with connections that stay, and two without, and returns what
/// the load has met.
///
/// # Errors
/// What is done fails with, or that there is no way to the Service.
pub async fn under_load<T>(
    installed: &Installed,
    act: impl Future<Output = Result<T>>,
) -> Result<(T, Traffic)> {
    let broker = installed.broker().await?;
    let traffic = Traffic::default();
    let (steady, hasty) = (broker.osb(), broker.hasty()?);
    // Pods are ready a moment before the Service leads to them.
    eventually("the Service to lead to its pods", Duration::from_secs(20), async || {
        for _ in 0..10 {
            hasty.fetch(INSTANCE, "traffic-nobody").await?;
        }
        anyhow::Ok(())
    })
    .await?;
    let lanes = [&steady, &steady, &hasty, &hasty].into_iter().enumerate();
    let lanes = futures::future::join_all(lanes.map(|(lane, osb)| traffic.flow(osb, lane)));
    let acting = async {
        let done = tokio::time::timeout(Duration::from_mins(3), act).await;
        traffic.end();
        done
    };
    let (done, _) = tokio::join!(acting, lanes);
    Ok((done.context("it takes longer than three minutes")??, traffic))
}
