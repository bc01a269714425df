//! What the templates of kubeconfigs are filled with: the address, certificates, keys and token of one cluster.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::pki::{Identity, Pki};
use e2e::{Cluster, WorkDir, canary};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::front::{self, Fronts};

const MASTERS: [&str; 1] = ["system:masters"];
/// For tests alone. The cryptography here makes none as short as that.
const SHORT_KEY: &str = include_str!("../../../kubeconfigs/rsa-1024.key");

/// Values by the names that templates call them.
pub struct Given {
    values: Vec<(String, String)>,
    dir: WorkDir,
}

impl Given {
    pub async fn of(cluster: &Cluster) -> Self {
        let token = token(cluster).await;
        let fronts = front::start(cluster.url(), cluster.ca_pem(), &token).await;
        let mut given = Self { values: Vec::new(), dir: WorkDir::new("kubeconfigs").unwrap() };
        given.addresses(cluster, &fronts);
        given.authorities(cluster, &fronts);
        given.identities(cluster.pki());
        given.token(&token);
        given
    }

    /// The directory of the files that are named.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn add(&mut self, name: &str, value: &str) {
        self.values.push((format!("${{{name}}}"), value.to_owned()));
    }

    fn add_pem(&mut self, name: &str, pem: &str) {
        self.add(name, &STANDARD.encode(pem));
    }

    fn add_file(&mut self, name: &str, content: &str) {
        let path = self.dir().join(name);
        std::fs::write(&path, content).unwrap();
        self.add(name, &path.display().to_string());
    }

    fn addresses(&mut self, cluster: &Cluster, fronts: &Fronts) {
        self.add("server", cluster.url());
        self.add("host", cluster.url().trim_start_matches("https://"));
        self.add("rancher", &fronts.below_a_path);
        self.add("http", &fronts.in_the_clear);
        self.add("proxy", &fronts.proxy);
    }

    fn authorities(&mut self, cluster: &Cluster, fronts: &Fronts) {
        let (ca, other) = (cluster.ca_pem(), Pki::generate("other").unwrap());
        let key = other.service_account_key_pem();
        canary::learn("a key beside a CA", key.lines().nth(1).unwrap());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bag = "Bag Attributes\n    friendlyName: a\nsubject=CN = a\n";
        self.add_pem("ca", ca);
        self.add_pem("ca-beside", &format!("# of a person\n{bag}{ca}{key}"));
        self.add_pem("ca-bundle", &format!("{}{ca}", other.ca_pem()));
        self.add_pem("ca-other", other.ca_pem());
        self.add_pem("ca-broken-and-good", &format!("{broken}{ca}"));
        self.add_pem("ca-broken", broken);
        self.add_pem("ca-key", &key);
        self.add_pem("ca-cut", &ca[..ca.len() / 2]);
        self.add("ca-der", &ca.lines().filter(|line| !line.starts_with("-----")).collect::<String>());
        self.add("ca-text", &ca.replace('\n', "\\n"));
        self.add("ca-spaces", &broken_by(&STANDARD.encode(ca), " "));
        self.add("ca-newlines", &broken_by(&STANDARD.encode(ca), "\\n"));
        self.add("ca-crlf", &broken_by(&STANDARD.encode(ca), "\\r\\n"));
        self.add("ca-tabs", &broken_by(&STANDARD.encode(ca), "\\t"));
        self.add_pem("ca-dos", &ca.replace('\n', "\r\n"));
        self.add_file("ca-file", ca);
        self.add_pem("rancher-ca", &fronts.ca_pem);
        self.add("rancher-ca-backslashes", &broken_by(&STANDARD.encode(&fronts.ca_pem), "\\\n      "));
    }

    fn identities(&mut self, pki: &Pki) {
        let learn = |identity: &Identity| {
            canary::learn("a client's key", identity.key_pem.lines().nth(1).unwrap());
        };
        let identity = pki.client("corpus", &MASTERS).unwrap();
        let (certificate, key) = (identity.cert_pem.as_str(), identity.key_pem.as_str());
        learn(&identity);
        self.add_pem("certificate", certificate);
        self.add_pem("key", key);
        self.add_pem(
            "certificate-text",
            &format!("Certificate:\n    Data:\n        Version: 3\n{certificate}"),
        );
        self.add_pem("both", &format!("{key}{certificate}"));
        self.add_pem("certificate-chain", &format!("{certificate}{}", pki.ca_pem()));
        self.add_file("certificate-file", certificate);
        self.add_file("key-file", key);
        let other = pki.client("other", &MASTERS).unwrap();
        learn(&other);
        self.add_pem("key-other", &other.key_pem);
        // What is in there nobody knows without the password; Go would take a plain key under this label.
        let encrypted = ["-----BEGIN", "-----END"].map(|edge| format!("{edge} ENCRYPTED PRIVATE KEY-----\n"));
        self.add_pem("key-encrypted", &encrypted.join("MAYwAAQCAAA=\n"));
        for (name, odd) in [
            ("v1", pki.client_of_version_1("corpus", &MASTERS).unwrap()),
            ("short", pki.client_for(SHORT_KEY, "corpus", &MASTERS).unwrap()),
        ] {
            learn(&odd);
            self.add_pem(&format!("certificate-{name}"), &odd.cert_pem);
            self.add_pem(&format!("key-{name}"), &odd.key_pem);
        }
    }

    fn token(&mut self, token: &str) {
        self.add("token", token);
        self.add_file("token-file", token);
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token},
        });
        // The program answers in the version that it is asked in.
        let script = format!(
            "#!/bin/sh\ncase \"$KUBERNETES_EXEC_INFO\" in *v1beta1*) v=v1beta1;; *) v=v1;; esac\n\
             echo '{credential}' | sed \"s|k8s.io/v1|k8s.io/$v|\"\n"
        );
        self.add_file("program", &script);
        let program = self.dir().join("program");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(program, executable).unwrap();
    }

    /// A template with all values in it. `${x-lines}`, alone in its line, is the value of `x` in lines of 76.
    pub fn fill(&self, template: &str) -> String {
        let mut filled = String::new();
        for line in template.split_inclusive('\n') {
            match line.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix("-lines}")) {
                Some(name) => {
                    let indent = " ".repeat(line.len() - line.trim_start().len());
                    let value = self.fill(&format!("${{{name}}}"));
                    let lines = broken_by(&value, &format!("\n{indent}"));
                    filled.extend([indent.as_str(), lines.as_str(), "\n"]);
                }
                None => filled.push_str(line),
            }
        }
        for (name, value) in &self.values {
            filled = filled.replace(name, value);
        }
        assert!(!filled.contains("${"), "a value that isn't there: {template}");
        filled
    }
}

/// Base64 as GNU's program breaks it into lines.
fn broken_by(text: &str, between: &str) -> String {
    let lines = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned());
    lines.collect::<Vec<_>>().join(between)
}

/// A token with all rights, for an hour.
async fn token(cluster: &Cluster) -> String {
    let (name, post) = ("corpus", PostParams::default());
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    accounts.create(&post, &account).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    }))
    .unwrap();
    Api::all(cluster.client()).create(&post, &binding).await.unwrap();
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let answer = accounts.create_token_request(name, &post, &request).await.unwrap();
    let token = answer.status.unwrap().token.unwrap();
    canary::learn("an instance's token", &token);
    token
}
