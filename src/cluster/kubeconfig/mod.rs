//! Kubeconfigs: taken by allow-list, written by a serializer.
//!
//! This is the only way to a client of a managed cluster. A kubeconfig can name programs to run,
//! files to read, proxies and identities to assume; none of that is ours to obey.

mod pem;
mod refusal;
mod written;
mod yaml;

use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::USER_AGENT;
use http::uri::Authority;
use kube::config::AuthInfo;
use rustls_pki_types::CertificateDer;

pub use self::refusal::{Feature, FieldName, Part, Refusal};

use self::pem::{AUTHORITY, CERTIFICATE, Identity, KEY};
use self::yaml::Node;
use crate::kubernetes::direct::AGENT;
use crate::support::secret::{ExposeSecret as _, SecretString, Zeroizing};

/// Largest kubeconfig that is read, bytes.
const MAX_SIZE: usize = 256 * 1024;

/// What a cluster may say. `api-version` is of an old form, and means nothing.
const OF_CLUSTER: [&str; 9] = [
    "server",
    AUTHORITY,
    "certificate-authority",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "proxy-url",
    "disable-compression",
    "extensions",
    "api-version",
];

/// What a user may say.
const OF_USER: [&str; 15] = [
    "token",
    CERTIFICATE,
    KEY,
    "tokenFile",
    "client-certificate",
    "client-key",
    "username",
    "password",
    "exec",
    "auth-provider",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
    "extensions",
];

/// Where a managed cluster is.
struct Server {
    /// As it is handed out: the words of the kubeconfig, without `/` at the end.
    text: String,
    uri: Uri,
}

/// Who the managed cluster takes us for; at least one is there, and both are sent, as kubectl does.
struct Credentials {
    token: Option<SecretString>,
    identity: Option<Identity>,
}

/// How to reach a managed cluster and as whom; what an accepted kubeconfig says.
pub struct Access {
    server: Server,
    ca: Vec<CertificateDer<'static>>,
    credentials: Credentials,
}

/// Takes a kubeconfig, or says what about it can't be accepted.
///
/// # Errors
/// One [`Refusal`] for each thing that is missing or not allowed.
pub fn accept(yaml: &[u8]) -> Result<Access, Refusal> {
    access(&read(yaml)?)
}

fn read(yaml: &[u8]) -> Result<Node, Refusal> {
    if yaml.len() > MAX_SIZE {
        return Err(Refusal::TooLarge);
    }
    yaml::read(&text(yaml).ok_or(Refusal::Unreadable)?)
}

/// As YAML and kubectl have it: UTF-8, or UTF-16 if its mark is in front, as shells of Windows write files.
fn text(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, []) = rest.as_chunks() else { return None };
        char::decode_utf16(units.iter().copied().map(unit)).collect::<Result<_, _>>().ok()
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    text.map(Zeroizing::new)
}

fn access(file: &Node) -> Result<Access, Refusal> {
    let says = |key: &str, expected: &str| file.get(key).is_empty() || file.get(key).is(expected);
    if !matches!(file, Node::Map(_)) || !says("kind", "Config") || !says("apiVersion", "v1") {
        return Err(Refusal::NotAKubeconfig);
    }
    let contexts = file.get("contexts").items().ok_or(Refusal::NotAKubeconfig)?;
    let context = match (file.get("current-context").text("current-context")?, contexts) {
        (None, [only]) => only.get("context"),
        (name, contexts) => {
            used(contexts, name, Part::Context)?.ok_or(Refusal::Missing("current context"))?.get("context")
        }
    };
    let [cluster, user] = [Part::Cluster, Part::User].map(|part| {
        let (list, key, missing) = match part {
            Part::User => ("users", "user", "user of its current context"),
            Part::Cluster | Part::Context => ("clusters", "cluster", "cluster of its current context"),
        };
        let list = file.get(list).items().ok_or(Refusal::NotAKubeconfig)?;
        let entry = used(list, context.get(key).name(key)?, part)?.ok_or(Refusal::Missing(missing))?;
        known(entry, &["name", key], part)?;
        Ok::<_, Refusal>(entry.get(key))
    });
    let (cluster, user) = (cluster?, user?);
    Ok(Access { server: server(cluster)?, ca: authorities(cluster)?, credentials: credentials(user)? })
}

/// What a list has by that name.
fn used<'a>(list: &'a [Node], name: Option<&SecretString>, part: Part) -> Result<Option<&'a Node>, Refusal> {
    let Some(name) = name else { return Ok(None) };
    let mut found = list.iter().filter(|entry| entry.get("name").is(name.expose_secret()));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Refusal::Twice(part)),
        (found, None) => Ok(found),
    }
}

/// Whether something says what is known and nothing else: what a new field means, nobody here would obey.
fn known(node: &Node, fields: &[&str], part: Part) -> Result<(), Refusal> {
    match node.keys().find(|key| !fields.contains(key)) {
        Some(unknown) => Err(Refusal::Unknown(part, FieldName::new(unknown))),
        None => Ok(()),
    }
}

