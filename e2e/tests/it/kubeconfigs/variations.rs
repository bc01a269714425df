//! One kubeconfig, varied in one place.

use super::corpus::{Case, Expected};
use super::given::Given;

const CLUSTER: &str = "server: '${server}', certificate-authority-data: ${ca}";
const TOKEN: &str = "token: ${token}";
const PAIR: &str = "client-certificate-data: ${certificate}, client-key-data: ${key}";
const CA: &str = "certificate-authority-data";

/// Another cluster.
const CLUSTERS: &[(&str, &str, &str)] = &[
    ("a slash at the server's end", "server: '${server}/'", ""),
    ("a server with a scheme in capitals", "server: 'HTTPS://${host}'", ""),
    ("a server without a scheme", "server: '${host}'", "neither: server must be an https URL"),
    ("a server by HTTP", "server: '${http}'", "meant: server must be an https URL"),
    ("a server with a query", "server: '${server}/?a=b'", "meant: server must be an https URL"),
    ("a server of no kind", "server: 'ftp://${host}'", "neither: server must be an https URL"),
    ("no server", "server: ''", "neither: it has no server"),
    ("a server that is a number", "server: 1", "neither: server must be text"),
    ("proxy-url, empty", "proxy-url: ''", ""),
    ("proxy-url", "proxy-url: '${proxy}'", "meant: it uses proxy-url"),
    ("tls-server-name, empty", "tls-server-name: ''", ""),
    ("tls-server-name", "tls-server-name: localhost", "meant: it uses tls-server-name"),
    ("certificate-authority, empty", "certificate-authority: ''", ""),
    ("insecure-skip-tls-verify: false", "insecure-skip-tls-verify: false", ""),
    ("insecure-skip-tls-verify: null", "insecure-skip-tls-verify: null", ""),
    (
        "insecure-skip-tls-verify beside a CA",
        "insecure-skip-tls-verify: true",
        "neither: it uses insecure-skip-tls-verify",
    ),
    (
        "insecure-skip-tls-verify",
        "insecure-skip-tls-verify: true, certificate-authority-data: ''",
        "meant: it uses insecure-skip-tls-verify",
    ),
    (
        "insecure-skip-tls-verify as text",
        "insecure-skip-tls-verify: 'false'",
        "neither: insecure-skip-tls-verify must be true or false",
    ),
    ("disable-compression", "disable-compression: true", ""),
    ("api-version, of an old form", "api-version: v1", ""),
    ("a field that nobody knows", "example: a", "meant: its cluster has a field that is not known: example"),
    ("no CA", "certificate-authority-data: null", "meant: it has no certificate-authority-data"),
    (
        "a CA of line breaks alone",
        "certificate-authority-data: \"\\n\"",
        "meant: it has no certificate-authority-data",
    ),
    (
        "a CA in a file",
        "certificate-authority-data: '', certificate-authority: '${ca-file}'",
        "meant: it uses certificate-authority, a file path",
    ),
    ("a CA with a key, a comment and bag attributes", "certificate-authority-data: ${ca-beside}", ""),
    ("a CA beside another", "certificate-authority-data: ${ca-bundle}", ""),
    ("a CA beside a block that is none", "certificate-authority-data: ${ca-broken-and-good}", ""),
    ("a CA in lines of DOS", "certificate-authority-data: ${ca-dos}", ""),
    ("base64 with \\n", "certificate-authority-data: \"${ca-newlines}\\n\"", ""),
    ("base64 with \\r\\n", "certificate-authority-data: \"${ca-crlf}\"", ""),
    (
        "base64 with spaces",
        "certificate-authority-data: \"${ca-spaces}\"",
        "neither: certificate-authority-data is not base64",
    ),
    (
        "base64 with tabs",
        "certificate-authority-data: \"${ca-tabs}\"",
        "neither: certificate-authority-data is not base64",
    ),
    (
        "base64 with a space at its end",
        "certificate-authority-data: '${ca} '",
        "neither: certificate-authority-data is not base64",
    ),
    (
        "a CA as PEM, without base64",
        "certificate-authority-data: \"${ca-text}\"",
        "neither: certificate-authority-data is not base64",
    ),
    (
        "a CA as DER",
        "certificate-authority-data: ${ca-der}",
        "neither: certificate-authority-data is base64 of something else than PEM",
    ),
    (
        "a key as CA",
        "certificate-authority-data: ${ca-key}",
        "neither: certificate-authority-data is PEM that has no CERTIFICATE",
    ),
    (
        "a CA that is cut off",
        "certificate-authority-data: ${ca-cut}",
        "neither: certificate-authority-data is PEM that has no CERTIFICATE",
    ),
    (
        "a CA block that can't be parsed",
        "certificate-authority-data: ${ca-broken}",
        "neither: certificate-authority-data has a block CERTIFICATE that is no X.509 certificate",
    ),
    (
        "the CA of another cluster",
        "certificate-authority-data: ${ca-other}",
        "neither: the managed cluster is unreachable",
    ),
];

