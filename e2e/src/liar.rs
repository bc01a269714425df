//! A managed cluster that lies: an HTTPS server that does what an API server does with the few
//! objects of bindings, and then says of it what a test wants said, in the way and at the pace that it wants.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::canary;
use crate::cluster::install_crypto_provider;
use crate::fake::acceptor;
use crate::kubeconfig::{Credentials, render};
use crate::pki::Pki;

/// Most of a request that is read of an operator, bytes.
const PIECE: usize = 64 * 1024;

/// What was asked.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `null` where there is none.
    pub body: Value,
}

impl Asked {
    /// Whether something is to be made in such a collection, such as `clusterroles`.
    #[must_use]
    pub fn makes(&self, collection: &str) -> bool {
        self.method == Method::POST && self.path.ends_with(&format!("/{collection}"))
    }
}

/// What an honest server would answer, when it has done it.
#[derive(Debug)]
pub struct Truth {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Whole,
    /// The connection is closed before it is whole.
    Cut,
}

/// What is answered.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside those that HTTP needs.
    pub headers: Vec<(&'static str, String)>,
    /// How long nothing comes at all.
    pub late: Duration,
    /// The body, piece by piece.
    pub pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    /// How long nothing comes before each piece.
    pub pause: Duration,
    /// What is claimed of its length.
    pub length: Option<u64>,
    /// How it ends.
    pub end: End,
}

impl Reply {
    /// A body in one piece and at once.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self::of_pieces(status, std::iter::once(body.into()))
    }

    /// A body in pieces, of a length that nobody says.
    pub fn of_pieces(status: u16, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self {
            status,
            headers: Vec::new(),
            late: Duration::ZERO,
            pieces: Box::new(pieces),
            pause: Duration::ZERO,
            length: None,
            end: End::Whole,
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Truth> for Reply {
    fn from(Truth { status, body }: Truth) -> Self {
        Self::new(status, body.to_string())
    }
}

/// Makes an answer of what was asked and what would be true.
pub type Lie = fn(&Asked, Truth) -> Reply;

/// What it has and has given away.
#[derive(Default)]
struct Store {
    /// Objects by their paths.
    objects: BTreeMap<String, Value>,
    issued: Vec<String>,
}

struct Server {
    lie: Lie,
    honest: AtomicBool,
    store: Mutex<Store>,
}

/// A lying server; it ends when it is dropped.
pub struct Liar {
    kubeconfig: String,
    token: String,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    /// Starts one on a free port of the loopback interface, with an authority and a token of its own.
    ///
    /// # Errors
    /// When there is no port or no certificate to be had.
    pub async fn start(lie: Lie) -> Result<Self> {
        install_crypto_provider();
        let pki = Pki::generate("liar")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let token = format!("token-of-a-liar-{}", random());
        let kubeconfig = render("liar", &url, pki.ca_pem(), &Credentials::Token(&token));
        let server = Server { lie, honest: AtomicBool::new(false), store: Mutex::default() };
        let (server, acceptor) = (Arc::new(server), acceptor(&pki)?);
        let serving = server.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), serving.clone()));
            }
        });
        Ok(Self { kubeconfig, token, server, task })
    }

    /// The kubeconfig that leads to it.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// From now on it tells the truth.
    pub fn repent(&self) {
        self.server.honest.store(true, Ordering::Relaxed);
    }

    /// The paths of the objects that it has.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.server.store().objects.keys().cloned().collect()
    }

    /// What nobody but its owner may read: the kubeconfig's token, and all that were issued.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let issued = self.server.store().issued.clone();
        issued.into_iter().chain([self.token.clone()]).collect()
    }
}

impl Server {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Paced> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let asked = Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let truth = self.store().act(&asked);
        let honest = self.honest.load(Ordering::Relaxed);
        let reply = if honest { truth.into() } else { (self.lie)(&asked, truth) };
        tokio::time::sleep(reply.late).await;
        respond(reply)
    }
}

