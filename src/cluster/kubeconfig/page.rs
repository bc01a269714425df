//! The page of the kubeconfigs that are refused, made of the refusals.

use std::fmt::Write as _;
use std::path::Path;

use super::pem::{AUTHORITY, CERTIFICATE, KEY};
use super::{Feature, FieldName, Part, Refusal};

const HEAD: &str = "# Kubeconfigs of managed clusters

An instance's Secret has the kubeconfig of its cluster in the key `config`. It is read as kubectl reads it: empty is absent, base64 may be
broken into lines, a field twice counts as the last, and only what the current context leads to is judged. What a kubeconfig can do beyond
naming one server and one credential is not obeyed, because it would be obeyed by the operator: it would run the program, read the
file, use the proxy.

A kubeconfig that is refused is said in the binding's condition (`KubeconfigRefused`), in an Event, and in the answer to a request, as
\"the managed cluster's kubeconfig is refused: …\" with the words below. None of them quotes a value. When the Secret is mended,
the bindings that wait are tried again.

What is handed out names the same server, without a `/` at its end, the certificates of `certificate-authority-data` and nothing that stood
beside them, and a token of the binding's own.

Made from the code: `UPDATE=1 cargo test --lib kubeconfig` writes this page. It is compared with what kubectl does by
`cargo test -p e2e --test it -- kubeconfigs::`.

";

const DATA: &str = "Put the file's content there: `kubectl config view --flatten --minify` does it.";
const CREDENTIAL: &str = "Give it a token of a ServiceAccount or a client certificate.";
const MENDED: &str = "Write the kubeconfig anew from its source.";

/// What kubectl works with and is refused all the same.
fn meant() -> Vec<(Refusal, &'static str, &'static str)> {
    let uses = Refusal::Forbidden;
    let unknown = |part| Refusal::Unknown(part, FieldName::new("example"));
    vec![
        (uses(Feature::Exec), "It would run a program beside all clusters' credentials.", CREDENTIAL),
        (uses(Feature::AuthProvider), "As `exec`; kubectl has given it up but for `oidc`.", CREDENTIAL),
        (
            uses(Feature::TokenFile),
            "It would read a file of the operator's own pod. Beside a `token` it is ignored.",
            "Put the token into `token`.",
        ),
        (uses(Feature::AuthorityPath), "It would read a file of the operator's own pod.", DATA),
        (uses(Feature::CertificatePath), "It would read a file of the operator's own pod.", DATA),
        (uses(Feature::KeyPath), "It would read a file of the operator's own pod.", DATA),
        (
            uses(Feature::Insecure),
            "Whoever answers in the cluster's place would get its credentials.",
            "Name its authority in `certificate-authority-data`.",
        ),
        (
            Refusal::Missing(AUTHORITY),
            "The system's authorities would vouch for a cluster, and those of whoever gets a kubeconfig may be others.",
            "Name its authority in `certificate-authority-data`, also if it is a public one.",
        ),
        (
            uses(Feature::ServerName),
            "What is handed out has one name for a cluster: the server's.",
            "Have the server's certificate name the host of `server`.",
        ),
        (
            uses(Feature::Proxy),
            "It would send credentials by a way that nobody has allowed.",
            "Make the cluster reachable; to see to it is for the network.",
        ),
        (
            uses(Feature::Impersonation),
            "Somebody else's rights would count than those of who is named.",
            "Use the credentials of the one who is meant.",
        ),
        (
            Refusal::Server,
            "`http` sends tokens in the clear; a user and password in the URL would be handed out with it; a name that isn't ASCII is not one of the DNS.",
            "Write `https://`, the host, and port and path if there are any.",
        ),
        (
            Refusal::TooLarge,
            "It is read whole into memory for each cluster.",
            "Keep only the context that is used: `kubectl config view --flatten --minify`.",
        ),
        (Refusal::Documents, "kubectl takes the first and is silent of the others.", "Keep one."),
        (
            unknown(Part::Cluster),
            "kubectl ignores what it doesn't know; what it would mean to another client is not known here.",
            "Remove it, or mend its spelling.",
        ),
        (unknown(Part::User), "As for the cluster.", "Remove it, or mend its spelling."),
        (
            Refusal::Version1,
            "The TLS library takes certificates of version 3 alone.",
            "Issue it with an extension, such as `extendedKeyUsage=clientAuth`.",
        ),
        (
            Refusal::ShortKey,
            "RSA keys of fewer than 2048 bits are not secure.",
            "Issue a certificate for a longer key, or an ECDSA one.",
        ),
    ]
}