/// Another user.
const USERS: &[(&str, &str, &str)] = &[
    ("a token", TOKEN, ""),
    ("a certificate", PAIR, ""),
    ("a token and a certificate", "token: ${token}, ${pair}", ""),
    ("a token that nobody knows, and a certificate", "token: abc, ${pair}", ""),
    ("a certificate and an empty token", "token: '', ${pair}", ""),
    (
        "a token and an empty certificate",
        "token: ${token}, client-certificate-data: '', client-key-data: ''",
        "",
    ),
    ("a token and a key alone", "token: ${token}, client-key-data: ${key}", ""),
    (
        "a token and a certificate alone",
        "token: ${token}, client-certificate-data: ${certificate}",
        "neither: it has no client-key-data",
    ),
    ("a token beside tokenFile", "token: ${token}, tokenFile: /nowhere", ""),
    ("tokenFile", "tokenFile: '${token-file}'", "meant: it uses tokenFile, a file path"),
    ("a token with a space behind", "token: '${token} '", ""),
    ("a token with a space before", "token: ' ${token}'", "neither: token must be printable"),
    ("a token with a line break", "token: \"${token}\\n\"", "neither: token must be printable"),
    ("a token that is a number", "token: 123", "neither: token must be text"),
    ("a token that is wrong", "token: abc", "neither: the managed cluster does not accept the credentials"),
    ("tokenFile, empty", "token: ${token}, tokenFile: ''", ""),
    ("username and password, empty", "token: ${token}, username: '', password: ''", ""),
    ("username and password", "username: a, password: b", "neither: it uses username and password"),
    ("as, empty", "token: ${token}, as: '', as-uid: ''", ""),
    ("as-groups, empty", "token: ${token}, as-groups: []", ""),
    ("as-user-extra, empty", "token: ${token}, as-user-extra: {}", ""),
    (
        "impersonation",
        "token: ${token}, as: somebody, as-groups: ['system:masters']",
        "meant: it uses impersonation",
    ),
    (
        "as-groups without as",
        "token: ${token}, as-groups: ['system:masters']",
        "neither: it uses impersonation",
    ),
    ("client-certificate and client-key, empty", "client-certificate: '', client-key: '', ${pair}", ""),
    (
        "a certificate in a file",
        "client-certificate: '${certificate-file}', client-key-data: ${key}",
        "meant: it uses client-certificate, a file path",
    ),
    (
        "a key in a file",
        "client-certificate-data: ${certificate}, client-key: '${key-file}'",
        "meant: it uses client-key, a file path",
    ),
    ("exec and auth-provider, null", "token: ${token}, exec: null, auth-provider: null", ""),
    ("exec, empty", "token: ${token}, exec: {}", "neither: it uses exec"),
    (
        "exec beside a token",
        "token: ${token}, exec: {apiVersion: client.authentication.k8s.io/v1, command: '${program}', interactiveMode: Never}",
        "meant: it uses exec",
    ),
    ("auth-provider, empty", "token: ${token}, auth-provider: {}", "neither: it uses auth-provider"),
    (
        "a field that nobody knows in a user",
        "token: ${token}, example: a",
        "meant: its user has a field that is not known: example",
    ),
    ("a certificate in text", "client-certificate-data: ${certificate-text}, client-key-data: ${key}", ""),
    (
        "a certificate with its CA",
        "client-certificate-data: ${certificate-chain}, client-key-data: ${key}",
        "",
    ),
    ("certificate and key in one PEM", "client-certificate-data: ${both}, client-key-data: ${both}", ""),
    ("a certificate alone", "client-certificate-data: ${certificate}", "neither: it has no client-key-data"),
    ("a key alone", "client-key-data: ${key}", "neither: it has no client-certificate-data"),
    (
        "a key of another certificate",
        "client-certificate-data: ${certificate}, client-key-data: ${key-other}",
        "neither: client-key-data is the key of another certificate",
    ),
    (
        "an encrypted key",
        "client-certificate-data: ${certificate}, client-key-data: ${key-encrypted}",
        "neither: client-key-data is an encrypted key",
    ),
    (
        "a certificate as key",
        "client-certificate-data: ${certificate}, client-key-data: ${certificate}",
        "neither: client-key-data is PEM that has no PRIVATE KEY",
    ),
    (
        "a key as certificate",
        "client-certificate-data: ${key}, client-key-data: ${key}",
        "neither: client-certificate-data is PEM that has no CERTIFICATE",
    ),
    (
        "a certificate that is no X.509",
        "client-certificate-data: ${ca-broken}, client-key-data: ${key}",
        "neither: client-certificate-data has a block CERTIFICATE that is no X.509 certificate",
    ),
    (
        "a key that is none",
        "client-certificate-data: ${certificate}, client-key-data: YQ==",
        "neither: client-key-data is base64 of something else than PEM",
    ),
    (
        "a key that is no base64",
        "client-certificate-data: ${certificate}, client-key-data: '*'",
        "neither: client-key-data is not base64",
    ),
    (
        "a certificate of X.509 version 1",
        "client-certificate-data: ${certificate-v1}, client-key-data: ${key-v1}",
        "meant: client-certificate-data is an X.509 certificate of version 1",
    ),
    (
        "an RSA key of 1024 bits",
        "client-certificate-data: ${certificate-short}, client-key-data: ${key-short}",
        "meant: client-key-data is an RSA key of fewer than 2048 bits",
    ),
    ("no credentials", "token: ''", "neither: it has no credentials"),
];

