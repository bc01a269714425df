//! Kubeconfigs: taken by allow-list, written by a serializer.
//!
//! This is the only way to a client of a managed cluster. A kubeconfig can name programs to run,
//! files to read, proxies and identities to assume; none of that is ours to obey.

#[path = "kubeconfig_written.rs"]
mod written;

use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::USER_AGENT;
use http::uri::Authority;
use kube::config::AuthInfo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::direct::AGENT;
use crate::secret::{ExposeSecret as _, SecretString};

/// Largest kubeconfig that is read, bytes.
const MAX_SIZE: usize = 256 * 1024;

/// Why a kubeconfig is not accepted. Names the field, never its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too large.
    #[error("it is larger than 256 KiB")]
    TooLarge,
    /// Not YAML, or with fields that a kubeconfig doesn't have.
    #[error("it is not a kubeconfig that can be read")]
    Unreadable,
    /// Something must be there and isn't.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Something must not be there and is.
    #[error("it uses {0}, which is not supported")]
    Forbidden(&'static str),
    /// The server isn't an address that we connect to.
    #[error("server must be an https URL of a host's name or address, without user, query or fragment")]
    Server,
    /// The CA isn't base64 of PEM certificates.
    #[error("certificate-authority-data must be base64 of PEM certificates")]
    CertificateAuthority,
    /// The credentials can't be used.
    #[error("its credentials can't be used: a token, or a client certificate and key as data, is needed")]
    Credentials,
}

/// Who the managed cluster takes us for.
enum Credentials {
    Token(SecretString),
    Certificate { certificate: String, key: SecretString },
}

/// How to reach a managed cluster and as whom; what an accepted kubeconfig says.
pub struct Access {
    server: Uri,
    ca_data: String,
    ca: Vec<Vec<u8>>,
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    clusters: Vec<Named<ClusterEntry>>,
    #[serde(default)]
    users: Vec<Named<UserEntry>>,
    #[serde(default)]
    contexts: Vec<Named<ContextEntry>>,
    current_context: Option<String>,
    #[serde(rename = "preferences")]
    _preferences: Option<IgnoredAny>,
    #[serde(rename = "extensions")]
    _extensions: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named<T> {
    name: String,
    #[serde(rename = "cluster", alias = "user", alias = "context")]
    entry: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ClusterEntry {
    server: Option<String>,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<IgnoredAny>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<IgnoredAny>,
    proxy_url: Option<IgnoredAny>,
    #[serde(rename = "disable-compression")]
    _disable_compression: Option<bool>,
    #[serde(rename = "extensions")]
    _extensions: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UserEntry {
    token: Option<SecretString>,
    client_certificate_data: Option<String>,
    client_key_data: Option<SecretString>,
    #[serde(rename = "tokenFile")]
    token_file: Option<IgnoredAny>,
    client_certificate: Option<IgnoredAny>,
    client_key: Option<IgnoredAny>,
    username: Option<IgnoredAny>,
    password: Option<IgnoredAny>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    #[serde(rename = "as")]
    impersonate: Option<IgnoredAny>,
    as_uid: Option<IgnoredAny>,
    as_groups: Option<IgnoredAny>,
    as_user_extra: Option<IgnoredAny>,
    #[serde(rename = "extensions")]
    _extensions: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextEntry {
    cluster: Option<String>,
    user: Option<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(rename = "extensions")]
    _extensions: Option<IgnoredAny>,
}

/// Takes a kubeconfig, or says what about it can't be accepted.
///
/// # Errors
/// One [`Refusal`] for each thing that is missing or not allowed.
pub fn accept(yaml: &[u8]) -> Result<Access, Refusal> {
    access(&read(yaml)?)
}

fn read(yaml: &[u8]) -> Result<File, Refusal> {
    if yaml.len() > MAX_SIZE {
        return Err(Refusal::TooLarge);
    }
    let text = std::str::from_utf8(yaml).map_err(|_| Refusal::Unreadable)?;
    // A parser's message quotes source lines, and these hold keys: it ends here.
    serde_saphyr::from_str(text).map_err(|_| Refusal::Unreadable)
}

fn access(file: &File) -> Result<Access, Refusal> {
    if file.kind.as_deref().is_some_and(|k| k != "Config")
        || file.api_version.as_deref().is_some_and(|v| v != "v1")
    {
        return Err(Refusal::Unreadable);
    }
    let current = match (file.current_context.as_deref().unwrap_or_default(), file.contexts.as_slice()) {
        ("", [only]) => only,
        (name, contexts) => {
            contexts.iter().find(|c| c.name == name).ok_or(Refusal::Missing("current context"))?
        }
    };
    let cluster = named(&file.clusters, current.entry.cluster.as_deref())
        .ok_or(Refusal::Missing("cluster of its current context"))?;
    let user = named(&file.users, current.entry.user.as_deref())
        .ok_or(Refusal::Missing("user of its current context"))?;
    let ca_data = ca_data(cluster)?;
    Ok(Access {
        server: server(cluster)?,
        ca: certificates(&ca_data)?,
        ca_data,
        credentials: credentials(user)?,
    })
}

fn named<'a, T>(list: &'a [Named<T>], name: Option<&str>) -> Option<&'a T> {
    list.iter().find(|n| Some(n.name.as_str()) == name).map(|n| &n.entry)
}

fn server(cluster: &ClusterEntry) -> Result<Uri, Refusal> {
    let text = cluster.server.as_deref().filter(|s| !s.is_empty()).ok_or(Refusal::Missing("server"))?;
    let uri: Uri = text.parse().map_err(|_| Refusal::Server)?;
    let authority = uri.authority().ok_or(Refusal::Server)?;
    let plain = uri.scheme_str() == Some("https")
        && is_host(authority.host())
        && has_legal_port(authority)
        && !authority.as_str().contains('@')
        && uri.query().is_none()
        && !text.contains('#');
    plain.then_some(uri).ok_or(Refusal::Server)
}

/// Whether it is a name of the DNS or an address, and no other thing that some resolver may know.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    (1..=253).contains(&host.len()) && host.bytes().all(legal)
}

