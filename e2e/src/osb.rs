//! A client of the Open Service Broker API, as a platform would be one.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::cluster::install_crypto_provider;
use crate::{canary, eventually};

/// Talks to one broker.
#[derive(Clone)]
pub struct Osb {
    http: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, which is always JSON.
    pub body: Value,
}

impl Answer {
    /// The kubeconfig in it.
    ///
    /// # Errors
    /// When there is none; the answer is in the message, which has no secret then.
    pub fn kubeconfig(&self) -> Result<&str> {
        let kubeconfig = self.body["credentials"]["kubeconfig"].as_str();
        kubeconfig.with_context(|| format!("no kubeconfig in {} {}", self.status, self.body))
    }

    /// The error's description.
    #[must_use]
    pub fn description(&self) -> &str {
        self.body["description"].as_str().unwrap_or_default()
    }

    /// Searches it for credentials, but for the kubeconfig: that was asked for.
    fn search(&self) {
        if canary::searching() {
            let mut body = self.body.clone();
            if let Some(kubeconfig) = body.pointer_mut("/credentials/kubeconfig") {
                kubeconfig.take();
            }
            canary::search_silently("an answer of the broker", &format!("{:?}\n{body}", self.headers));
        }
    }
}

impl Osb {
    /// A client for the broker at `base`, such as `http://127.0.0.1:8080`; it uses no proxy.
    #[must_use]
    pub fn new(base: &str) -> Self {
        // Building fails only where the default client panics, too.
        Self::over(base, client().build().unwrap_or_default())
    }

    /// One that trusts the broker's certificate if it is of that authority, and nobody else.
    ///
    /// # Errors
    /// When that is no authority.
    pub fn trusting(base: &str, ca_pem: &str) -> Result<Self> {
        Ok(Self::over(base, client_trusting(ca_pem)?.build()?))
    }

    /// One over a client of HTTP.
    #[must_use]
    pub fn over(base: &str, http: reqwest::Client) -> Self {
        Self { http, base: base.to_owned(), authorization: None }
    }

    /// The same as a user with a password.
    #[must_use]
    pub fn with_basic(self, user: &str, password: &str) -> Self {
        let login = STANDARD.encode(format!("{user}:{password}"));
        canary::learn("a login", &login);
        canary::learn("a password", password);
        self.with_authorization(&format!("Basic {login}"))
    }

    /// The same with that header in every request; without one if it can't be one.
    #[must_use]
    pub fn with_authorization(self, value: &str) -> Self {
        Self { authorization: value.parse().ok(), ..self }
    }

    /// A request as it is sent by this client.
    fn to(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// URL of a binding under the plain prefix.
    #[must_use]
    pub fn url(&self, instance: &str, binding: &str) -> String {
        format!("{}/v2/service_instances/{instance}/service_bindings/{binding}", self.base)
    }

    /// PUT with a lifetime, or without one.
    ///
    /// # Errors
    /// When there is no answer, or one that isn't JSON.
    pub async fn bind(&self, instance: &str, binding: &str, seconds: Option<i64>) -> Result<Answer> {
        let mut body = json!({"service_id": "kyma", "plan_id": "aws"});
        if let Some(seconds) = seconds {
            body["parameters"] = json!({"expiration_seconds": seconds});
        }
        send(self.to(Method::PUT, &self.url(instance, binding)).json(&body)).await
    }

    /// PUT, repeated as a platform does while the answer is that it takes longer (503).
    ///
    /// # Errors
    /// As [`Self::bind`], and when it takes longer than a minute.
    pub async fn bound(&self, instance: &str, binding: &str) -> Result<Answer> {
        let what = format!("{binding} to be bound");
        let answer = eventually(&what, Duration::from_mins(1), async || {
            let answer = self.bind(instance, binding, None).await?;
            if answer.status == 503 { Err(anyhow!(answer.description().to_owned())) } else { Ok(answer) }
        });
        Ok(answer.await?)
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn fetch(&self, instance: &str, binding: &str) -> Result<Answer> {
        send(self.to(Method::GET, &self.url(instance, binding))).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn unbind(&self, instance: &str, binding: &str) -> Result<Answer> {
        let url = format!("{}?service_id=kyma&plan_id=aws", self.url(instance, binding));
        send(self.to(Method::DELETE, &url)).await
    }

    /// Any request to a path of this broker, with the version header.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn request(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer> {
        let request = self.to(method, &format!("{}{path}", self.base));
        send(match body {
            Some(body) => request.body(body),
            None => request,
        })
        .await
    }

    /// A request without the version header, to be filled in.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.to(method, &format!("{}{path}", self.base))
    }
}

fn client() -> ClientBuilder {
    // Without it no client of HTTPS can be built, and they all could be one.
    install_crypto_provider();
    reqwest::Client::builder().no_proxy()
}

/// A client of HTTPS that trusts one authority.
///
/// # Errors
/// When that is none.
pub fn client_trusting(ca_pem: &str) -> Result<ClientBuilder> {
    Ok(client().tls_certs_only([Certificate::from_pem(ca_pem.as_bytes())?]))
}

async fn send(request: RequestBuilder) -> Result<Answer> {
    answer(request.header("X-Broker-API-Version", "2.17")).await
}

/// Sends a request as it is.
///
/// # Errors
/// When there is no answer, or one that isn't JSON.
pub async fn answer(request: RequestBuilder) -> Result<Answer> {
    let response = request.timeout(Duration::from_mins(1)).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body: Value = response.json().await.with_context(|| format!("the body of a {status} is not JSON"))?;
    let answer = Answer { status, headers, body };
    if let Ok(kubeconfig) = answer.kubeconfig() {
        canary::learn_kubeconfig("a token that was answered", kubeconfig);
    }
    answer.search();
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const TOKEN: &str = "YXNrZWQtZm9y.aW4tYS1rdWJlY29uZmln.YW5kLW5vdGhpbmctZWxzZQ";

    #[test]
    fn an_answer_is_searched_but_for_its_kubeconfig() {
        canary::begin();
        canary::learn("a token", TOKEN);
        let found = |headers: HeaderMap, body: Value| {
            let answer = Answer { status: 200, headers, body };
            catch_unwind(AssertUnwindSafe(|| answer.search())).is_err()
        };
        let kubeconfig = json!({"credentials": {"kubeconfig": format!("token: {TOKEN}")}});
        assert!(!found(HeaderMap::new(), kubeconfig));
        assert!(found(HeaderMap::new(), json!({"description": format!("no {}", &TOKEN[8..24])})));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, TOKEN.parse().unwrap())]);
        assert!(found(headers, json!({})));
    }
}
