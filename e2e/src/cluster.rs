//! A Kubernetes cluster of one etcd and one kube-apiserver.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::Mutex;

use crate::apiserver::{ApiServer, StartError, compact_etcd, free_port, start_etcd, write_private};
use crate::binaries::Binaries;
use crate::eventually;
use crate::kubeconfig::{Credentials, render};
use crate::machine::{Door, NODE_ADDRESSES, Namespaces};
use crate::pki::Pki;
use crate::process::ManagedProcess;
use crate::workdir::WorkDir;

/// How often another port is tried when somebody took the chosen one.
const PORT_ATTEMPTS: usize = 5;
/// How long a process may take to disappear after `SIGKILL`.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How long the API server may take to find its etcd again.
const ETCD_DEADLINE: Duration = Duration::from_mins(1);

/// What a cluster has beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterOptions {
    /// Write an audit log at level `Metadata`, see [`Cluster::audit_log_path`].
    pub audit: bool,
}

/// A running cluster, with a directory, keys, and processes of its own.
///
/// May be put into a `static`: it belongs to no async runtime, and its processes and directory
/// go with the test process. Dropping it ends and removes them earlier.
pub struct Cluster {
    name: String,
    url: String,
    pki: Pki,
    admin: Config,
    kubeconfig: String,
    kubeconfig_path: PathBuf,
    kubectl: PathBuf,
    server: ApiServer,
    running: Mutex<Option<ManagedProcess>>,
    etcd: Mutex<Option<ManagedProcess>>,
    etcd_program: PathBuf,
    _door: Option<Door>,
    dir: Arc<WorkDir>,
}