/// What kubectl doesn't work with either.
fn neither() -> Vec<(Refusal, &'static str)> {
    let uses = Refusal::Forbidden;
    vec![
        (Refusal::Unreadable, MENDED),
        (Refusal::NotAKubeconfig, MENDED),
        (
            Refusal::Missing("current context"),
            "Set `current-context` to the name of a context; it may be left out if there is one context.",
        ),
        (
            Refusal::Missing("cluster of its current context"),
            "The context's `cluster` must be the name of one of `clusters`.",
        ),
        (
            Refusal::Missing("user of its current context"),
            "The context's `user` must be the name of one of `users`.",
        ),
        (Refusal::Missing("server"), "Name the API server's URL."),
        (Refusal::Missing(KEY), "Give the certificate's key, too."),
        (Refusal::Missing(CERTIFICATE), "Give the key's certificate, too, or a token."),
        (Refusal::Twice(Part::Cluster), "Remove one; likewise two users or two contexts."),
        (Refusal::NotText("token"), "Put it in quotes; likewise other fields."),
        (Refusal::NotBoolean("insecure-skip-tls-verify"), "Remove it."),
        (
            uses(Feature::Password),
            "No API server since Kubernetes 1.19 takes them. Give it a token of a ServiceAccount or a client certificate.",
        ),
        (Refusal::Token, "Write the token in one line."),
        (Refusal::NoCredentials, CREDENTIAL),
        (Refusal::NotBase64(AUTHORITY), "Encode the PEM file with `base64`; likewise the two others."),
        (
            Refusal::NotPem(AUTHORITY, "CERTIFICATE"),
            "Convert it with `openssl x509 -inform DER`, then encode that; likewise the two others.",
        ),
        (
            Refusal::NoBlock(AUTHORITY, "CERTIFICATE"),
            "It may be the wrong file, such as a key, or was cut off.",
        ),
        (Refusal::NotX509(AUTHORITY), MENDED),
        (Refusal::NotX509(CERTIFICATE), MENDED),
        (Refusal::EncryptedKey, "Take the password off: `openssl pkey -in` and `-out`."),
        (
            Refusal::NoBlock(KEY, "PRIVATE KEY"),
            "It may be the wrong file, such as a certificate, or was cut off.",
        ),
        (Refusal::Key, "Issue a certificate for a key of such a kind."),
        (Refusal::OtherKey, "Take certificate and key from the same source."),
    ]
}

const ELSE: &str = "
## Taken though kubectl refuses it

- A kubeconfig without `current-context`, or with an empty one, that has one context: that one counts.
- An empty YAML document before it.
- Anything at all in a cluster, user or context that the current context doesn't lead to.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "## Refused though kubectl works with it\n\n| it is said | why | what to do |\n| --- | --- | --- |\n",
    );
    for (refusal, why, instead) in meant() {
        writeln!(page, "| {refusal} | {why} | {instead} |").unwrap();
    }
    page.push_str("\n## Refused, and by kubectl or the API server as well\n\n| it is said | what to do |\n| --- | --- |\n");
    for (refusal, instead) in neither() {
        writeln!(page, "| {refusal} | {instead} |").unwrap();
    }
    page.push_str(ELSE);
    page
}

#[test]
fn the_page_is_what_the_code_refuses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubeconfigs.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page(),
        "docs/kubeconfigs.md is not up to date: UPDATE=1 cargo test --lib kubeconfig"
    );
    assert!(meant().iter().all(|(refusal, ..)| refusal.is_meant()));
    assert!(!neither().iter().any(|(refusal, _)| refusal.is_meant()));
}

/// Each refusal has its own words, and they are in the page.
#[test]
fn no_two_refusals_say_the_same() {
    let mut said: Vec<_> = meant().into_iter().map(|(refusal, ..)| refusal.to_string()).collect();
    said.extend(neither().into_iter().map(|(refusal, _)| refusal.to_string()));
    let all = said.len();
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), all);
}
