//! The kubeconfig that is handed out.

use jiff::Timestamp;
use serde::Serialize;

use super::yaml::Node;
use super::{Access, MAX_SIZE, Refusal, access, read};
use crate::api::issued::{self, Plain};
use crate::support::secret::{ExposeSecret as _, SecretString};

impl Access {
    /// The kubeconfig that is handed out: this cluster, that token, all named `name`, with a
    /// first line for people that says when it ends.
    ///
    /// # Errors
    /// [`Refusal::Unreadable`] when what was written doesn't read back as the same.
    pub fn kubeconfig(
        &self,
        name: &str,
        token: &SecretString,
        expires_at: Timestamp,
    ) -> Result<SecretString, Refusal> {
        let (server, ca) = (self.server.text.as_str(), self.authority_data());
        let document = Out {
            api_version: "v1",
            kind: "Config",
            clusters: [OutCluster { name, cluster: OutServer { server, ca: &ca } }],
            users: [OutUser { name, user: OutToken { token: token.expose_secret() } }],
            contexts: [OutContext { name, context: OutPair { cluster: name, user: name } }],
            current_context: name,
        };
        // One line a value, as every tool that ever read a kubeconfig expects it.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let yaml =
            serde_saphyr::to_string_with_options(&document, options).map_err(|_| Refusal::Unreadable)?;
        if yaml.len() > MAX_SIZE {
            return Err(Refusal::TooLarge);
        }
        let text = SecretString::from(format!("# This kubeconfig stops working at {expires_at}.\n{yaml}"));
        let same = match issued::plain(text.expose_secret()) {
            Some(said) => server.strip_prefix("https://").is_some_and(|server| {
                said == Plain { name, server, authority: &ca, token: token.expose_secret() }
            }),
            None => self.is_in(text.expose_secret(), name, token)?,
        };
        same.then_some(text).ok_or(Refusal::Unreadable)
    }

    /// Whether a kubeconfig, read by a parser, says this cluster and that token.
    pub(super) fn is_in(&self, yaml: &str, name: &str, token: &SecretString) -> Result<bool, Refusal> {
        let file = read(yaml.as_bytes())?;
        let back = access(&file)?;
        let credentials = &back.credentials;
        Ok(is_named(&file, name)
            && back.server.text == self.server.text
            && back.ca == self.ca
            && credentials.identity.is_none()
            && credentials.token.as_ref().is_some_and(|t| t.expose_secret() == token.expose_secret()))
    }
}

/// Whether a kubeconfig has one cluster, user and context, all of that name.
pub(super) fn is_named(file: &Node, name: &str) -> bool {
    let lists = ["clusters", "users", "contexts"].map(|key| file.get(key).items().unwrap_or_default());
    let [[cluster], [user], [context]] = lists else { return false };
    let references = ["cluster", "user"].map(|key| context.get("context").get(key));
    let names = [cluster, user, context].map(|entry| entry.get("name"));
    let current = [file.get("current-context")];
    names.into_iter().chain(references).chain(current).all(|found| found.is(name))
}

#[derive(Serialize)]
struct Out<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    kind: &'a str,
    clusters: [OutCluster<'a>; 1],
    users: [OutUser<'a>; 1],
    contexts: [OutContext<'a>; 1],
    #[serde(rename = "current-context")]
    current_context: &'a str,
}

#[derive(Serialize)]
struct OutCluster<'a> {
    name: &'a str,
    cluster: OutServer<'a>,
}

#[derive(Serialize)]
struct OutServer<'a> {
    server: &'a str,
    #[serde(rename = "certificate-authority-data")]
    ca: &'a str,
}

#[derive(Serialize)]
struct OutUser<'a> {
    name: &'a str,
    user: OutToken<'a>,
}

#[derive(Serialize)]
struct OutToken<'a> {
    token: &'a str,
}

#[derive(Serialize)]
struct OutContext<'a> {
    name: &'a str,
    context: OutPair<'a>,
}

#[derive(Serialize)]
struct OutPair<'a> {
    cluster: &'a str,
    user: &'a str,
}
