//! How the operator gets to its own control plane.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::USER_AGENT;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::kubernetes::direct::{self, AGENT, Bounds};

/// The answer is one object, and etcd takes none of more than 1.5 MiB.
const BOUNDS: Bounds = Bounds { connect: Duration::from_secs(5), answer: 8 * 1024 * 1024 };

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// That file is not there, or not for us.
    #[error("--kubeconfig {0} can't be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// That file's content.
    #[error("--kubeconfig {0} can't be used: {1}")]
    Kubeconfig(PathBuf, &'static str),
    /// There is nothing to find it by.
    #[error(
        "neither KUBECONFIG nor ~/.kube/config is a kubeconfig that can be used ({0}), \
         and this is no pod with an account; give --kubeconfig"
    )]
    Infer(String),
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
            let refused = |error| match error {
                KubeconfigError::ReadConfig(error, _) => ConnectError::Unreadable(path.to_owned(), error),
                error => ConnectError::Kubeconfig(path.to_owned(), lack(&error)),
            };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(refused)?
        }
        // Not `Config::infer`: it lets variables for debugging lead elsewhere, with our credentials.
        None => match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => config,
            Err(error) => Config::incluster().map_err(|_| {
                ConnectError::Infer(match &error {
                    KubeconfigError::ReadConfig(error, path) => format!("{}: {error}", path.display()),
                    other => lack(other).to_owned(),
                })
            })?,
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

/// What a kubeconfig lacks. A parser's text would quote the file's lines, which hold keys: it ends here.
fn lack(error: &KubeconfigError) -> &'static str {
    match error {
        KubeconfigError::CurrentContextNotSet => "it must have a current-context",
        KubeconfigError::LoadContext(_) => "its current-context must be one of its contexts",
        KubeconfigError::LoadClusterOfContext(_) => {
            "the cluster of its current context must be one of its clusters"
        }
        KubeconfigError::MissingClusterUrl | KubeconfigError::ParseClusterUrl(_) => {
            "the cluster of its current context must have a server, which is a URL"
        }
        KubeconfigError::ParseProxyUrl(_) => "its proxy-url must be a URL, and none is supported",
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            "its certificate authority must be there, as PEM"
        }
        KubeconfigError::LoadClientCertificate(_) => "its client certificate must be there, as PEM",
        KubeconfigError::LoadClientKey(_) => "its client key must be there, as PEM",
        KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath => "it can't be read",
        KubeconfigError::Parse(_) => "it must be a kubeconfig in YAML or JSON",
        KubeconfigError::KindMismatch | KubeconfigError::ApiVersionMismatch => {
            "all its documents must be of kind Config and of one version"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_a_kubeconfig_is_said_without_a_word_of_it() {
        let dir = std::env::temp_dir().join(format!("kubeconfig-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        let nothing = dir.join("nothere");
        let file = dir.join("file");
        let of = async |path: &Path| connect(Some(path)).await.err().unwrap();
        let error = of(&nothing).await;
        assert_eq!(error.to_string(), format!("--kubeconfig {} can't be read", nothing.display()));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No such file"), "{source}");
        assert!(matches!(of(&dir).await, ConnectError::Unreadable(..)), "a directory");
        for (text, words) in [
            ("SECRET: [", "must be a kubeconfig in YAML"),
            ("{apiVersion: v1, kind: Config}", "must have a current-context"),
            ("{current-context: SECRET}", "must be one of its contexts"),
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: SECRET, user: u}}]}",
                "must be one of its clusters",
            ),
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], \
                 clusters: [{name: k, cluster: {}}], users: [{name: u, user: {token: SECRET}}]}",
                "must have a server",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let said = of(&file).await.to_string();
            assert!(said.contains(words) && !said.contains("SECRET"), "{words} is not in: {said}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
