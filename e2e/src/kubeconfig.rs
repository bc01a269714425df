//! Kubeconfigs as text, with everything inline.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::canary;
use crate::pki::Identity;

/// How the user of a kubeconfig proves who they are.
pub(crate) enum Credentials<'a> {
    ClientCertificate(&'a Identity),
    Token(&'a str),
}

/// A kubeconfig with one cluster, user and context, all called `name`. What proves the user is a secret from then on.
pub(crate) fn render(name: &str, url: &str, ca_pem: &str, credentials: &Credentials<'_>) -> String {
    let user = match credentials {
        Credentials::ClientCertificate(identity) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            STANDARD.encode(&identity.cert_pem),
            STANDARD.encode(&identity.key_pem),
        ),
        Credentials::Token(token) => format!("token: {}", quoted(token)),
    };
    let ca = STANDARD.encode(ca_pem);
    let (name, url) = (quoted(name), quoted(url));
    let kubeconfig = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: {name}
  user:
    {user}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
current-context: {name}
"
    );
    canary::learn_kubeconfig("what proves a user of a cluster", &kubeconfig);
    kubeconfig
}

/// A JSON string, which is a YAML string as well: nothing in it can end the value.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