/// A text in the place of another.
const TEXTS: &[(&str, &str, &str, &str)] = &[
    ("kind and apiVersion left out", "apiVersion: v1\nkind: Config\n", "", ""),
    ("kind and apiVersion empty", "apiVersion: v1\nkind: Config\n", "apiVersion: ''\nkind: ''\n", ""),
    ("another kind", "kind: Config", "kind: Secret", "neither: it is not a kubeconfig"),
    ("a token twice", "token:", "token: abc, token:", ""),
    ("a user without a body", "users: [", "users: [{name: x}, ", ""),
    ("a cluster without a body", "clusters: [", "clusters: [{name: x}, ", ""),
    ("a context without a body", "contexts: [", "contexts: [{name: w}, ", ""),
    ("an unused user with odd fields", "users: [", "users: [{name: x, user: {example: [1]}, more: 1}, ", ""),
    ("an unused cluster of no form", "clusters: [", "clusters: [{name: x, cluster: {server: [1]}}, ", "ours"),
    (
        "two clusters of one name",
        "clusters: [",
        "clusters: [{name: c, cluster: {}}, ",
        "neither: it has two clusters",
    ),
    ("two users of one name", "users: [", "users: [{name: u, user: {}}, ", "neither: it has two users"),
    ("a merge key", "{token:", "{<<: {token: abc}, token:", ""),
    ("an alias", "apiVersion: v1\n", "apiVersion: &v v1\nmore: *v\n", ""),
    ("no current context", "current-context: x", "preferences: {}", "ours"),
    (
        "another current context",
        "current-context: x",
        "current-context: other",
        "neither: it has no current context",
    ),
    (
        "a context without a cluster",
        "cluster: c, user",
        "user",
        "neither: it has no cluster of its current context",
    ),
    ("a context without a user", ", user: u}", "}", "neither: it has no user of its current context"),
    ("a context of another user", "user: u}", "user: w}", "neither: it has no user of its current context"),
    ("a context with a field that nobody knows", "user: u}", "user: u, example: a}", ""),
    (
        "top-level fields that nobody knows",
        "kind: Config",
        "kind: Config\nmetadata: {name: x}\nexample: [a]",
        "",
    ),
    ("preferences: null", "kind: Config", "kind: Config\npreferences: null\nextensions: null", ""),
    ("more than 256 KiB", "kind: Config", "kind: Config\n${padding}", "meant: it is larger than 256 KiB"),
    ("a second document", "", "---\nkind: Config\n", "meant: it is more than one YAML document"),
    ("an empty document behind", "", "---\n# nothing more\n", ""),
    ("an empty document before", "apiVersion", "---\n---\napiVersion", "ours"),
    ("marks of a document", "apiVersion", "---\n# a comment\napiVersion", ""),
    ("no YAML", "kind: Config", "kind: [", "neither: it is not YAML or JSON"),
];

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    )
}