fn server(cluster: &Node) -> Result<Server, Refusal> {
    let insecure = match cluster.get("insecure-skip-tls-verify") {
        Node::Boolean(insecure) => *insecure,
        Node::Absent => false,
        _ => return Err(Refusal::NotBoolean("insecure-skip-tls-verify")),
    };
    refuse([
        (insecure, Feature::Insecure),
        (!cluster.get("certificate-authority").is_empty(), Feature::AuthorityPath),
        (!cluster.get("tls-server-name").is_empty(), Feature::ServerName),
        (!cluster.get("proxy-url").is_empty(), Feature::Proxy),
    ])?;
    known(cluster, &OF_CLUSTER, Part::Cluster)?;
    let text = cluster.get("server").text("server")?.ok_or(Refusal::Missing("server"))?.expose_secret();
    let uri: Uri = text.parse().map_err(|_| Refusal::Server)?;
    let authority = uri.authority().ok_or(Refusal::Server)?;
    let plain = uri.scheme_str() == Some("https")
        && is_host(authority.host())
        && has_legal_port(authority)
        && !authority.as_str().contains('@')
        && uri.query().is_none()
        && !text.contains('#');
    // A scheme in capitals is as good, and not known to all clients.
    let rest = text.split_once("://").filter(|_| plain).ok_or(Refusal::Server)?.1;
    // What is appended to it begins with one: `$server/version`.
    Ok(Server { text: format!("https://{}", rest.trim_end_matches('/')), uri })
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

fn authorities(cluster: &Node) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let pem = data(cluster, AUTHORITY)?.ok_or(Refusal::Missing(AUTHORITY))?;
    pem::authorities(&pem)
}

/// What a field has in base64.
fn data(node: &Node, field: &'static str) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let text = node.get(field).text(field)?;
    Ok(text.map(|text| pem::decode(field, text.expose_secret())).transpose()?.flatten())
}

fn credentials(user: &Node) -> Result<Credentials, Refusal> {
    let says = |field: &str| !user.get(field).is_empty();
    let token = user.get("token").text("token")?;
    refuse([
        // Even an empty one is a program.
        (!user.get("exec").is_absent(), Feature::Exec),
        (!user.get("auth-provider").is_absent(), Feature::AuthProvider),
        (says("tokenFile") && token.is_none(), Feature::TokenFile),
        (says("client-certificate"), Feature::CertificatePath),
        (says("client-key"), Feature::KeyPath),
        (says("username") || says("password"), Feature::Password),
        (["as", "as-uid", "as-groups", "as-user-extra"].into_iter().any(says), Feature::Impersonation),
    ])?;
    known(user, &OF_USER, Part::User)?;
    let token = token.map(header_text).transpose()?;
    let identity = match (data(user, CERTIFICATE)?, data(user, KEY)?) {
        (Some(certificate), Some(key)) => Some(pem::identity(&certificate, &key)?),
        (Some(_), None) => return Err(Refusal::Missing(KEY)),
        // A key alone proves nothing to anybody.
        (None, Some(_)) if token.is_none() => return Err(Refusal::Missing(CERTIFICATE)),
        (None, _) => None,
    };
    if token.is_none() && identity.is_none() {
        return Err(Refusal::NoCredentials);
    }
    Ok(Credentials { token, identity })
}

fn refuse<const N: usize>(forbidden: [(bool, Feature); N]) -> Result<(), Refusal> {
    match forbidden.into_iter().find(|(found, _)| *found) {
        Some((_, feature)) => Err(Refusal::Forbidden(feature)),
        None => Ok(()),
    }
}

/// A token as it is sent: HTTP cuts spaces off at the end of a header's value.
fn header_text(token: &SecretString) -> Result<SecretString, Refusal> {
    let token = token.expose_secret().trim_end_matches([' ', '\t']);
    let legal = !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic());
    legal.then(|| token.into()).ok_or(Refusal::Token)
}

impl Access {
    /// What a client is made from: nothing of the environment goes into it.
    #[must_use]
    pub(super) fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.server.uri.clone());
        config.root_cert = Some(self.ca.iter().map(|certificate| certificate.to_vec()).collect());
        let Credentials { token, identity } = &self.credentials;
        let (certificate, key) = identity.as_ref().map(|i| (i.certificate.clone(), i.key.clone())).unzip();
        config.auth_info = AuthInfo {
            token: token.clone(),
            client_certificate_data: certificate,
            client_key_data: key,
            ..AuthInfo::default()
        };
        config.headers.push((USER_AGENT, AGENT));
        // A retry is ours to decide: kube's own may issue a token twice and last for minutes.
        config.default_retry = false;
        config
    }

    /// The authorities as they are handed out: what was read, and nothing that stood beside.
    fn authority_data(&self) -> String {
        STANDARD.encode(pem::to_pem(&self.ca))
    }
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod pem_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod written_tests;
