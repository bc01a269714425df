//! The kube-apiserver of a cluster: its files, its flags, its port and when it is ready.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, ops::Range};

use anyhow::{Context, Result, anyhow};
use http::Request;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::eventually;
use crate::machine::{NODE_ADDRESSES, Namespaces};
use crate::pki::Pki;
use crate::process::ManagedProcess;
use crate::workdir::WorkDir;

/// How long a cluster may take until it is ready.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Below the ports that Linux and macOS give to outgoing connections: one of those must not
/// take the port of an API server that is stopped and will come back.
const PORTS: Range<u16> = 20_000..32_000;
/// Of Services where there are nodes, and its first address, which is the API server's.
const SERVICE_NETWORK: &str = "10.96.0.0/16";
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// Metadata of every finished request.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Why an API server did not start.
pub(crate) enum StartError {
    /// Somebody else listens on the port by now.
    PortTaken,
    /// Anything else, with the end of the log.
    Failed(anyhow::Error),
}

impl From<StartError> for anyhow::Error {
    fn from(error: StartError) -> Self {
        match error {
            StartError::PortTaken => anyhow!("the port of the API server is taken"),
            StartError::Failed(error) => error,
        }
    }
}

/// What is needed to start the API server of a cluster again and again.
pub(crate) struct ApiServer {
    pub program: PathBuf,
    pub dir: Arc<WorkDir>,
    pub port: u16,
    pub audit: bool,
    /// In whose network it listens, for kubelets and pods, if not in this machine's.
    pub node: Option<Arc<Namespaces>>,
}

impl ApiServer {
    /// Writes the keys and certificates into the directory of the cluster.
    pub fn write_files(dir: &Path, pki: &Pki) -> Result<()> {
        let server = pki.server_at(&[SERVICE_ADDRESS, NODE_ADDRESSES[0], NODE_ADDRESSES[1]])?;
        let kubelet_client = pki.client("kube-apiserver", &["system:masters"])?;
        for (name, content) in [
            ("ca.crt", pki.ca_pem()),
            ("server.crt", &server.cert_pem),
            ("server.key", &server.key_pem),
            ("kubelet-client.crt", &kubelet_client.cert_pem),
            ("kubelet-client.key", &kubelet_client.key_pem),
            ("service-accounts.key", &pki.service_account_key_pem()),
            ("service-accounts.pub", &pki.service_account_public_pem()),
            ("audit-policy.yaml", AUDIT_POLICY),
        ] {
            write_private(&dir.join(name), content)?;
        }
        Ok(())
    }

    /// The file with one JSON object per audited request.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    /// Starts the server and returns when it serves requests of `admin`.
    pub async fn start(&self, admin: Config) -> Result<ManagedProcess, StartError> {
        let failed = |error: anyhow::Error| StartError::Failed(error);
        let server = ManagedProcess::spawn("kube-apiserver", &self.command(), &self.dir)
            .map_err(|e| failed(e.into()))?;
        let client = Client::try_from(admin).map_err(|e| failed(e.into()))?;
        let ready = eventually("kube-apiserver to be ready", READY_DEADLINE, async || probe(&client).await);
        // Not only between probes: a stranger on the port may keep one waiting for long.
        let error = tokio::select! {
            ready = ready => match ready {
                Ok(()) => return Ok(server),
                Err(timed_out) => timed_out.into(),
            },
            Ok(exit) = server.wait(READY_DEADLINE) => {
                if server.log().contains("address already in use") {
                    // The next attempt must not find this message.
                    let _ = fs::remove_file(server.log_path());
                    return Err(StartError::PortTaken);
                }
                anyhow!("kube-apiserver ended with {exit} before it was ready")
            }
        };
        let tail = server.log_tail(30);
        Err(failed(error.context(format!("kube-apiserver's log:\n{tail}"))))
    }

