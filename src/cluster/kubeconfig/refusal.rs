//! Why a kubeconfig is not accepted: the field and what is wrong with it, never its content.

/// Something that kubeconfigs may use and that is not obeyed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Feature {
    /// A program that makes the credentials.
    #[error("exec")]
    Exec,
    /// What programs were before `exec`.
    #[error("auth-provider")]
    AuthProvider,
    /// A file with a token.
    #[error("tokenFile, a file path")]
    TokenFile,
    /// A file with the CA.
    #[error("certificate-authority, a file path")]
    AuthorityPath,
    /// A file with a certificate.
    #[error("client-certificate, a file path")]
    CertificatePath,
    /// A file with a key.
    #[error("client-key, a file path")]
    KeyPath,
    /// Servers that nobody vouches for.
    #[error("insecure-skip-tls-verify")]
    Insecure,
    /// A way round.
    #[error("proxy-url")]
    Proxy,
    /// Another name than the server's for its certificate.
    #[error("tls-server-name")]
    ServerName,
    /// HTTP's basic authentication.
    #[error("username and password")]
    Password,
    /// To act as somebody else.
    #[error("impersonation (as, as-uid, as-groups, as-user-extra)")]
    Impersonation,
}

/// Which part of a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Part {
    /// The cluster of the current context.
    #[error("cluster")]
    Cluster,
    /// The user of the current context.
    #[error("user")]
    User,
    /// The context that is used.
    #[error("context")]
    Context,
}

/// The name of a field that nobody knows: shown only if it looks like one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.as_deref().unwrap_or("(its name can't be shown)"))]
pub struct FieldName(Option<String>);

impl FieldName {
    /// Of letters, digits and `-`, 64 at most, as fields have; what is longer or has others could be a secret.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        Self(((1..=64).contains(&name.len()) && plain).then(|| name.to_owned()))
    }
}

/// Why a kubeconfig is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too large.
    #[error("it is larger than 256 KiB")]
    TooLarge,
    /// Not UTF-8, or no YAML.
    #[error("it is not YAML or JSON that can be read")]
    Unreadable,
    /// More than one document.
    #[error("it is more than one YAML document")]
    Documents,
    /// Something else than a kubeconfig.
    #[error(
        "it is not a kubeconfig: kind must be Config, apiVersion v1, and clusters, users and contexts lists"
    )]
    NotAKubeconfig,
    /// Something must be there and isn't.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Two of the same name.
    #[error("it has two {0}s of the name that is used")]
    Twice(Part),
    /// Something must not be there and is.
    #[error("it uses {0}, which is not supported")]
    Forbidden(Feature),
    /// What is used has a field that nobody knows.
    #[error("its {0} has a field that is not known: {1}")]
    Unknown(Part, FieldName),
    /// A field isn't text.
    #[error("{0} must be text; a number, true or false needs quotes for that")]
    NotText(&'static str),
    /// A field is neither true nor false.
    #[error("{0} must be true or false")]
    NotBoolean(&'static str),
    /// The server isn't an address that we connect to.
    #[error("server must be an https URL of a host's name or address, without user, query or fragment")]
    Server,
    /// A token that can't be sent.
    #[error("token must be printable ASCII without spaces or line breaks")]
    Token,
    /// Neither a token nor a certificate.
    #[error("it has no credentials: a token, or client-certificate-data and client-key-data, is needed")]
    NoCredentials,
    /// A field isn't base64.
    #[error("{0} is not base64")]
    NotBase64(&'static str),
    /// A field's base64 isn't PEM.
    #[error("{0} is base64 of something else than PEM, such as DER: a line BEGIN {1} is needed")]
    NotPem(&'static str, &'static str),
    /// PEM without what is needed.
    #[error("{0} is PEM that has no {1} that can be read")]
    NoBlock(&'static str, &'static str),
    /// A certificate that is none.
    #[error("{0} has a block CERTIFICATE that is no X.509 certificate")]
    NotX509(&'static str),
    /// A certificate without extensions.
    #[error(
        "client-certificate-data is an X.509 certificate of version 1, which is not supported: version 3 is needed"
    )]
    Version1,
    /// Nobody has its password.
    #[error("client-key-data is an encrypted key: a key without a password is needed")]
    EncryptedKey,
    /// Fewer bits than are secure.
    #[error("client-key-data is an RSA key of fewer than 2048 bits, which is too short")]
    ShortKey,
    /// No key, or of a kind that isn't known.
    #[error(
        "client-key-data is no key that can be used: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    Key,
    /// Not a pair.
    #[error("client-key-data is the key of another certificate than client-certificate-data")]
    OtherKey,
    /// Accepted, and yet no client can be made of it.
    #[error("no TLS client can be made of its certificates and key")]
    Client,
}

impl Refusal {
    /// Whether kubectl would work with such a kubeconfig, and it is refused all the same, for a reason that
    /// `docs/kubeconfigs.md` gives.
    #[must_use]
    pub fn is_meant(&self) -> bool {
        match self {
            Self::Forbidden(feature) => *feature != Feature::Password,
            Self::TooLarge
            | Self::Documents
            | Self::Unknown(..)
            | Self::Missing("certificate-authority-data")
            | Self::Server
            | Self::Version1
            | Self::ShortKey => true,
            Self::Unreadable
            | Self::NotAKubeconfig
            | Self::Missing(_)
            | Self::Twice(_)
            | Self::NotText(_)
            | Self::NotBoolean(_)
            | Self::Token
            | Self::NoCredentials
            | Self::NotBase64(_)
            | Self::NotPem(..)
            | Self::NoBlock(..)
            | Self::NotX509(_)
            | Self::EncryptedKey
            | Self::Key
            | Self::OtherKey
            | Self::Client => false,
        }
    }
}