/// A port that can't be one would be taken for none, and lead to another server.
fn has_legal_port(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p != 0))
}

fn ca_data(cluster: &ClusterEntry) -> Result<String, Refusal> {
    let forbidden = [
        (cluster.insecure_skip_tls_verify == Some(true), "insecure-skip-tls-verify"),
        (cluster.certificate_authority.is_some(), "certificate-authority, a file path"),
        (cluster.tls_server_name.is_some(), "tls-server-name"),
        (cluster.proxy_url.is_some(), "proxy-url"),
    ];
    refuse(forbidden)?;
    let data = cluster.certificate_authority_data.clone().filter(|d| !d.is_empty());
    data.ok_or(Refusal::Missing("certificate-authority-data"))
}

fn certificates(data: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    let pem = STANDARD.decode(data.trim()).map_err(|_| Refusal::CertificateAuthority)?;
    let ca: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .map(|c| c.map(|c| c.as_ref().to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| Refusal::CertificateAuthority)?;
    if ca.is_empty() { Err(Refusal::CertificateAuthority) } else { Ok(ca) }
}

fn credentials(user: &UserEntry) -> Result<Credentials, Refusal> {
    refuse([
        (user.exec.is_some(), "exec"),
        (user.auth_provider.is_some(), "auth-provider"),
        (user.token_file.is_some(), "tokenFile"),
        (user.client_certificate.is_some(), "client-certificate, a file path"),
        (user.client_key.is_some(), "client-key, a file path"),
        (user.username.is_some() || user.password.is_some(), "username and password"),
        (
            user.impersonate.is_some()
                || user.as_uid.is_some()
                || user.as_groups.is_some()
                || user.as_user_extra.is_some(),
            "impersonation",
        ),
    ])?;
    match (&user.token, &user.client_certificate_data, &user.client_key_data) {
        (Some(token), None, None) if is_header_text(token.expose_secret()) => {
            Ok(Credentials::Token(token.clone()))
        }
        (None, Some(certificate), Some(key))
            if !certificate.is_empty() && !key.expose_secret().is_empty() =>
        {
            Ok(Credentials::Certificate { certificate: certificate.clone(), key: key.clone() })
        }
        _ => Err(Refusal::Credentials),
    }
}

fn refuse<const N: usize>(forbidden: [(bool, &'static str); N]) -> Result<(), Refusal> {
    match forbidden.into_iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(Refusal::Forbidden(what)),
        None => Ok(()),
    }
}

fn is_header_text(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic())
}

impl Access {
    /// What a client is made from: nothing of the environment goes into it.
    #[must_use]
    pub(super) fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.server.clone());
        config.root_cert = Some(self.ca.clone());
        config.auth_info = match &self.credentials {
            Credentials::Token(token) => AuthInfo { token: Some(token.clone()), ..AuthInfo::default() },
            Credentials::Certificate { certificate, key } => AuthInfo {
                client_certificate_data: Some(certificate.clone()),
                client_key_data: Some(key.clone()),
                ..AuthInfo::default()
            },
        };
        config.headers.push((USER_AGENT, AGENT));
        // A retry is ours to decide: kube's own may issue a token twice and last for minutes.
        config.default_retry = false;
        config
    }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