    fn command(&self) -> Command {
        let dir = self.dir.path();
        let mut command = match &self.node {
            None => Command::new(&self.program),
            Some(node) => node.in_network(&self.program),
        };
        let mut flag = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        let file = |name: &str| dir.join(name).display().to_string();
        flag("etcd-servers", &format!("unix:{}", file(ETCD_SOCKET)));
        flag("secure-port", &self.port.to_string());
        flag("tls-cert-file", &file("server.crt"));
        flag("tls-private-key-file", &file("server.key"));
        flag("client-ca-file", &file("ca.crt"));
        flag("service-account-issuer", "https://kubernetes.default.svc");
        flag("service-account-signing-key-file", &file("service-accounts.key"));
        flag("service-account-key-file", &file("service-accounts.pub"));
        if self.node.is_some() {
            flag("bind-address", "0.0.0.0");
            flag("advertise-address", NODE_ADDRESSES[0]);
            flag("authorization-mode", "Node,RBAC");
            flag("service-cluster-ip-range", SERVICE_NETWORK);
            flag("kubelet-client-certificate", &file("kubelet-client.crt"));
            flag("kubelet-client-key", &file("kubelet-client.key"));
            flag("kubelet-certificate-authority", &file("ca.crt"));
            flag("kubelet-preferred-address-types", "InternalIP");
            // Controllers look for it without end; nobody has a certificate of this name.
            flag("requestheader-client-ca-file", &file("ca.crt"));
            flag("requestheader-allowed-names", "front-proxy");
        } else {
            flag("bind-address", "127.0.0.1");
            // Without these the server looks for a default route, and refuses to start offline.
            flag("advertise-address", "127.0.0.1");
            flag("endpoint-reconciler-type", "none");
            flag("authorization-mode", "RBAC");
            // Pods would wait for a token controller, which does not run here.
            flag("disable-admission-plugins", "ServiceAccount");
            flag("service-cluster-ip-range", "10.0.0.0/24");
        }
        flag("profiling", "false");
        if self.audit {
            flag("audit-policy-file", &file("audit-policy.yaml"));
            flag("audit-log-path", &self.audit_log().display().to_string());
        }
        command.current_dir(dir);
        command
    }
}

/// The name of etcd's socket in the directory of a cluster. etcd wants `host:port` even of a
/// socket, and so creates a file of this name in its current directory.
const ETCD_SOCKET: &str = "etcd:1";

/// Starts the etcd of a cluster in `dir`, without any TCP port: nothing to collide with.
pub(crate) fn start_etcd(program: &Path, dir: &Arc<WorkDir>) -> Result<ManagedProcess> {
    let client = format!("unix://{ETCD_SOCKET}");
    let peer = "unix://peer:1";
    let mut command = Command::new(program);
    command
        .args(["--name=test", "--data-dir=etcd", "--log-level=warn"])
        // The data is gone with the cluster, so it need not survive a power cut.
        .arg("--unsafe-no-fsync")
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=test={peer}"))
        .current_dir(dir.path());
    // etcd reads every flag from the environment, too: a stray variable must not matter.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    ManagedProcess::spawn("etcd", &command, dir).context("etcd")
}

/// Asks etcd by its JSON gateway, over its socket.
pub(crate) async fn compact_etcd(dir: &WorkDir) -> Result<()> {
    let etcd = reqwest::Client::builder().unix_socket(dir.path().join(ETCD_SOCKET)).build()?;
    let ask = async |path: &str, body: Value| -> Result<Value> {
        let answer = etcd.post(format!("http://etcd{path}")).body(body.to_string()).send().await?;
        Ok(serde_json::from_str(&answer.error_for_status()?.text().await?)?)
    };
    // Any key will do: each answer has the revision of the whole.
    let now = ask("/v3/kv/range", json!({"key": "AA=="})).await?;
    ask("/v3/kv/compaction", json!({"revision": now["header"]["revision"], "physical": true})).await?;
    Ok(())
}

/// Ready includes the namespace that tests use at once: a hook creates it after `/readyz`.
async fn probe(client: &Client) -> Result<()> {
    for path in ["/readyz", "/api/v1/namespaces/default"] {
        let request = Request::get(path).body(Vec::new())?;
        client.request_text(request).await.context(path)?;
    }
    Ok(())
}

/// A port of the loopback interface which nobody listens on right now.
pub(crate) fn free_port() -> io::Result<u16> {
    let span = u64::from(PORTS.end - PORTS.start);
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..100 {
        // Random, not counting up: several test processes pick ports at the same time.
        let offset = RandomState::new().build_hasher().finish() % span;
        let port = PORTS.start + u16::try_from(offset).unwrap_or_default();
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