impl Store {
    /// Does what an API server would do.
    fn act(&mut self, asked: &Asked) -> Truth {
        let (collection, name) = asked.path.rsplit_once('/').unwrap_or_default();
        match (&asked.method, name) {
            (&Method::GET, "kube-system") => told(200, namespace()),
            (&Method::POST, "token") => self.issue(collection, &asked.body),
            (&Method::POST, "tokenreviews") => self.review(&asked.body),
            (&Method::POST, _) => self.create(&asked.path, &asked.body),
            (&Method::GET, "serviceaccounts" | "clusterroles" | "clusterrolebindings") => {
                let of_it = self.objects.iter().filter(|(path, _)| path.starts_with(&asked.path));
                let items: Vec<_> = of_it.map(|(_, object)| object).collect();
                told(200, json!({"kind": "PartialObjectMetadataList", "metadata": {}, "items": items}))
            }
            (&Method::DELETE, _) => self.delete(&asked.path, &asked.body),
            _ => match self.objects.get(&asked.path) {
                Some(object) => told(200, object.clone()),
                None => status(404),
            },
        }
    }

    fn create(&mut self, collection: &str, object: &Value) -> Truth {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&path) {
            return status(409);
        }
        let mut object = object.clone();
        object["metadata"]["uid"] = random().into();
        object["metadata"]["creationTimestamp"] = Timestamp::now().to_string().into();
        self.objects.insert(path, object.clone());
        told(201, object)
    }

    fn delete(&mut self, path: &str, options: &Value) -> Truth {
        let Some(object) = self.objects.get(path) else { return status(404) };
        let asked = &options["preconditions"]["uid"];
        if !asked.is_null() && asked != &object["metadata"]["uid"] {
            return status(409);
        }
        self.objects.remove(path);
        status(200)
    }

    /// Whether a token is one that was issued here, and whose.
    fn review(&self, review: &Value) -> Truth {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Value = claims.and_then(|c| serde_json::from_slice(&c).ok()).unwrap_or_default();
        let known = self.issued.iter().any(|issued| issued == token);
        let status = if known {
            json!({"authenticated": true, "user": {"username": claims["sub"]}})
        } else {
            json!({"authenticated": false})
        };
        told(201, json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}))
    }

    /// A token for the account at that path.
    fn issue(&mut self, account: &str, request: &Value) -> Truth {
        if !self.objects.contains_key(account) {
            return status(404);
        }
        let mut parts = account.rsplit('/');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
        let ends = Timestamp::now() + SignedDuration::from_secs(seconds);
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        let token = jwt(&json!({"sub": subject, "exp": ends.as_second()}));
        canary::learn("a liar's token", &token);
        self.issued.push(token.clone());
        let mut answer = request.clone();
        answer["status"] = json!({"token": token, "expirationTimestamp": ends.to_string()});
        told(201, answer)
    }
}

/// A token with these claims and a signature that nobody checks.
#[must_use]
pub fn jwt(claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(&claims.to_string()), part(&random()))
}

fn namespace() -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system", "uid": "a-liar"}})
}

fn status(code: u16) -> Truth {
    told(code, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code}))
}

fn told(status: u16, body: Value) -> Truth {
    Truth { status, body }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

type Paced = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

fn respond(reply: Reply) -> Response<Paced> {
    let Reply { status, headers, pieces, pause, length, end, .. } = reply;
    let pieces = stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        tokio::time::sleep(pause).await;
        match pieces.next() {
            Some(piece) => Some((Ok(Frame::data(piece)), Some(pieces))),
            None if end == End::Cut => Some((Err(io::Error::other("cut")), None)),
            None => None,
        }
    });
    let mut response = Response::new(Box::pin(StreamBody::new(pieces)) as Paced);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let length = length.map(|length| ("content-length", length.to_string()));
    for (name, value) in headers.into_iter().chain(length) {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, server: Arc<Server>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    // Whoever hangs up first has seen enough.
    let connection =
        http1::Builder::new().max_buf_size(PIECE).serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}
