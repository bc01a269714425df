//! What can go wrong with a managed cluster, in our own words: no variant holds remote text.

use super::address::Refused;
use super::kubeconfig::Refusal;
use super::token::Defect;

/// Why something could not be done in a managed cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Somebody else may be writing.
    #[error("this process no longer leads")]
    NotLeading,
    /// The instance has no kubeconfig for the moment.
    #[error("the managed cluster's kubeconfig is missing for the moment")]
    NoKubeconfig,
    /// The control plane did not give us the kubeconfig Secret.
    #[error("the Secret with the managed cluster's kubeconfig could not be read")]
    ReadKubeconfig,
    /// The kubeconfig is not one that we accept.
    #[error("the managed cluster's kubeconfig is refused: {0}")]
    Kubeconfig(#[from] Refusal),
    /// The server is where nothing is connected to.
    #[error(
        "the managed cluster's server is at {0}; unless --managed-server-allow names it, nothing is connected to there"
    )]
    Address(Refused),
    /// No connection.
    #[error("the managed cluster is unreachable: {0}")]
    Unreachable(Unreachable),
    /// No answer in time.
    #[error("the managed cluster did not answer in time")]
    TimedOut,
    /// 401.
    #[error("the managed cluster does not accept the credentials of its kubeconfig (HTTP 401)")]
    Unauthorized,
    /// 403.
    #[error("the managed cluster forbids what bindings need (HTTP 403)")]
    Forbidden,
    /// 429.
    #[error("the managed cluster asks to slow down (HTTP 429)")]
    RateLimited,
    /// 5xx.
    #[error("the managed cluster's API server fails (HTTP {0})")]
    Unavailable(u16),
    /// An answer that a Kubernetes API server would not give.
    #[error("the managed cluster does not behave like a Kubernetes API server: {0}")]
    Misbehaves(Misbehaviour),
    /// The namespace for service accounts is missing.
    #[error("namespace {0} does not exist in the managed cluster")]
    NamespaceMissing(String),
    /// The token is not one that we hand on.
    #[error("the managed cluster issued a token that is refused: {0}")]
    Token(#[from] Defect),
    /// An object of our name is not ours.
    #[error("{kind} {name} exists in the managed cluster and was not made for this binding")]
    Foreign {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object, made from the binding id.
        name: String,
    },
    /// The cluster does not let us delete an object of ours.
    #[error(
        "the managed cluster refuses to delete {kind} {name} (HTTP {status}): \
         its RBAC, an admission policy or a webhook forbids it"
    )]
    Kept {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object, made from the binding id.
        name: String,
        /// HTTP status.
        status: u16,
    },
    /// An object of ours was deleted but is still there.
    #[error("{0} is still there after its deletion")]
    Lingers(&'static str),
}

/// How an answer was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Another status than the ones that can come.
    #[error("unexpected HTTP status {0}")]
    Status(u16),
    /// More than we read.
    #[error("an answer larger than 1 MiB")]
    TooLarge,
    /// A list in more pages than we read.
    #[error("a list that does not end")]
    Endless,
    /// Not what was asked for.
    #[error("an answer of the wrong form")]
    Form,
    /// An object was created, but with other marks or another name than asked.
    #[error("a created object that differs from what was asked")]
    Altered,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// TLS failed: not the certificate authority of the kubeconfig, or not TLS at all.
    #[error("no TLS connection that its certificate authority vouches for")]
    Tls,
    /// The connection broke.
    #[error("connection lost")]
    Lost,
    /// Anything else: no address, no route.
    #[error("no connection")]
    NoConnection,
}
