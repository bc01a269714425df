//! The only way to a client of a managed cluster: from an accepted kubeconfig, to an address that may
//! be connected to. Proxies and all else of the environment play no part.

use std::error::Error as StdError;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec::IntoIter;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

use super::address::{Policy, Refused};
use super::kubeconfig::{Access, Refusal};
use crate::kubernetes::direct::{self, Bounds, BoxError, Client};

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Most of an answer that is read, bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long the calls may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a TCP and TLS connection.
    pub connect: Duration,
    /// For a whole call.
    pub call: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), call: Duration::from_secs(5) }
    }
}

/// Makes the client that an accepted kubeconfig leads to.
///
/// # Errors
/// When its credentials can't be used.
pub fn client(access: &Access, policy: &Arc<Policy>, deadlines: Deadlines) -> Result<Client, Refusal> {
    let config = access.config();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let bounds = Bounds { connect: deadlines.connect, answer: MAX_ANSWER };
    direct::client(&config, Guarded::new(policy.clone(), port), bounds).map_err(|_| Refusal::Client)
}

/// Connects to what may be connected to.
#[derive(Clone)]
struct Guarded {
    http: HttpConnector<Judging>,
    judging: Judging,
}

/// Resolves names, and leaves out the addresses that are refused. Since the connection is made to
/// what comes out here, no later answer of the DNS can lead elsewhere.
#[derive(Clone)]
struct Judging {
    policy: Arc<Policy>,
    port: u16,
}

impl Guarded {
    fn new(policy: Arc<Policy>, port: u16) -> Self {
        let judging = Judging { policy, port };
        Self { http: direct::connector(judging.clone()), judging }
    }
}

impl Judging {
    /// Those of the addresses that may be connected to.
    async fn judge(&self, host: &str, addresses: Vec<IpAddr>) -> Result<Vec<SocketAddr>, BoxError> {
        let control_plane = match self.policy.control_plane() {
            // One that doesn't resolve is nowhere.
            Some((host, _)) => resolve(host).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let (mut good, mut refused) = (Vec::new(), None);
        for ip in addresses {
            let address = SocketAddr::new(ip, self.port);
            match self.policy.judge(host, address, &control_plane) {
                Ok(()) => good.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if good.is_empty() => Err(why.into()),
            _ => Ok(good),
        }
    }
}

/// A name has no address, or nobody can say which.
#[derive(Debug, thiserror::Error)]
#[error("the name can't be resolved")]
pub(super) struct Unresolved;

async fn resolve(host: &str) -> Result<Vec<IpAddr>, BoxError> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let found = GaiResolver::new().oneshot(host.parse::<Name>()?).await.map_err(|_| Unresolved)?;
    let found: Vec<_> = found.map(|address| address.ip()).collect();
    if found.is_empty() { Err(Unresolved.into()) } else { Ok(found) }
}

impl Service<Name> for Judging {
    type Response = IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let judging = self.clone();
        Box::pin(async move {
            let addresses = resolve(name.as_str()).await?;
            Ok(judging.judge(name.as_str(), addresses).await?.into_iter())
        })
    }
}

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        // A connector that was polled is used, not its clone.
        let (connecting, judging) = (self.http.call(server.clone()), self.judging.clone());
        Box::pin(async move {
            // An address is not resolved, so nobody else would judge it.
            let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
            if let Ok(ip) = host.parse() {
                judging.judge(host, vec![ip]).await?;
            }
            connecting.await.map_err(BoxError::from)
        })
    }
}

/// Why nothing was connected to, if that is what an error is about.
pub(super) fn refused(error: &(dyn StdError + 'static)) -> Option<Refused> {
    error.downcast_ref().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(allow: &str) -> Guarded {
        Guarded::new(Arc::new(Policy::new(&[allow.parse().unwrap()], None)), 9)
    }

    async fn why(allow: &str, server: &str) -> Option<Refused> {
        let error = guarded(allow).oneshot(server.parse().unwrap()).await.unwrap_err();
        let mut source: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
        while let Some(error) = source {
            if let Some(refused) = refused(error) {
                return Some(refused);
            }
            source = error.source();
        }
        None
    }

    #[tokio::test]
    async fn it_is_the_address_that_is_judged_whatever_the_name() {
        for server in
            ["https://localhost:9", "https://127.0.0.1:9", "https://[::1]:9", "https://[::ffff:127.0.0.1]:9"]
        {
            assert_eq!(why("", server).await, Some(Refused::Loopback), "{server}");
        }
        // Of Linux, not ours: shorter forms of an address are names, which resolve to it.
        for server in ["https://127.1:9", "https://2130706433:9", "https://0x7f.1:9"] {
            assert_eq!(why("", server).await, Some(Refused::Loopback), "{server}");
        }
        // Nobody listens there, but it was tried.
        for allow in ["127.0.0.0/8, ::1", "localhost"] {
            assert_eq!(why(allow, "https://localhost:9").await, None, "{allow}");
        }
    }

    /// A client from anywhere else would obey a proxy, or connect to any address.
    #[test]
    fn there_is_no_other_way_to_a_client() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster");
        let files = |folder: &std::path::Path| {
            let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            all.filter(|path| path.is_file()).collect::<Vec<_>>()
        };
        let mut seen = 0;
        for path in files(&here).into_iter().chain(files(&here.join("kubeconfig"))) {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let name = path.strip_prefix(&here).unwrap().to_str().unwrap();
            for (way, only) in [
                ("Client::try_from", None),
                ("Client::try_default", None),
                ("Client::new(", None),
                ("ClientBuilder", None),
                ("HttpConnector::new", None),
                ("direct::client(", Some("connect.rs")),
                ("direct::connector(", Some("connect.rs")),
                ("TcpStream::connect", None),
                ("Config::infer", None),
                ("Config::from", None),
                ("kube::Config::", Some("kubeconfig/mod.rs")),
            ] {
                let found = code.contains(way);
                assert!(!found || only == Some(name), "{way} in {name}");
                seen += usize::from(found);
            }
        }
        assert_eq!(seen, 3, "the ways that there are");
    }
}
