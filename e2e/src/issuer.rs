//! An issuer of tokens: discovery and keys over HTTPS, honest or not.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::canary;
use crate::cluster::install_crypto_provider;
use crate::pki::Pki;

/// Path of its keys.
const KEYS: &str = "/oauth2/certs";

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    Good,
    /// It names another issuer.
    OtherIssuer,
    /// Its keys are said to be elsewhere.
    ForeignKeys,
    /// It sends on to its keys.
    Redirect,
    /// It publishes no key.
    NoKeys,
    /// Its keys have no end.
    Endless,
    /// It answers with this status.
    Status(u16),
}

/// A key of it, on P-256.
struct Key {
    id: String,
    pair: KeyPair,
}

struct State {
    manners: Manners,
    key: Key,
    asked: usize,
}

/// An issuer on a free port of the loopback interface; it ends when it is dropped.
pub struct Issuer {
    url: String,
    ca_pem: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Issuer {
    /// Starts one with one key, `key-1`.
    ///
    /// # Errors
    /// When there is no port or no key to be had.
    pub async fn start() -> Result<Self> {
        install_crypto_provider();
        let pki = Pki::generate("issuer")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let identity = pki.server()?;
        let chain =
            CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let acceptor = TlsAcceptor::from(Arc::new(config.context("the issuer's certificate is refused")?));
        let key = Key { id: "key-1".to_owned(), pair: KeyPair::generate()? };
        let state = Arc::new(Mutex::new(State { manners: Manners::Good, key, asked: 0 }));
        let (served, own_url) = (state.clone(), url.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state, url) = (acceptor.clone(), served.clone(), own_url.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&state, &url, request.uri().path());
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // Whoever hangs up first has seen enough.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { url, ca_pem: pki.ca_pem().to_owned(), state, task })
    }

    /// Its URL, which is its name.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority of its certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// How often it was asked for its keys.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// Answers in another way from now on.
    pub fn behave(&self, manners: Manners) {
        self.state().manners = manners;
    }

    /// Takes another key in the place of its key.
    ///
    /// # Errors
    /// When none can be made.
    pub fn rotate(&self, id: &str) -> Result<()> {
        self.state().key = Key { id: id.to_owned(), pair: KeyPair::generate()? };
        Ok(())
    }

    /// Its keys as it publishes them.
    #[must_use]
    pub fn jwks(&self) -> Value {
        jwks(&self.state().key)
    }

    /// Its public key, as it is.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.state().key.pair.der_bytes().to_vec()
    }

    /// The header of a token that it would issue.
    #[must_use]
    pub fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "JWT", "kid": self.state().key.id})
    }

    /// A token with its present key, whatever it says.
    ///
    /// # Errors
    /// When it can't be signed.
    pub fn token(&self, header: &Value, claims: &Value) -> Result<String> {
        let key = EncodingKey::from_ec_der(&self.state().key.pair.serialize_der());
        let message = message(header, claims);
        let token = format!("{message}.{}", sign(message.as_bytes(), &key, Algorithm::ES256)?);
        canary::learn("a bearer's token", &token);
        Ok(token)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is signed of a token.
#[must_use]
pub fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn jwks(key: &Key) -> Value {
    // An uncompressed point: 4, then both coordinates of 32 bytes.
    let point = key.pair.der_bytes();
    let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
    let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": key.id, "x": coordinate(1), "y": coordinate(33)});
    json!({"keys": [key]})
}

fn answer(state: &Mutex<State>, url: &str, path: &str) -> Response<String> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let issuer = if state.manners == Manners::OtherIssuer { "https://other.example" } else { url };
    let keys = match state.manners {
        Manners::ForeignKeys => format!("https://localhost:1{KEYS}"),
        Manners::Redirect => format!("{url}/elsewhere"),
        _ => format!("{url}{KEYS}"),
    };
    let (status, body) = match (path, state.manners) {
        (_, Manners::Status(status)) => (StatusCode::from_u16(status).unwrap_or_default(), String::new()),
        ("/.well-known/openid-configuration", _) => {
            (StatusCode::OK, json!({"issuer": issuer, "jwks_uri": keys}).to_string())
        }
        ("/elsewhere", _) => (StatusCode::FOUND, String::new()),
        (KEYS, Manners::Endless) => {
            (StatusCode::OK, format!("{}{}", jwks(&state.key), " ".repeat(300 * 1024)))
        }
        (KEYS, Manners::NoKeys) => (StatusCode::OK, json!({"keys": []}).to_string()),
        (KEYS, _) => {
            state.asked += 1;
            (StatusCode::OK, jwks(&state.key).to_string())
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(body);
    if status == StatusCode::FOUND
        && let Ok(location) = format!("{url}{KEYS}").parse()
    {
        response.headers_mut().insert(http::header::LOCATION, location);
    }
    *response.status_mut() = status;
    response
}