fn expected(text: &str) -> Expected {
    match text.split_once(": ") {
        Some(("meant", words)) => Expected::Meant(words.to_owned()),
        Some(("neither", words)) => Expected::Neither(words.to_owned()),
        _ if text == "ours" => Expected::Ours,
        _ => Expected::Both,
    }
}

pub fn all(given: &Given) -> Vec<Case> {
    let case = |name: &str, template: &str, expected_as: &str| {
        let text = given.fill(&template.replace("${pair}", PAIR)).into_bytes();
        Case { name: name.to_owned(), text, expected: expected(expected_as) }
    };
    let mut cases = Vec::new();
    for (name, more, is) in CLUSTERS {
        // What is said anew isn't said twice.
        let before = CLUSTER.split(", ").filter(|field| {
            let key = field.split(':').next().unwrap_or_default();
            !more.split(", ").any(|other| other.starts_with(&format!("{key}:")))
        });
        let cluster = before.chain([*more]).collect::<Vec<_>>().join(", ");
        assert!(cluster.contains(CA));
        cases.push(case(name, &kubeconfig(&cluster, TOKEN), is));
    }
    for (name, user, is) in USERS {
        cases.push(case(name, &kubeconfig(CLUSTER, user), is));
    }
    let good = kubeconfig(CLUSTER, TOKEN);
    for (name, from, to, is) in TEXTS {
        let to = to.replace("${padding}", &"# padding\n".repeat(30_000));
        let text = if from.is_empty() { format!("{good}{to}") } else { good.replacen(from, &to, 1) };
        assert_ne!(text, good, "{name}");
        cases.push(case(name, &text, is));
    }
    let filled = given.fill(&good);
    for (name, text) in [
        ("lines of DOS", filled.replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{filled}")),
        ("no line break at the end", filled.trim_end().to_owned()),
    ] {
        cases.push(Case { name: name.to_owned(), text: text.into_bytes(), expected: Expected::Both });
    }
    for (name, bytes) in [
        ("UTF-16, as a shell of Windows writes it", u16::to_le_bytes as fn(u16) -> [u8; 2]),
        ("UTF-16 in the other order", u16::to_be_bytes),
    ] {
        let text = format!("\u{feff}{}", filled.replace('\n', "\r\n"));
        let text = text.encode_utf16().flat_map(bytes).collect();
        cases.push(Case { name: name.to_owned(), text, expected: Expected::Both });
    }
    // A user and a password in the URL count before a token, but not before a certificate.
    let userinfo = CLUSTER.replace("${server}", "https://a:b@${host}");
    cases.push(case(
        "a user in the server's URL",
        &kubeconfig(&userinfo, PAIR),
        "meant: server must be an https URL",
    ));
    cases
}