impl Cluster {
    /// Starts a cluster without options and returns when it serves requests.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_with(name, ClusterOptions::default()).await
    }

    /// Starts a cluster and returns when it serves requests, after 60 s at the latest. The
    /// binaries may have to be built first, which comes on top.
    ///
    /// # Errors
    /// When `name` is no DNS label, there are no binaries, or the API server does not become
    /// ready; the error ends with its log.
    pub async fn start_with(name: &str, options: ClusterOptions) -> Result<Self> {
        Self::start_in(name, options, None).await
    }

    /// Starts a cluster whose API server is in the network of a node; this machine reaches it at the same
    /// port of its loopback interface.
    pub(crate) async fn start_in(
        name: &str,
        options: ClusterOptions,
        node: Option<Arc<Namespaces>>,
    ) -> Result<Self> {
        ensure!(is_dns_label(name), "{name:?} is not a DNS label");
        install_crypto_provider();
        let binaries = Binaries::find_or_build().await?;
        // Short: the path of a socket in it must stay below a hundred bytes.
        let dir = Arc::new(WorkDir::new(&format!("e2e-{name}"))?);
        let pki = Pki::generate(name)?;
        ApiServer::write_files(dir.path(), &pki)?;
        let admin = pki.client("admin", &["system:masters"])?;
        let credentials = Credentials::ClientCertificate(&admin);
        let etcd = start_etcd(&binaries.etcd, &dir)?;
        let mut server = ApiServer {
            program: binaries.kube_apiserver,
            dir: Arc::clone(&dir),
            port: 0,
            audit: options.audit,
            node,
        };
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port().context("no free port")?;
            let Ok(door) = server.node.as_ref().map(|node| node.door_at(server.port)).transpose() else {
                continue;
            };
            let url = format!("https://127.0.0.1:{}", server.port);
            let kubeconfig = render(name, &url, pki.ca_pem(), &credentials);
            let config = config_from(&kubeconfig).await?;
            let running = match server.start(config.clone()).await {
                Ok(process) => process,
                Err(StartError::PortTaken) => continue,
                Err(StartError::Failed(error)) => {
                    let etcd = etcd.log_tail(10);
                    return Err(error.context(format!("cluster {name}; etcd's log:\n{etcd}")));
                }
            };
            let kubeconfig_path = dir.path().join("admin.kubeconfig");
            write_private(&kubeconfig_path, &kubeconfig)?;
            return Ok(Self {
                name: name.to_owned(),
                url,
                pki,
                admin: config,
                kubeconfig,
                kubeconfig_path,
                kubectl: binaries.kubectl,
                server,
                running: Mutex::new(Some(running)),
                etcd: Mutex::new(Some(etcd)),
                etcd_program: binaries.etcd,
                _door: door,
                dir,
            });
        }
        bail!("cluster {name}: {PORT_ATTEMPTS} ports were taken by others")
    }

    /// The name given at the start; also the name of the context in its kubeconfigs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the API server, which stays the same when it is stopped and started.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate authority of the API server and of client certificates, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// Its keys and certificates.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The directory of the cluster, for files of a test; it goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new client with all rights. It belongs to the runtime that it is made in, so every
    /// test needs its own.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and when the TLS library refuses our own certificates.
    #[must_use]
    #[expect(clippy::panic, reason = "a test without its cluster has nothing to go on with")]
    pub fn client(&self) -> Client {
        match Client::try_from(self.admin.clone()) {
            Ok(client) => client,
            Err(error) => panic!("client of cluster {}: {error}", self.name),
        }
    }

    /// A kubeconfig with all rights and everything inline, YAML.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> String {
        self.kubeconfig.clone()
    }

    /// The file with [`Self::admin_kubeconfig`], readable by its owner only.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// A kubeconfig with a new client certificate for this user and at most two groups. It has
    /// no rights but those that RBAC in the cluster gives.
    ///
    /// # Errors
    /// When there are more groups, or signing fails.
    pub fn kubeconfig_for(&self, cn: &str, groups: &[&str]) -> Result<String> {
        let identity = self.pki.client(cn, groups)?;
        Ok(self.render(&Credentials::ClientCertificate(&identity)))
    }

    /// [`Self::admin_kubeconfig`] as it is of use in the network of nodes, where the API server has to be.
    #[must_use]
    pub fn admin_kubeconfig_for_pods(&self) -> String {
        self.kubeconfig.replace("127.0.0.1", NODE_ADDRESSES[0])
    }

    /// A kubeconfig with a bearer token, which need not be valid.
    #[must_use]
    pub fn token_kubeconfig(&self, token: &str) -> String {
        self.render(&Credentials::Token(token))
    }

    fn render(&self, credentials: &Credentials<'_>) -> String {
        render(&self.name, &self.url, self.ca_pem(), credentials)
    }

    /// Runs kubectl with all rights and returns its output.
    ///
    /// # Errors
    /// When it cannot be run or fails; the error has its standard error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.run_kubectl(&self.kubeconfig_path, args).await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {args:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs kubectl with a kubeconfig (YAML), such as one that was handed out. A refusal is not
    /// an error here: see the status and output.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn kubectl_as(&self, kubeconfig: &str, args: &[&str]) -> Result<Output> {
        let dir = WorkDir::new_in(self.dir(), "kubectl")?;
        let path = dir.path().join("kubeconfig");
        write_private(&path, kubeconfig)?;
        self.run_kubectl(&path, args).await
    }

    async fn run_kubectl(&self, kubeconfig: &Path, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(args.iter().map(OsString::from))
            // kubectl caches what an API server offers by host and port, which may be reused.
            .env("HOME", self.dir())
            .env_remove("KUBECACHEDIR")
            .env_remove("KUBECONFIG")
            .stdin(std::process::Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        output.context("cannot run kubectl")
    }

    /// The audit log, one JSON object a line; `None` when the cluster has none.
    #[must_use]
    pub fn audit_log_path(&self) -> Option<PathBuf> {
        self.server.audit.then(|| self.server.audit_log())
    }

    /// The process ids of etcd and the API server, while they run.
    pub async fn pids(&self) -> Vec<u32> {
        let (etcd, server) = (self.etcd.lock().await, self.running.lock().await);
        [&etcd, &server].into_iter().filter_map(|process| Some(process.as_ref()?.pid())).collect()
    }

    /// Kills etcd: the API server answers only what it remembers. What was written stays. Does
    /// nothing when it is stopped already.
    ///
    /// # Errors
    /// When the process does not disappear.
    pub async fn stop_etcd(&self) -> Result<()> {
        if let Some(process) = self.etcd.lock().await.take() {
            process.kill();
            process.wait(KILL_DEADLINE).await?;
        }
        Ok(())
    }

    /// Starts a stopped etcd again and returns when the API server, which must run, reads from it.
    /// Does nothing when it runs.
    ///
    /// # Errors
    /// When that is not so after 60 s.
    pub async fn start_etcd(&self) -> Result<()> {
        let mut etcd = self.etcd.lock().await;
        if etcd.is_none() {
            *etcd = Some(start_etcd(&self.etcd_program, &self.dir)?);
            let namespaces: Api<Namespace> = Api::all(self.client());
            // Without a resource version it is a read of etcd's own word.
            eventually("etcd to be read again", ETCD_DEADLINE, async || namespaces.get("default").await)
                .await?;
        }
        Ok(())
    }

    /// Has etcd forget all revisions but the latest, as it does by itself every five minutes: a
    /// watch that begins earlier is expired (410).
    ///
    /// # Errors
    /// When etcd doesn't do it.
    pub async fn compact_etcd(&self) -> Result<()> {
        compact_etcd(&self.dir).await
    }

    /// Kills the API server: connections break and new ones are refused. What etcd has stays.
    /// Does nothing when it is stopped already.
    ///
    /// # Errors
    /// When the process does not disappear.
    pub async fn stop_apiserver(&self) -> Result<()> {
        if let Some(process) = self.running.lock().await.take() {
            process.kill();
            process.wait(KILL_DEADLINE).await?;
        }
        Ok(())
    }

    /// Starts a stopped API server again on the same port and returns when it is ready. Does
    /// nothing when it runs.
    ///
    /// # Errors
    /// When it is not ready after 60 s, or somebody took its port.
    pub async fn start_apiserver(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(self.server.start(self.admin.clone()).await?);
        }
        Ok(())
    }

    /// Freezes the API server: it accepts connections and answers nothing.
    pub async fn pause_apiserver(&self) {
        self.signal_apiserver("STOP").await;
    }

    /// Lets a frozen API server go on.
    pub async fn resume_apiserver(&self) {
        self.signal_apiserver("CONT").await;
    }

    async fn signal_apiserver(&self, signal: &str) {
        if let Some(process) = self.running.lock().await.as_ref() {
            process.signal(signal);
        }
    }

    /// Ends the processes, removes the directory, and returns when both are gone. Nothing is
    /// flushed or saved, there is nobody left to read it.
    ///
    /// # Errors
    /// When a process does not disappear within ten seconds.
    pub async fn stop(self) -> Result<()> {
        self.stop_apiserver().await?;
        self.stop_etcd().await
    }
}

impl fmt::Debug for Cluster {
    /// Without keys: this ends up in the output of failed tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A client for any kubeconfig (YAML), such as one that was handed out. Proxies of the
/// environment are not used: test clusters are on the loopback interface.
///
/// # Errors
/// When the kubeconfig cannot be read.
pub async fn client_from(kubeconfig: &str) -> Result<Client> {
    install_crypto_provider();
    Ok(Client::try_from(config_from(kubeconfig).await?)?)
}

#[expect(clippy::disallowed_methods, reason = "a test's client of any cluster")]
pub(crate) async fn config_from(kubeconfig: &str) -> Result<Config> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.proxy_url = None;
    Ok(config)
}

/// Makes aws-lc-rs the process-wide provider of rustls, unless there is one already.
pub fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        // An error means that another provider was installed first, which works as well.
        let _ = provider.install_default();
    });
}

fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
