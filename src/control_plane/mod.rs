//! How the operator gets to its own control plane.

pub mod objects;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::USER_AGENT;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::direct::{self, AGENT, Bounds};

/// The answer is one object, and etcd takes none of more than 1.5 MiB.
const BOUNDS: Bounds = Bounds { connect: Duration::from_secs(5), answer: 8 * 1024 * 1024 };

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// That file.
    // A parser's text would quote the file's lines, which hold keys: it ends here.
    #[error("--kubeconfig {0} can't be used: it must be a kubeconfig whose current context is complete")]
    Kubeconfig(PathBuf),
    /// There is nothing to find it by.
    #[error(
        "neither KUBECONFIG nor ~/.kube/config is a kubeconfig that can be used, \
         and this is no pod with an account; give --kubeconfig"
    )]
    Infer,
    /// It would be reached through a proxy.
    #[error(
        "the control plane's kubeconfig has a proxy-url, which is not supported: name a server in it that can be \
         reached without a proxy; those of the environment are not used"
    )]
    Proxy,
    /// Its credentials.
    #[error("the control plane's kubeconfig has credentials or certificates that can't be used")]
    Client,
}

/// The ways to the control plane.
pub struct Connected {
    /// kube's: for watches, lists and what is rare.
    pub client: Client,
    config: Config,
}

impl Connected {
    /// A client for what somebody waits for: see [`objects`].
    ///
    /// # Errors
    /// When the credentials can't be used.
    pub fn direct(&self) -> Result<direct::Client, ConnectError> {
        direct::client(&self.config, direct::connector(GaiResolver::new()), BOUNDS)
            .map_err(|_| ConnectError::Client)
    }

    /// URL of the API server.
    #[must_use]
    pub fn url(&self) -> &Uri {
        &self.config.cluster_url
    }
}

/// Gets ready for calls to the control plane: by that kubeconfig, or as kubectl and pods find theirs.
///
/// # Errors
/// When there is none, or it can't be used.
#[expect(clippy::disallowed_methods, reason = "the control plane's account is the environment's to give")]
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Connected, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let refused = || ConnectError::Kubeconfig(path.to_owned());
            let file = Kubeconfig::read_from(path).map_err(|_| refused())?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|_| refused())?
        }
        // Not `Config::infer`: it lets variables for debugging lead elsewhere, with our credentials.
        None => match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => config,
            Err(_) => Config::incluster().map_err(|_| ConnectError::Infer)?,
        },
    };
    // kube takes it for the kubeconfig's, and knows no NO_PROXY without a proxy to use.
    let of_environment = |name: &str| std::env::var(name).ok()?.parse::<Uri>().ok();
    let mut found = ["HTTPS_PROXY", "https_proxy"].into_iter().filter_map(of_environment);
    if found.any(|proxy| config.proxy_url.as_ref() == Some(&proxy)) {
        config.proxy_url = None;
    }
    if config.proxy_url.is_some() {
        return Err(ConnectError::Proxy);
    }
    // Retries are ours: kube's own may keep one call for minutes.
    config.default_retry = false;
    config.headers.push((USER_AGENT, AGENT));
    let client = Client::try_from(config.clone()).map_err(|_| ConnectError::Client)?;
    Ok(Connected { client, config })
}
