//! What a kubeconfig that is handed out may say: one server, one token of the binding's own account, and nothing
//! else. Whoever swaps a Secret could otherwise have clients run a program, or take another account's token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::names::BindingId;
use crate::support::secret::{ExposeSecret as _, SecretString};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    clusters: Vec<Cluster>,
    users: Vec<User>,
    contexts: Vec<Context>,
    current_context: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    name: String,
    cluster: Server,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Server {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    _authority: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    user: Token,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: SecretString,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    name: String,
    context: Pair,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(flatten)]
    _more: IgnoredAny,
}

/// Whether a kubeconfig is one that is made for that binding. Nobody's signature is checked: the cluster does.
#[must_use]
pub fn is_as_made(text: &str, id: &BindingId) -> bool {
    match plain(text) {
        Some(plain) => is_of(plain.token, id),
        None => is_read_as_made(text, id),
    }
}

/// What a kubeconfig of plain words says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plain<'a> {
    /// Of its cluster, its user and its context.
    pub name: &'a str,
    /// Behind `https://`.
    pub server: &'a str,
    /// The CA, base64.
    pub authority: &'a str,
    /// The token.
    pub token: &'a str,
}

/// What a kubeconfig of plain words only says, written character by character as ours are. Nearly all are, and
/// to read YAML takes longer than all else that is done for a fetch.
pub(crate) fn plain(text: &str) -> Option<Plain<'_>> {
    let value = |key: &str, others: &[u8]| {
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        value.bytes().all(|c| c.is_ascii_alphanumeric() || others.contains(&c)).then_some(value)
    };
    let name = value("current-context: ", b"-_.")?;
    let server = value("    server: https://", b"-_.:/[]")?;
    let authority = value("    certificate-authority-data: ", b"+/=")?;
    let token = value("    token: ", b"-_.")?;
    let (comment, mut rest) = text.split_once('\n')?;
    for part in [
        "apiVersion: v1\nkind: Config\nclusters:\n- name: ",
        name,
        "\n  cluster:\n    server: https://",
        server,
        "\n    certificate-authority-data: ",
        authority,
        "\nusers:\n- name: ",
        name,
        "\n  user:\n    token: ",
        token,
        "\ncontexts:\n- name: ",
        name,
        "\n  context:\n    cluster: ",
        name,
        "\n    user: ",
        name,
        "\ncurrent-context: ",
        name,
        "\n",
    ] {
        rest = rest.strip_prefix(part)?;
    }
    (comment.starts_with("# ") && rest.is_empty()).then_some(Plain { name, server, authority, token })
}

fn is_read_as_made(text: &str, id: &BindingId) -> bool {
    let Ok(file) = serde_saphyr::from_str::<File>(text) else { return false };
    let File { api_version, kind, clusters, users, contexts, current_context: name } = file;
    let ([cluster], [user], [context]) = (&clusters[..], &users[..], &contexts[..]) else { return false };
    let names = [&cluster.name, &user.name, &context.name, &context.context.cluster, &context.context.user];
    api_version == "v1"
        && kind == "Config"
        && names.into_iter().all(|other| *other == name)
        && cluster.cluster.server.starts_with("https://")
        && is_of(user.user.token.expose_secret(), id)
}

fn is_of(token: &str, id: &BindingId) -> bool {
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { return false };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok();
    let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    let account = claims.filter(|claims| claims.exp > 0).map(|claims| claims.sub);
    let account = account.as_deref().and_then(|sub| sub.strip_prefix("system:serviceaccount:"));
    account.and_then(|account| account.split_once(':')).is_some_and(|(_, name)| name == id.object_name())
}

/// One that passes, for tests.
#[cfg(test)]
#[must_use]
pub fn example(id: &BindingId) -> String {
    let claims = format!(
        r#"{{"sub": "system:serviceaccount:kyma-system:{}", "exp": 9, "iss": "i"}}"#,
        id.object_name()
    );
    let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
    format!(
        "# A line for people.\napiVersion: v1\nkind: Config\n\
         clusters: [{{name: n, cluster: {{server: 'https://c', certificate-authority-data: QQ==}}}}]\n\
         users: [{{name: n, user: {{token: {token}}}}}]\n\
         contexts: [{{name: n, context: {{cluster: n, user: n}}}}]\ncurrent-context: n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_make_is_handed_out() {
        let id = BindingId::parse("b").unwrap();
        let good = example(&id);
        assert!(is_as_made(&good, &id));
        assert!(!is_as_made(&good, &BindingId::parse("c").unwrap()), "another binding's");
        let long =
            format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"sub": "system:serviceaccount:x:y", "exp": 9}"#));
        let token = good.split("token: ").nth(1).unwrap().split('}').next().unwrap().to_owned();
        for (from, to) in [
            ("user: {token", "user: {exec: {command: evil}, token"),
            ("user: {token", "user: {auth-provider: {name: evil}, token"),
            ("user: {token", "user: {tokenFile: /etc/shadow, token"),
            ("server: 'https://c'", "server: 'http://c'"),
            ("server: 'https://c'", "server: 'https://c', proxy-url: 'http://evil'"),
            ("server: 'https://c'", "server: 'https://c', insecure-skip-tls-verify: true"),
            ("cluster: n, user: n", "cluster: n, user: other"),
            ("current-context: n", "current-context: other"),
            ("current-context: n", "current-context: n\npreferences: {}"),
            ("kind: Config", "kind: Other"),
            (token.as_str(), long.as_str()),
            (token.as_str(), "no-jwt"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(!is_as_made(&good.replace(from, to), &id), "{to}");
        }
        assert!(!is_as_made("", &id));
    }

    #[test]
    fn what_is_written_in_plain_words_is_known_without_a_parser() {
        let id = BindingId::parse("b").unwrap();
        let token = example(&id).split("token: ").nth(1).unwrap().split('}').next().unwrap().to_owned();
        let good = format!(
            "# A line for people.\napiVersion: v1\nkind: Config\nclusters:\n- name: n-1\n  cluster:\n    server: https://c:6443/\n    \
             certificate-authority-data: QQ==\nusers:\n- name: n-1\n  user:\n    token: {token}\ncontexts:\n- name: n-1\n  context:\n    \
             cluster: n-1\n    user: n-1\ncurrent-context: n-1\n"
        );
        let said = Plain { name: "n-1", server: "c:6443/", authority: "QQ==", token: &token };
        assert_eq!(plain(&good), Some(said));
        assert!(is_as_made(&good, &id) && !is_as_made(&good, &BindingId::parse("c").unwrap()));
        assert!(is_read_as_made(&good, &id), "a parser says the same");
        for (from, to, read) in [
            ("  user:\n    token", "  user:\n    exec: {command: evil}\n    token", false),
            ("server: https", "server: http", false),
            ("/\n    cert", "/\n    proxy-url: http://evil\n    cert", false),
            ("user: n-1", "user: other", false),
            ("n-1\n  user:", "other\n  user:", false),
            ("current-context: n-1\n", "current-context: n-1\npreferences: {}\n", false),
            ("apiVersion: v1\n", "apiVersion: v1\n---\n", false),
            // Not as we write it, and yet the same.
            ("# A line for people.\n", "", true),
            ("QQ==", "\"QQ==\"", true),
            ("current-context: n-1\n", "current-context: n-1", true),
        ] {
            assert!(good.contains(from), "{from}");
            let text = good.replacen(from, to, 1);
            assert_eq!(plain(&text), None, "{to}");
            assert_eq!(is_as_made(&text, &id), read, "{to}");
        }
    }
}
