//! What can go wrong with a managed cluster, in our own words: no variant holds remote text.

use super::address::Refused;
use super::compare::Difference;
use super::kubeconfig::Refusal;
use super::token::Defect;

/// Why something could not be done in a managed cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Somebody else may be writing.
    #[error("this process no longer leads")]
    NotLeading,
    /// The instance has no kubeconfig, at least for the moment.
    #[error("the managed cluster has no kubeconfig: {0}")]
    NoKubeconfig(#[from] Missing),
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
    #[error(
        "the managed cluster refuses to {0} (HTTP 403): the account of its kubeconfig must have that right, and \
         no admission policy or webhook may forbid it"
    )]
    Forbidden(Call),
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
    /// An object was made, but not as it was asked for.
    #[error(
        "the managed cluster made {kind} {name} other than it was asked to: {difference}; is a mutating webhook or \
         admission policy at work? What was made was removed"
    )]
    Altered {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object, made from the binding id.
        name: String,
        /// How it is other.
        difference: Difference,
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
}

/// What is missing of an instance's kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No Secret is there for the runtime.
    #[error("there is no Secret whose label kyma-project.io/runtime-id is {0}")]
    Secret(String),
    /// The Secret of that name was deleted a moment ago.
    #[error("Secret {0} is gone")]
    Gone(String),
    /// The Secret has nothing in the place of the kubeconfig.
    #[error("Secret {0} has no key 'config', which must hold it")]
    Key(String),
    /// The Secret has the key, with nothing in it. A forced rotation does that for a moment.
    #[error("the key 'config' of Secret {0}, which must hold it, is empty")]
    Empty(String),
}

/// A call to a managed cluster, in the words of its RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{verb} {what}")]
pub struct Call {
    /// The verb.
    pub verb: &'static str,
    /// The kind of the objects.
    pub what: &'static str,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The name has no address.
    #[error("the name of its server can't be resolved")]
    NoAddress,
    /// No network leads there.
    #[error("there is no route to its server")]
    NoRoute,
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] Tls),
    /// The connection broke.
    #[error("connection lost")]
    Lost,
    /// Anything else.
    #[error("no connection")]
    NoConnection,
}

/// Why there is no TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tls {
    /// Past its end.
    #[error("the certificate of its server has expired")]
    Expired,
    /// Before its beginning.
    #[error("the certificate of its server is not valid yet; are the clocks right?")]
    NotYetValid,
    /// For somebody else.
    #[error("the certificate of its server is not for the name or address in the kubeconfig's server")]
    WrongName,
    /// Of an authority that the kubeconfig doesn't have.
    #[error(
        "no trusted authority has issued the certificate of its server: certificate-authority-data must hold the one \
         that has"
    )]
    UnknownIssuer,
    /// What may sign certificates is no server's.
    #[error(
        "its server shows the certificate of an authority (CA:TRUE): it needs one of its own, which the authority \
         has signed"
    )]
    Authority,
    /// For clients alone, for instance.
    #[error("the certificate of its server is not meant for servers (extended key usage)")]
    Purpose,
    /// Any other defect of it.
    #[error("the certificate of its server can't be verified")]
    Certificate,
    /// The server ended it.
    #[error("its server ended the TLS handshake: does it want another client certificate?")]
    Ended,
    /// Something else answers.
    #[error("what answers at its server's address does not speak TLS")]
    NoTls,
    /// Anything else.
    #[error("no TLS connection can be agreed on with its server")]
    Other,
}
